"""Batch runs: any number of inputs to Parquet shards, resumable after any end, provable.

A run's folder holds `plan.json` (what is scored, how, by which bundle), `inputs.parquet` (every
unit of work), `shards/` (the rows, named by the SHA-256 of what decides them) and `lock`.

>>> from giqa import batch
>>> batch.run(["photos/"], "scores")  # doctest: +SKIP
>>> batch.verify("scores").problems  # doctest: +SKIP
()
"""

from giqa.batch._adapters import score_batches, scored_schema
from giqa.batch._changes import Changes
from giqa.batch._drift import Drift, drift
from giqa.batch._plan import Plan, Runtime, Scoring, Sources, read_plan
from giqa.batch._progress import Progress
from giqa.batch._ray import score_dataset
from giqa.batch._results import Results, RunResult, failures
from giqa.batch._rows import row_schema
from giqa.batch._run import Summary, resume, run, update
from giqa.batch._verify import Verdict, verify
from giqa.batch._videos import video_schema

__all__ = [
    "Changes",
    "Drift",
    "Plan",
    "Progress",
    "Results",
    "RunResult",
    "Runtime",
    "Scoring",
    "Sources",
    "Summary",
    "Verdict",
    "drift",
    "failures",
    "read_plan",
    "resume",
    "row_schema",
    "run",
    "score_batches",
    "score_dataset",
    "scored_schema",
    "update",
    "verify",
    "video_schema",
]
