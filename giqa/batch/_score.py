"""Scoring shards: one stream of images through the scorer, cut into shards behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby

from giqa.batch._folder import Shard
from giqa.batch._plan import Plan
from giqa.batch._read import read_items
from giqa.batch._rows import Row, make_row, raise_if_gone
from giqa.batch._units import Unit
from giqa.batch._video import score_stretch
from giqa.scorer import Scorer


def score_shards(
    shards: Iterable[Shard], scorer: Scorer, plan: Plan
) -> Iterator[tuple[Shard, list[Row]]]:
    """Score shards; the scorer reads ahead across their borders.

    Args:
        shards: what to score; pulled as the work proceeds.
        scorer: the scorer.
        plan: the run's plan.

    Yields:
        Each shard with its rows, in order.

    Raises:
        ServerError: the server is not there, or refuses all.
    """
    waiting: deque[Shard] = deque()

    def units() -> Iterator[Unit]:
        for shard in shards:
            waiting.append(shard)
            yield from shard.units

    rows: list[Row] = []
    done = 0
    for found in _outcomes(units(), scorer, plan):
        rows += found
        done += 1
        if done == len(waiting[0].units):
            yield waiting.popleft(), rows
            rows, done = [], 0


def _outcomes(units: Iterator[Unit], scorer: Scorer, plan: Plan) -> Iterator[list[Row]]:
    """The rows of each unit, in order."""
    folder, scoring = plan.sources.folder, plan.scoring
    for kind, group in groupby(units, key=lambda unit: unit.kind):
        if kind == "video":
            for unit in group:
                rows = score_stretch(unit, folder, scorer, scoring)
                yield rows
            continue
        asked: deque[Unit] = deque()
        items = read_items(_noted(group, asked), folder, scoring.limits)
        try:
            for result in scorer.score(items, profile=scoring.profile):
                raise_if_gone(result.error)
                yield [make_row(asked.popleft(), result)]
        finally:
            items.close()  # type: ignore[attr-defined]


def _noted(units: Iterable[Unit], asked: deque[Unit]) -> Iterator[Unit]:
    for unit in units:
        asked.append(unit)
        yield unit
