"""Charts as numbers: the templates draw them as inline SVG that stretches, with labels in HTML.

So a page reads the same at 390 and at 1280 pixels.

Places are shares of the plot in percent: 0 left and top, 100 right and bottom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from giqa.contract import BANDS, SCORE_MAX, SCORE_MIN, Band, band
from giqa.report._spread import Spread

BINS: Final = 50
"""Bars of a histogram, two points each."""
COLUMNS: Final = 320
"""Most points of a timeline: longer videos are drawn as the mean and range of each column."""
_TICKS = 5
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram; `x`, `width` and `height` are in percent."""

    x: float
    width: float
    height: float
    low: float
    high: float
    count: int
    band: Band


@dataclass(frozen=True)
class Strip:
    """A band's part of the score axis, in percent from its lower end."""

    name: Band
    start: float
    size: float
    low: float
    high: float


def strips() -> list[Strip]:
    """The bands along the score axis."""
    found, low = [], SCORE_MIN
    for high, name in BANDS:
        found.append(Strip(name, _percent(low), _percent(high) - _percent(low), low, high))
        low = high
    return found


def histogram(spread: Spread) -> list[Bar]:
    """The bars of a distribution; the top of the plot is the `ceiling` of the tallest."""
    counts = spread.histogram(BINS).tolist()
    top, step = ceiling(max(counts)), (SCORE_MAX - SCORE_MIN) / BINS
    bars = []
    for i, count in enumerate(counts):
        low = SCORE_MIN + i * step
        place = _percent(low), 100 / BINS, 100 * count / top
        bars.append(Bar(*place, low, low + step, count, band(low)))
    return bars


def ceiling(count: int) -> int:
    """The least 2, 4, 6, 8 or 10 times a power of ten that is not below a count."""
    power: int = 10 ** (len(str(max(count, 1))) - 1)
    return next(n * power for n in (2, 4, 6, 8, 10) if n * power >= count)


@dataclass(frozen=True)
class Point:
    """One point of a timeline.

    Attributes:
        x: place in time, in percent.
        y: place of the mean score, in percent from the top.
        y_low: place of the lowest score.
        y_high: place of the highest score.
        start_s: first time in seconds.
        end_s: last time in seconds.
        score: mean score.
        lowest: lowest score.
        frames: frames that it stands for.
    """

    x: float
    y: float
    y_low: float
    y_high: float
    start_s: float
    end_s: float
    score: float
    lowest: float
    frames: int


@dataclass(frozen=True)
class Timeline:
    """Scores over time.

    Attributes:
        start_s: time at the left edge, in seconds.
        end_s: time at the right edge.
        runs: points without a gap in between; a frame without a score makes a gap.
        ticks: times to label, in seconds.
        columns: points that there is room for, each as wide as the others.
        binned: points stand for several frames.
    """

    start_s: float
    end_s: float
    runs: list[list[Point]]
    ticks: list[float]
    columns: int
    binned: bool

    def x(self, time_s: float) -> float:
        """Place of a time, in percent."""
        share = (time_s - self.start_s) / (self.end_s - self.start_s)
        return round(100 * min(max(share, 0.0), 1.0), 3)

    def y(self, score: float) -> float:
        """Place of a score, in percent from the top."""
        return round(100 - _percent(score), 2)

    def line(self, run: Sequence[Point]) -> str:
        """SVG path of the mean scores."""
        return "M" + "L".join(f"{p.x} {p.y}" for p in run)

    def area(self, run: Sequence[Point]) -> str:
        """SVG path around the range from the lowest to the highest."""
        there = [f"{p.x} {p.y_high}" for p in run]
        back = [f"{p.x} {p.y_low}" for p in reversed(run)]
        return "M" + "L".join([*there, *back]) + "Z"


def timeline(
    scores: Sequence[tuple[float, float | None]], start_s: float = 0.0, end_s: float = 0.0
) -> Timeline:
    """Lay scores out over time.

    Args:
        scores: time in seconds and score of each frame, in any order; None: not scored.
        start_s: time that is shown at least.
        end_s: time that is shown at least.

    Returns:
        At most `COLUMNS` points.
    """
    ordered = sorted(scores, key=lambda pair: pair[0])
    if ordered:
        start_s, end_s = min(start_s, ordered[0][0]), max(end_s, ordered[-1][0])
    if not end_s > start_s:
        end_s = start_s + 1.0
    shape = Timeline(
        start_s,
        end_s,
        runs=[],
        ticks=ticks(start_s, end_s),
        columns=max(1, min(len(ordered), COLUMNS)),
        binned=len(ordered) > COLUMNS,
    )
    for group in _groups(ordered, start_s, end_s):
        known = [score for _, score in group if score is not None]
        if not known:
            shape.runs.append([])
            continue
        mean = math.fsum(known) / len(known)
        first, last = group[0][0], group[-1][0]
        if not shape.runs:
            shape.runs.append([])
        shape.runs[-1].append(
            Point(
                x=shape.x((first + last) / 2),
                y=shape.y(mean),
                y_low=shape.y(min(known)),
                y_high=shape.y(max(known)),
                start_s=first,
                end_s=last,
                score=mean,
                lowest=min(known),
                frames=len(known),
            )
        )
    shape.runs[:] = [run for run in shape.runs if run]
    return shape


def ticks(start_s: float, end_s: float) -> list[float]:
    """Round times to label, at most six."""
    step = next((s for s in _STEPS if (end_s - start_s) / s <= _TICKS), 0.0)
    if not step:
        step = 3600.0 * math.ceil((end_s - start_s) / _TICKS / 3600)
    first = math.ceil(start_s / step - 1e-9)
    last = math.floor(end_s / step + 1e-9)
    return [round(i * step, 3) for i in range(first, last + 1)]


def levels(places: Sequence[float], room: float) -> list[int]:
    """Lines on which labels at these places do not overlap.

    Args:
        places: middles of the labels, in any order and unit.
        room: width of a label in the same unit.

    Returns:
        A line for each, from 0; as few lines as will do.
    """
    ends: list[float] = []
    found = [0] * len(places)
    for i in sorted(range(len(places)), key=lambda i: places[i]):
        line = next((n for n, end in enumerate(ends) if places[i] >= end), len(ends))
        ends[line:] = [places[i] + room, *ends[line + 1 :]]
        found[i] = line
    return found


def _groups(
    ordered: Sequence[tuple[float, float | None]], start_s: float, end_s: float
) -> list[list[tuple[float, float | None]]]:
    """Frames that share a point: each its own, or those of the same column of time."""
    if len(ordered) <= COLUMNS:
        return [[pair] for pair in ordered]
    columns: dict[int, list[tuple[float, float | None]]] = {}
    for pair in ordered:
        share = (pair[0] - start_s) / (end_s - start_s)
        columns.setdefault(min(int(share * COLUMNS), COLUMNS - 1), []).append(pair)
    return list(columns.values())


def _percent(score: float) -> float:
    return 100 * (score - SCORE_MIN) / (SCORE_MAX - SCORE_MIN)
