"""The board's figures, from the scores of a set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training import metrics
from training.board.making import CLEAN, FLATS, TEXT
from training.board.pictures import Picture
from training.board.results import Unit, Value
from training.evaluation.invariance import moved
from training.evaluation.ranking import Share, judge, share

FloatArray = npt.NDArray[np.float64]

SAME = 2.0
"""Points that a JPEG in which nobody sees a difference may be off the lossless picture."""

_SAME_AT, _WORSE_AT = (79, 55), 27
_FEWEST = 3  # pictures of a reference whose order can be wrong by degrees
_FIRST = 1  # where a cube's levels begin


@dataclass(frozen=True)
class Figure:
    """One figure of a set.

    Attributes:
        name: what is measured.
        unit: `correlation`, `share` or `points`.
        value: the figure.
        detail: it stands in the JSON file alone.
    """

    name: str
    unit: Unit
    value: Value
    detail: bool = False


@dataclass(frozen=True)
class Draw:
    """The bootstrap behind intervals.

    Attributes:
        resamples: how many.
        seed: of the draw.
    """

    resamples: int = 1000
    seed: int = 0

    def value(self, metric: metrics.Metric, x: FloatArray, y: FloatArray) -> Value:
        """A correlation over pictures."""
        if len(x) < 2:
            return Value(value=None, n=len(x))
        ends = metrics.bootstrap_interval(metric, x, y, n=self.resamples, seed=self.seed)
        return Value(
            value=_defined(metric(x, y)),
            interval=None if math.isnan(ends[0]) else ends,
            n=len(x),
        )

    def share(self, right: npt.NDArray) -> Value:
        """A share of cases (photographs, cases)."""
        return _of_share(share(right.astype(np.float64), self.resamples, self.seed))


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _of_share(found: Share) -> Value:
    return Value(value=found.right, interval=found.interval, n=found.n)


def opinions(pictures: Sequence[Picture], scores: FloatArray, draw: Draw) -> Iterator[Figure]:
    """Agreement with opinion scores: of all, within references, within subsets."""
    mos = np.array([p.mos for p in pictures])
    yield Figure("SROCC", "correlation", draw.value(metrics.srocc, scores, mos))
    yield Figure("PLCC", "correlation", draw.value(metrics.plcc, scores, mos))
    if all(p.reference for p in pictures):
        groups = [p.reference for p in pictures]
        yield Figure("SROCC within references", "correlation", within(scores, mos, groups, draw))
    subsets = np.array([p.subset for p in pictures])
    for name in sorted(set(subsets.tolist()) - {""}):
        here = subsets == name
        value = draw.value(metrics.srocc, scores[here], mos[here])
        yield Figure(f"SROCC {name}", "correlation", value)


def within(scores: FloatArray, truth: FloatArray, groups: Sequence[str], draw: Draw) -> Value:
    """Mean over references of the SROCC of their pictures; intervals are over references.

    Scores that are all the same order nothing and count as 0; a reference whose truth is constant,
    or that has fewer than three pictures, says nothing and is left out.
    """
    member = np.array(groups)
    found = []
    for name in dict.fromkeys(groups):
        x, y = scores[member == name], truth[member == name]
        if len(y) >= _FEWEST and y.min() < y.max():
            found.append(metrics.srocc(x, y) if x.min() < x.max() else 0.0)
    if len(found) < 2:
        return Value(value=found[0] if found else None, n=len(found))
    each = np.array(found)
    ends = metrics.bootstrap_interval(
        lambda x, _: float(x.mean()), each, each, n=draw.resamples, seed=draw.seed
    )
    return Value(value=float(each.mean()), interval=ends, n=len(found))


def steps(pictures: Sequence[Picture], scores: FloatArray, draw: Draw) -> Iterator[Figure]:
    """Order of an encoder's steps, references themselves left out; the last step is the best."""
    kinds = sorted({p.kind for p in pictures} - {CLEAN})
    for kind in ("", *kinds):
        wanted = [kind] if kind else kinds
        here = [i for i, p in enumerate(pictures) if p.kind in wanted]
        value = within(
            scores[here],
            np.array([pictures[i].level for i in here], np.float64),
            [pictures[i].reference for i in here],
            draw,
        )
        title = f"SROCC within references{', ' if kind else ''}{kind}"
        yield Figure(title, "correlation", value)


def cube(pictures: Sequence[Picture], scores: FloatArray) -> tuple[list[str], FloatArray]:
    """Scores of damaged photographs in order.

    Args:
        pictures: clean ones and, of each type, the same levels of every photograph.
        scores: of them.

    Returns:
        Names of the types, and scores (photographs, types, clean and rising levels).
    """
    at = {(p.reference, p.kind, p.level): s for p, s in zip(pictures, scores, strict=True)}
    kinds = list(dict.fromkeys(p.kind for p in pictures if p.kind != CLEAN))
    levels = sorted({p.level for p in pictures if p.kind != CLEAN})
    references = list(dict.fromkeys(p.reference for p in pictures))
    return kinds, np.array(
        [
            [[at[r, CLEAN, 0], *(at[r, kind, level] for level in levels)] for kind in kinds]
            for r in references
        ]
    )


def damage(
    pictures: Sequence[Picture], scores: FloatArray, draw: Draw, *, native: bool
) -> Iterator[Figure]:
    """Order of three rising levels, and the clean picture above them.

    Args:
        pictures: as `cube` takes them.
        scores: of them.
        draw: the bootstrap.
        native: the clean picture is compared with all levels, not with the middle one alone; the
            types are figures of the table.
    """
    kinds, levels = cube(pictures, scores)
    all_of_it = judge(levels, draw.resamples, draw.seed)
    yield Figure("triples in order", "share", _of_share(all_of_it.triples))
    if native:
        above = levels[..., 0] > levels[..., _FIRST:].max(-1)
        yield Figure("clean above all", "share", draw.share(above))
    else:
        yield Figure("clean above level 3", "share", _of_share(all_of_it.clean))
    for i, kind in enumerate(kinds):
        found = judge(levels[:, [i]], draw.resamples, draw.seed)
        yield Figure(f"triples, {kind}", "share", _of_share(found.triples), detail=not native)
        if native:
            yield Figure(f"clean above all, {kind}", "share", draw.share(above[:, [i]]), True)
        else:
            value = _of_share(found.clean)
            yield Figure(f"clean above level 3, {kind}", "share", value, True)


def jpeg(pictures: Sequence[Picture], scores: FloatArray, draw: Draw) -> Iterator[Figure]:
    """Qualities that look like the lossless picture, and one that does not."""
    at = {(p.reference, p.level): s for p, s in zip(pictures, scores, strict=True)}
    references = list(dict.fromkeys(p.reference for p in pictures))
    less = {
        q: np.array([[at[r, q] - at[r, 0]] for r in references])
        for q in sorted({p.level for p in pictures} - {0})
    }
    both = np.concatenate([less[q] for q in _SAME_AT], 1)
    title = " and ".join(map(str, _SAME_AT))
    yield Figure(f"{title} within {SAME:g} points", "share", draw.share(abs(both) <= SAME))
    yield Figure(f"{_WORSE_AT} below clean", "share", draw.share(less[_WORSE_AT] < 0))
    for quality, moves in less.items():
        mean = Value(value=float(moves.mean()), n=len(moves))
        yield Figure(f"{quality}, mean move", "points", mean, True)


def flats(pictures: Sequence[Picture], scores: FloatArray, draw: Draw) -> Iterator[Figure]:
    """The largest score of a picture that shows nothing; pages of text apart."""
    kind = np.array([p.kind for p in pictures])
    nothing = kind != TEXT
    largest = Value(value=float(scores[nothing].max()), n=int(nothing.sum()))
    yield Figure("largest score", "points", largest)
    for name in (*FLATS, *sorted(set(kind.tolist()) - {*FLATS, TEXT})):
        value = Value(value=float(scores[kind == name].max()), n=int((kind == name).sum()))
        yield Figure(f"largest score, {name}", "points", value, True)
    pages = Value(value=float(scores[~nothing].mean()), n=int((~nothing).sum()))
    yield Figure("text, mean score", "points", pages)


def forms(pictures: Sequence[Picture], scores: FloatArray, draw: Draw) -> Iterator[Figure]:
    """How far scores move when the same picture is stored otherwise."""
    at = {(p.reference, p.kind): s for p, s in zip(pictures, scores, strict=True)}
    references = list(dict.fromkeys(p.reference for p in pictures))
    before = np.array([at[r, CLEAN] for r in references])
    for form in dict.fromkeys(p.kind for p in pictures if p.kind != CLEAN):
        move = moved(form, np.array([at[r, form] for r in references]) - before)
        value = Value(value=move.median, n=move.n)
        yield Figure(f"median move, {form}", "points", value, form == "png")
        yield Figure(f"mean move, {form}", "points", Value(value=move.bias, n=move.n), True)
