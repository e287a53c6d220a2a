"""Scoring shards: one stream of images through the scorer, cut into shards behind it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from giqa.batch._folder import Folder, Shard
from giqa.batch._plan import Plan
from giqa.batch._read import Spool, read_items
from giqa.batch._rows import (
    ROWS_SHA256,
    STRETCHES,
    UNITS,
    Row,
    encode,
    make_row,
    raise_if_gone,
    row_schema,
    rows_digest,
)
from giqa.batch._units import Unit
from giqa.batch._video import Stretch, score_stretch
from giqa.scorer import Scorer

if TYPE_CHECKING:
    import pyarrow as pa

Outcome = tuple[list[Row], Stretch | None]
OnUnit = Callable[[Unit, int, int], object]


@dataclass
class Scored:
    """A shard with its rows, and what is to be known of its stretches of videos."""

    shard: Shard
    rows: list[Row] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def add(self, rows: list[Row], stretch: Stretch | None) -> None:
        """Take in the outcome of the next unit."""
        self.rows += rows
        self.counts.append(len(rows))
        if stretch is not None:
            self.stretches.append(stretch)

    def encode(self, kept: pa.DataType | None) -> bytes:
        """The shard's file."""
        units = list(zip(self.shard.digests, self.counts, strict=True))
        return encode(self.rows, self.shard.address, kept, self.stretches, units)


def score_shards(
    shards: Iterable[Shard],
    scorer: Scorer,
    plan: Plan,
    folder: Folder,
    on_unit: OnUnit = lambda unit, rows, failed: None,
) -> Iterator[Scored]:
    """Score shards; the scorer reads ahead across their borders.

    Args:
        shards: what to score; pulled as the work proceeds.
        scorer: the scorer.
        plan: the run's plan.
        folder: the run's folder: what a shard had before some of its inputs changed is taken over.
        on_unit: is called with each unit, its number of rows and how many of them are errors.

    Yields:
        Each shard with its rows, in order.

    Raises:
        ServerError: the server is not there, or refuses all.
    """
    waiting: deque[tuple[Scored, dict[str, Outcome]]] = deque()

    def units() -> Iterator[Unit]:
        for shard in shards:
            old = _old(folder, shard)
            waiting.append((Scored(shard), old))
            for unit, digest in zip(shard.units, shard.digests, strict=True):
                if digest not in old:
                    yield unit

    def take(rows: list[Row], stretch: Stretch | None) -> None:
        scored = waiting[0][0]
        unit = scored.shard.units[len(scored.counts)]
        scored.add(rows, stretch)
        on_unit(unit, len(rows), sum(row["status"] != "ok" for row in rows))

    def whole() -> Iterator[Scored]:
        """What needs no more scoring."""
        while waiting:
            scored, old = waiting[0]
            for digest in scored.shard.digests[len(scored.counts) :]:
                if digest not in old:
                    return
                take(*old[digest])
            yield waiting.popleft()[0]

    for outcome in _outcomes(units(), scorer, plan):
        yield from whole()
        take(*outcome)
        yield from whole()
    yield from whole()


def _old(folder: Folder, shard: Shard) -> dict[str, Outcome]:
    """What is known of a shard's units from before some of its inputs changed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, Outcome] = {}
    own = set(shard.digests)
    for path in folder.replaced(shard):
        try:
            table = pq.read_table(path, partitioning=None)
        except (pa.ArrowException, OSError):
            continue
        about = table.schema.metadata or {}
        stretches = json.loads(about.get(STRETCHES, b"[]"))
        by_place = {(one["input"], one["start_s"]): one for one in stretches}
        # Rows were hashed when they were written: what was altered since is scored again.
        if about.get(ROWS_SHA256) != rows_digest(table, about.get(STRETCHES, b"")).encode():
            continue
        units = dict(zip(shard.digests, shard.units, strict=True))
        first, base = 0, row_schema().names
        for digest, count in json.loads(about.get(UNITS, b"[]")):
            if digest in own:
                unit = units[digest]
                rows = [
                    {name: row[name] for name in base} | {"kept": unit.kept}
                    for row in table.slice(first, count).to_pylist()
                ]
                found[digest] = rows, by_place.get((unit.input, unit.start_s))
            first += count
    return found


def _outcomes(units: Iterator[Unit], scorer: Scorer, plan: Plan) -> Iterator[Outcome]:
    """The rows of each unit, in order."""
    folder, scoring = plan.sources.folder, plan.scoring
    with closing(Spool(folder, scoring.max_bytes)) as spool:
        for kind, group in groupby(units, key=lambda unit: unit.kind):
            if kind == "video":
                for unit in group:
                    yield score_stretch(unit, spool, scorer, scoring)
                continue
            asked: deque[Unit] = deque()
            with closing(read_items(_noted(group, asked), folder, scoring.limits)) as items:  # type: ignore[type-var]
                for result in scorer.score(items, profile=scoring.profile):
                    raise_if_gone(result.error)
                    yield [make_row(asked.popleft(), result)], None


def _noted(units: Iterable[Unit], asked: deque[Unit]) -> Iterator[Unit]:
    for unit in units:
        asked.append(unit)
        yield unit
