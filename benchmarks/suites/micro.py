"""Single steps by pytest-benchmark.

Steps run one after another, not in turns, so that each finds its data in the caches.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.options import Options
from benchmarks.record import Series

OPTIONS = pytest.StashKey[Options]()
"""Where the steps find the run's options in pytest's configuration."""
SIDE = 512
"""Width and height of the images, in pixels."""

_STEPS = Path(__file__).parents[1] / "micro"
_SECONDS, _QUICK_SECONDS = 1.0, 0.05
"""Least time of a step."""


class _Plugin:
    def __init__(self, options: Options) -> None:
        self._options = options

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[OPTIONS] = self._options


def run(options: Options) -> Iterator[Series]:
    """Measure every step.

    Args:
        options: of the run.

    Yields:
        `STEP/time` in ms.

    Raises:
        RuntimeError: a step failed.
    """
    with tempfile.TemporaryDirectory(prefix="giqa-benchmark-") as folder:
        out = Path(folder) / "micro.json"
        seconds = _QUICK_SECONDS if options.quick else _SECONDS
        arguments = [
            *("-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", "-q", "-s"),
            *(f"--benchmark-json={out}", "--benchmark-only", "--benchmark-quiet"),
            *(f"--benchmark-max-time={seconds}", f"--benchmark-min-rounds={options.rounds}"),
            *("--benchmark-warmup=on", "--benchmark-warmup-iterations=3"),
            *(f"--rootdir={_STEPS.parents[1]}", str(_STEPS)),
        ]
        code = pytest.main(arguments, plugins=[_Plugin(options)])
        if code:
            raise RuntimeError(f"pytest: exit code {int(code)}")
        found = json.loads(out.read_bytes())
    yield from of_report(found, options)


def of_report(report: dict[str, Any], options: Options) -> Iterator[Series]:
    """Make series of pytest-benchmark's JSON.

    Args:
        report: with `benchmarks[].stats.data`, seconds in the order in which they were measured.
        options: of the run; as many values are made as it has rounds.

    Yields:
        A series per step: medians of equal stretches of its time, since what is measured within
        microseconds is no independent sample of the machine's noise.
    """
    for one in report["benchmarks"]:
        seconds = one["stats"]["data"]
        parts = np.array_split(np.asarray(seconds), min(options.rounds, len(seconds)))
        yield Series(
            name=f"{_name(one)}/time",
            unit="ms",
            better="lower",
            values=tuple(1e3 * float(np.median(part)) for part in parts),
            facts={"threads": options.threads, "runs": len(seconds), **(one["params"] or {})},
        )


def _name(one: dict[str, Any]) -> str:
    """`test_graph[fusion-8]` is called `graph, fusion, 8`."""
    step, _, params = one["name"].removeprefix("test_").partition("[")
    words: Sequence[str] = [step.replace("_", " "), *params.rstrip("]").split("-")]
    return ", ".join(word for word in words if word)
