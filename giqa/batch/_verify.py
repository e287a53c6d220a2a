"""Proving that a run is whole: every input has its rows, once, and nobody altered them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from giqa.batch._folder import Folder, Shard
from giqa.batch._plan import Plan
from giqa.batch._rows import (
    ADDRESS,
    ROWS_SHA256,
    STRETCHES,
    Row,
    flat,
    row_schema,
    rows_digest,
    text,
)
from giqa.batch._stamps import UNKNOWN, stamp
from giqa.batch._units import Unit
from giqa.batch._videos import VIDEOS, video_rows, video_schema
from giqa.uris import local_path

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Verdict:
    """What `verify` found.

    Attributes:
        inputs: inputs of the run.
        rows: rows in whole shards.
        errors: how many rows have which error code.
        gone: inputs that are not there any more; their rows stay.
        passed: what was passed over because it is no input by its suffix.
        problems: what is wrong, one sentence each; empty: all is proven.
    """

    inputs: int
    rows: int
    errors: dict[str, int]
    gone: int
    passed: dict[str, int]
    problems: tuple[str, ...]


def verify(out: str | Path) -> Verdict:
    """Prove a run: a row an input, no duplicates, hashes right.

    A video has a row a frame, and one in `videos.parquet`. Nothing is scored again, and of inputs
    on this machine only sizes and times are looked at (with `check="hash"`, all bytes).

    Args:
        out: the run's folder.

    Returns:
        The verdict.

    Raises:
        PlanInvalidError: there is no plan, or it is damaged.
    """
    folder = Folder(out)
    plan, kept = folder.plan(), folder.kept()
    there = folder.written()
    rows, errors, problems = 0, Counter[str](), []
    inputs, last, gone = 0, -1, 0
    for shard in folder.read_shards(plan):
        for unit in shard.units:
            if unit.input != last:
                inputs, last = inputs + 1, unit.input
                now = _now(unit, plan)
                gone += now == "gone"
                if now == "changed":
                    problems.append(f"input {unit.input}: changed since; `giqa batch resume`")
        if shard.name not in there:
            problems.append(f"shard {shard.number} is missing: `giqa batch resume` scores it")
            continue
        there.remove(shard.name)
        found, wrong = _check(folder, plan, shard, kept)
        problems += [f"{shard.name}: {what}" for what in wrong]
        rows += len(found)
        errors.update(row["error_code"] for row in found if row["status"] != "ok")
    problems += [f"{name}: belongs to no shard of this run" for name in sorted(there)]
    if (inputs, last + 1) != (plan.inputs, plan.inputs):
        problems.append(f"{inputs} inputs instead of {plan.inputs}")
    if not problems and not _same_videos(folder, plan, kept):
        problems.append(f"{VIDEOS}: is not what the shards pool to; `giqa batch resume`")
    counted = dict(sorted(errors.items()))
    return Verdict(plan.inputs, rows, counted, gone, plan.passed, tuple(problems))


def _now(unit: Unit, plan: Plan) -> str:
    """Whether an input on this machine is still what was scored: empty, `changed` or `gone`."""
    place, sources = unit.holder or unit.name, plan.sources
    if unit.stamp is None or local_path(place, sources.folder) is None:
        return "gone" if unit.gone else ""
    now = stamp(place, sources.folder, sources.check)
    if now is None or unit.gone:
        return "gone"
    return "changed" if now not in (UNKNOWN, unit.stamp) else ""


def _same_videos(folder: Folder, plan: Plan, kept: pa.DataType | None) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder.path / VIDEOS
    if not path.exists():
        return next(video_rows(folder, plan), None) is None
    schema = video_schema(kept)
    try:
        with pq.ParquetFile(path) as file:
            there = (row for batch in file.iter_batches(64) for row in batch.to_pylist())
            found = (flat([row], schema).to_pylist()[0] for row in video_rows(folder, plan))
            return all(a == b for a, b in zip_longest(found, there))
    except (pa.ArrowException, OSError):
        return False


def _check(
    folder: Folder, plan: Plan, shard: Shard, kept: pa.DataType | None
) -> tuple[list[Row], list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(folder.shards / shard.name, partitioning=None)
    except (pa.ArrowException, OSError) as e:
        return [], [f"cannot be read: {e}"]
    if not table.schema.equals(row_schema(kept)):
        return [], ["has another schema"]
    rows: list[Row] = table.to_pylist()
    return rows, [*_hashes(table, shard), *_rows(rows, shard, plan)]


def _hashes(table: pa.Table, shard: Shard) -> Iterator[str]:
    about = table.schema.metadata or {}
    if about.get(ADDRESS) != shard.address.encode():
        yield "was made for other inputs or with other options"
    if about.get(ROWS_SHA256) != rows_digest(table, about.get(STRETCHES, b"")).encode():
        yield "rows are not those that were written"


def _rows(rows: list[Row], shard: Shard, plan: Plan) -> Iterator[str]:
    """Compare rows with units: both are in order."""
    expected: dict[int, list[Unit]] = {}
    for unit in shard.units:
        expected.setdefault(unit.input, []).append(unit)
    order = [number for number, _ in groupby(row["input"] for row in rows)]
    if order != [number for number in expected if number in set(order)]:
        yield "rows are out of order"
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["input"], []).append(row)
    for number in sorted(found.keys() - expected.keys()):
        yield f"has rows of input {number}, which is not its own"
    for number, units in expected.items():
        own = found.get(number, [])
        yield from (f"input {number}: {what}" for what in _input(own, units, plan))


def _input(rows: list[Row], units: list[Unit], plan: Plan) -> Iterator[str]:
    unit = units[0]
    if unit.kind == "image":
        if len(rows) != 1:
            yield f"{len(rows)} rows instead of 1"
    else:
        if not rows and unit.start_s == plan.scoring.start_s:
            yield "no row"
        framed = [row for row in rows if row["frame"] is not None]
        frames = [row["frame"] for row in framed]
        if frames != sorted(set(frames)):
            yield "frames twice or out of order"
        # Stretches do not overlap, so this is what keeps a frame out of two shards.
        if any(all(not _covers(u, row["pts_s"]) for u in units) for row in framed):
            yield "a frame outside its stretch"
    for row in rows:
        if row["path"] != text(unit.name):
            yield f"its row names {row['path']}"
        if (row["bundle"], row["engine"]) != (plan.bundle, plan.scored_by):
            yield f"its row was scored by {row['bundle']} on {row['engine']}"
        if (row["score"] is None) == (row["error_code"] is None):
            yield "its row is neither a score nor an error"


def _covers(unit: Unit, pts_s: float) -> bool:
    return (unit.start_s or 0.0) <= pts_s < (math.inf if unit.end_s is None else unit.end_s)
