"""What an arm scored, and the figures of all arms: JSON `giqa.saqt/1`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from training.metrics import srocc
from training.transfer.study.config import Arm
from training.transfer.study.premise import Premise

FIGURES = "figures.json"

Levels = list[list[list[float]]]
Drawn = npt.NDArray[np.int64]
Figured = Callable[[Drawn], float]
"""Drawn units (m,) to a figure."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scores(_Strict):
    """Scores on 0..100 of one arm with one seed."""

    schema_: Literal["giqa.saqt/1"] = Field(default="giqa.saqt/1", alias="schema")
    arm: Arm
    seed: int
    settings: dict[str, str] = Field(description="what decides the outcome; other: trained anew")
    validation: list[float] = Field(description="of BIQ2021's validation images")
    own: list[float] = Field(description="of all references' own pictures")
    first: list[float] = Field(description="the same after stage 1")
    ranking: Levels = Field(description="photographs x types x (as it is, 1, 3, 5)")
    groups: Levels = Field(
        description="the same of the recipe's groups, one type each; may be empty"
    )


class Truth(BaseModel):
    """What scores are compared with.

    Attributes:
        mos: of BIQ2021's validation images.
        subsets: of the same.
        own_mos: of the references' own pictures.
        own_references: their references.
        held_out: by seed, references whose scores the seed's arms did not see.
    """

    mos: list[float]
    subsets: list[str]
    own_mos: list[float]
    own_references: list[str]
    held_out: list[list[str]]


class Figure(_Strict):
    """A figure of an arm, or a difference of two."""

    mean: float = Field(description="over seeds")
    low: float = Field(description="95 % bootstrap")
    high: float
    seeds: list[float]


class Result(_Strict):
    """What a study found."""

    premise: Premise
    figures: dict[str, dict[str, Figure]] = Field(
        description="by metric, by arm or by difference as `saqt - none`"
    )


class Metric:
    """A figure as a function of the units that a bootstrap draws.

    Args:
        units: how many there are: images, references or photographs.
        of: scores of one arm and seed to the figure of drawn units.
    """

    def __init__(self, units: int, of: Callable[[Scores], Figured]) -> None:
        self.units, self.of = units, of


def metrics(truth: Truth, photographs: int, groups: int) -> dict[str, Metric]:
    """All figures by name.

    Args:
        truth: what scores are compared with.
        photographs: of the ranking test.
        groups: of the recipe, 0 or more.
    """
    found = {"validation": _of_images(truth, None)}
    for subset in sorted(set(truth.subsets)):
        found[f"validation {subset}"] = _of_images(truth, subset)
    held = _Held(truth)
    found["held out, stage 1"] = Metric(held.units, lambda s: held.of(s.first, s.seed))
    found["held out"] = Metric(held.units, lambda s: held.of(s.own, s.seed))
    found["1 > 3 > 5"] = Metric(photographs, lambda s: _triples(s.ranking))
    found["clean > 3"] = Metric(photographs, lambda s: _above(s.ranking))
    if groups:
        found["groups 1 > 3 > 5"] = Metric(groups, lambda s: _triples(s.groups))
        found["groups clean > 3"] = Metric(groups, lambda s: _above(s.groups))
    return found


def _of_images(truth: Truth, subset: str | None) -> Metric:
    rows = np.array([subset in (None, s) for s in truth.subsets]).nonzero()[0]
    mos = np.array(truth.mos)[rows]

    def of(scores: Scores) -> Figured:
        own = np.array(scores.validation)[rows]
        return lambda drawn: srocc(own[drawn], mos[drawn])

    return Metric(len(rows), of)


class _Held:
    """SROCC over the pictures of a seed's held-out references, drawn whole."""

    def __init__(self, truth: Truth) -> None:
        self.units = len(truth.held_out[0])
        references = np.array(truth.own_references)
        self._mos = np.array(truth.own_mos)
        self._rows = [
            [np.flatnonzero(references == name) for name in names] for names in truth.held_out
        ]

    def of(self, scores: list[float], seed: int) -> Figured:
        own, by_reference = np.array(scores), self._rows[seed]

        def value(drawn: Drawn) -> float:
            rows = np.concatenate([by_reference[i] for i in drawn])
            return srocc(own[rows], self._mos[rows])

        return value


def _triples(scores: Levels) -> Figured:
    _, one, three, five = np.moveaxis(np.array(scores), -1, 0)
    right = (one > three) & (three > five)
    return lambda drawn: float(right[drawn].mean())


def _above(scores: Levels) -> Figured:
    clean, _, three, _ = np.moveaxis(np.array(scores), -1, 0)
    right = clean > three
    return lambda drawn: float(right[drawn].mean())


def figure(
    metric: Metric,
    arm: Sequence[Scores],
    other: Sequence[Scores] | None = None,
    *,
    resamples: int,
    seed: int = 0,
) -> Figure:
    """Compute a figure, averaged over seeds.

    The bootstrap draws images (or references, or photographs) and the seeds again, so that an
    interval holds the spread of both. A difference draws the same for both arms.

    Args:
        metric: which.
        arm: one a seed.
        other: an arm to be subtracted, the same seeds in the same order.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    own = [metric.of(scores) for scores in arm]
    theirs = None if other is None else [metric.of(scores) for scores in other]

    def value(index: int, drawn: Drawn) -> float:
        found = own[index](drawn)
        return found if theirs is None else found - theirs[index](drawn)

    everything = np.arange(metric.units)
    seeds = [value(i, everything) for i in range(len(arm))]
    rng = np.random.default_rng(seed)
    means = [
        np.mean(
            [
                value(int(i), rng.integers(metric.units, size=metric.units))
                for i in rng.integers(len(arm), size=len(arm))
            ]
        )
        for _ in range(resamples)
    ]
    low, high = np.nanquantile(means, (0.025, 0.975))
    return Figure(mean=float(np.mean(seeds)), low=float(low), high=float(high), seeds=seeds)


def table(
    found: Mapping[str, Sequence[Scores]], truth: Truth, *, resamples: int
) -> dict[str, dict[str, Figure]]:
    """All figures: by metric, by arm, and by difference as `saqt - none`.

    Args:
        found: by arm, one a seed.
        truth: what scores are compared with.
        resamples: behind each interval.
    """
    any_one = next(iter(found.values()))[0]
    known = metrics(truth, len(any_one.ranking), len(any_one.groups))
    pairs = [(a, b) for a, b in _PAIRS if a in found and b in found]
    return {
        name: {
            **{arm: figure(metric, rows, resamples=resamples) for arm, rows in found.items()},
            **{
                f"{a} - {b}": figure(metric, found[a], found[b], resamples=resamples)
                for a, b in pairs
            },
        }
        for name, metric in known.items()
    }


_PAIRS = (
    ("saqt", "none"),
    ("saqt", "placebo"),
    ("saqt", "mean"),
    ("saqt-joint", "none"),
    ("saqt-joint", "placebo-joint"),
)


def markdown(result: Result) -> str:
    """The premise in words, and the figures as a Markdown table, a column a metric."""
    found, on = result.figures, result.premise
    names = [*found]
    text = (
        f"Labels of {on.references} references, {on.types} types, against their own, RMSE in "
        f"points: nearest other {on.nearest:.2f}, any other {on.random:.2f}, mean of all others "
        f"{on.mean:.2f}; gain by resemblance {on.gain:.2f} ({on.low:.2f} .. {on.high:.2f}). Type "
        f"and level explain {on.shared:.0%} of the variance of MOS.\n\n"
    )
    lines = [f"| | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for row in found[names[0]]:
        cells = [_cell(found[name][row], sign="-" in row and " " in row) for name in names]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return text + "\n".join(lines) + "\n"


def _cell(figure: Figure, *, sign: bool) -> str:
    form = "{:+.3f}" if sign else "{:.3f}"
    mean, low, high = (form.format(x) for x in (figure.mean, figure.low, figure.high))
    return f"{mean} ({low} .. {high})"
