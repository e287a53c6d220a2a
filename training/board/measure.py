"""A board: every row on every set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.board import measures, probes
from training.board.measures import Draw, Figure
from training.board.parts import CELLS, TERM, WHOLE
from training.board.pictures import Picture, PictureSet, collect, labelled
from training.board.probes import Features, Probes
from training.board.recipe import BoardRecipe
from training.board.results import Board, Measure, Row, SetInfo
from training.board.scorers import Model
from training.board.scores import score

FloatArray = npt.NDArray[np.float64]

ROWS = (WHOLE, TERM, CELLS, *probes.NAMES)
LEFT_OUT = "left-out"

OpenRun = Callable[[Path], AbstractContextManager[Model]]


@dataclass(frozen=True)
class Wanted:
    """What a board is to hold.

    Attributes:
        sets: names of sets.
        probes: measure ridge and MLP, too.
        left_out: runs that a subset was left out of, by subset.
        draw: the bootstrap.
    """

    sets: Sequence[str]
    probes: bool = True
    left_out: Mapping[str, Path] = field(default_factory=dict)
    draw: Draw = field(default_factory=Draw)


@dataclass
class _Line:
    """A row while it is measured."""

    how: str = ""
    scores: dict[str, FloatArray] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def measure(recipe: BoardRecipe, model: Model, wanted: Wanted, open_run: OpenRun) -> Board:
    """Score and measure; what was computed before is read.

    Args:
        recipe: the sets.
        model: what is measured.
        wanted: which sets and rows.
        open_run: opens a run that a subset was left out of.

    Returns:
        The board.

    Raises:
        GiqaError: a set is not there as it must be, a picture cannot be scored, or the disk is
            full. What was computed is kept.
    """
    sets = collect(recipe, wanted.sets)
    train, subsets = None, {}
    if recipe.data is not None and (wanted.probes or {"validation", LEFT_OUT} & {*wanted.sets}):
        train, validation = labelled(recipe)
        if "validation" in wanted.sets:
            sets = {"validation": validation, **sets}
        if LEFT_OUT in wanted.sets:
            subsets = _subsets(train, validation)
    if unknown := set(wanted.left_out) - set(subsets):
        raise ValueError(f"--left-out: no subset {', '.join(sorted(unknown))} is measured")
    lines = {name: _Line() for name in ROWS}
    _score_model(recipe, model, lines, sets)
    _score_left_out(recipe, lines, subsets, wanted.left_out, open_run, model.absent)
    _score_probes(recipe, model, lines, wanted.probes, train, sets, subsets)
    everything = {**_in_order(recipe, sets), **{_left(s): one for s, one in subsets.items()}}
    return _board(recipe, model, wanted, lines, everything)


def _subsets(*parts: PictureSet) -> dict[str, PictureSet]:
    """All labelled images of each subset."""
    pictures = [p for part in parts for p in part.pictures]
    names = sorted({p.subset for p in pictures} - {""})
    # A subset is no longer a part of what it is compared within.
    return {
        name: PictureSet(_left(name), [replace(p, subset="") for p in pictures if p.subset == name])
        for name in names
        if len(names) > 1
    }


def _left(subset: str) -> str:
    return f"{subset} left out"


def _score_model(
    recipe: BoardRecipe, model: Model, lines: Mapping[str, _Line], sets: Mapping[str, PictureSet]
) -> None:
    lines[WHOLE].how = f"{model.scorer.engine}, profile fast"
    for part in (TERM, CELLS):
        lines[part].how = model.absent.get(part, model.how)
    for name, one in sets.items():
        for row, values in score(recipe.cache, model, one).items():
            lines[row].scores[name] = values
        for row, why in model.absent.items():
            lines[row].absent[name] = why


def _score_left_out(
    recipe: BoardRecipe,
    lines: Mapping[str, _Line],
    subsets: Mapping[str, PictureSet],
    runs: Mapping[str, Path],
    open_run: OpenRun,
    absent: Mapping[str, str],
) -> None:
    for subset, one in subsets.items():
        if subset not in runs:
            why = f"no run without it was given (--left-out {subset}=RUN)"
            for row in (WHOLE, TERM, CELLS):
                lines[row].absent[one.name] = absent.get(row, why)
            continue
        with open_run(runs[subset]) as run:
            lines_of = score(recipe.cache, run, one)
            for row in (WHOLE, TERM, CELLS):
                if row in lines_of:
                    lines[row].scores[one.name] = lines_of[row]
                else:
                    lines[row].absent[one.name] = run.absent[row]


def _score_probes(
    recipe: BoardRecipe,
    model: Model,
    lines: Mapping[str, _Line],
    asked: bool,
    train: PictureSet | None,
    sets: Mapping[str, PictureSet],
    subsets: Mapping[str, PictureSet],
) -> None:
    why = "" if asked else "not asked for (--no-probes)"
    why = why or ("" if train is not None else "the recipe has no training images ([data])")
    why = why or probes.why_not(model.preset)
    names = [*sets, *(one.name for one in subsets.values())]
    if why or train is None:
        for row in probes.NAMES:
            lines[row].how = why
            lines[row].absent |= dict.fromkeys(names, why)
        return
    features = Features(recipe, probes.preset_from(model.preset), model.scorer.manifest)
    made = Probes(recipe, features, train)
    for row in probes.NAMES:
        fitted = made.fit(row, list(sets.values()))
        lines[row].scores |= fitted.scores
        told = [fitted.how] if fitted.how else []
        for subset, one in subsets.items():
            fitted = made.fit(row, [one], without=subset)
            lines[row].scores |= fitted.scores
            told.append(f"without {subset}: {fitted.how}")
        lines[row].how = "; ".join(told)


def _in_order(recipe: BoardRecipe, sets: Mapping[str, PictureSet]) -> dict[str, PictureSet]:
    return {name: sets[name] for name in recipe.names if name in sets}


def _figures(
    recipe: BoardRecipe, name: str
) -> Callable[[Sequence[Picture], FloatArray, Draw], Iterator[Figure]]:
    if name == "native":
        return partial(measures.damage, native=True)
    if name in recipe.types:
        return partial(measures.damage, native=False)
    special = {
        "steps": measures.steps,
        "jpeg": measures.jpeg,
        "flats": measures.flats,
        "forms": measures.forms,
    }
    # A set with opinions may have any other name.
    return measures.opinions if name in recipe.opinions else special.get(name, measures.opinions)


def _board(
    recipe: BoardRecipe,
    model: Model,
    wanted: Wanted,
    lines: Mapping[str, _Line],
    sets: Mapping[str, PictureSet],
) -> Board:
    told: dict[str, Measure] = {}
    rows = []
    for row, line in lines.items():
        values = {}
        for name, one in sets.items():
            if name not in line.scores:
                continue
            of = _figures(recipe, name)
            for figure in of(one.pictures, line.scores[name], wanted.draw):
                about = Measure(set=name, name=figure.name, unit=figure.unit, detail=figure.detail)
                told.setdefault(about.key, about)
                values[about.key] = figure.value
        rows.append(Row(name=row, how=line.how, values=values, absent=line.absent))
    order = list(sets)
    return Board(
        model=model.id,
        fingerprint=model.digest,
        engine=model.scorer.engine,
        resamples=wanted.draw.resamples,
        seed=wanted.draw.seed,
        sets={n: SetInfo(pictures=len(s.pictures), digest=s.digest) for n, s in sets.items()},
        unmeasured={
            name: "not asked for (--sets)" for name in recipe.names if name not in wanted.sets
        },
        measures=sorted(told.values(), key=lambda m: order.index(m.set)),
        rows=rows,
    )
