"""Proving that a run is whole: every input has its rows, once, and nobody altered them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from giqa.batch._folder import Folder, Shard
from giqa.batch._plan import Plan
from giqa.batch._rows import ADDRESS, ROWS_SHA256, Row, row_schema, rows_digest, text
from giqa.batch._units import Unit

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Verdict:
    """What `verify` found.

    Attributes:
        inputs: inputs of the run.
        rows: rows in whole shards.
        errors: how many rows have which error code.
        problems: what is wrong, one sentence each; empty: all is proven.
    """

    inputs: int
    rows: int
    errors: dict[str, int]
    problems: tuple[str, ...]


def verify(out: str | Path) -> Verdict:
    """Prove a run: a row an input, no duplicates, hashes right.

    A video has a row a frame. Images are not scored again.

    Args:
        out: the run's folder.

    Returns:
        The verdict.

    Raises:
        PlanInvalidError: there is no plan, or it is damaged.
    """
    folder = Folder(out)
    plan = folder.plan()
    there = folder.written()
    rows, errors, problems = 0, Counter[str](), []
    inputs, last = 0, -1
    for shard in folder.read_shards(plan):
        for unit in shard.units:
            inputs += unit.input != last
            last = unit.input
        if shard.name not in there:
            problems.append(f"shard {shard.number} is missing: `giqa batch resume` scores it")
            continue
        there.remove(shard.name)
        found, wrong = _check(folder, plan, shard)
        problems += [f"{shard.name}: {what}" for what in wrong]
        rows += len(found)
        errors.update(row["error_code"] for row in found if row["status"] != "ok")
    problems += [f"{name}: belongs to no shard of this run" for name in sorted(there)]
    if (inputs, last + 1) != (plan.inputs, plan.inputs):
        problems.append(f"{inputs} inputs instead of {plan.inputs}")
    return Verdict(plan.inputs, rows, dict(sorted(errors.items())), tuple(problems))


def _check(folder: Folder, plan: Plan, shard: Shard) -> tuple[list[Row], list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(folder.shards / shard.name, partitioning=None)
    except (pa.ArrowException, OSError) as e:
        return [], [f"cannot be read: {e}"]
    if not table.schema.equals(row_schema()):
        return [], ["has another schema"]
    rows: list[Row] = table.to_pylist()
    return rows, [*_hashes(table, shard), *_rows(rows, shard, plan)]


def _hashes(table: pa.Table, shard: Shard) -> Iterator[str]:
    about = table.schema.metadata or {}
    if about.get(ADDRESS) != shard.address.encode():
        yield "was made for other inputs or with other options"
    if about.get(ROWS_SHA256) != rows_digest(table).encode():
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
        if not rows and unit.start_s is None:
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
