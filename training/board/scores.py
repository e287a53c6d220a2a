"""Scores of sets, kept on disk: by the model's digest, the engine and the set's digest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giqa import __version__, files
from training.board.pictures import PictureSet
from training.board.scorers import Model
from training.progress import Progress

SAVE_EVERY = 200  # pictures

Scores = dict[str, npt.NDArray[np.float64]]
"""By row of the board, in the order of the set's pictures; NaN nowhere."""


def score(folder: Path, model: Model, one: PictureSet) -> Scores:
    """Score a set, or read what was scored before.

    Args:
        folder: the cache.
        model: what scores.
        one: the set.

    Returns:
        Scores (n,) by row.

    Raises:
        GiqaError: a picture cannot be scored (it is named), or the disk is full. What was scored
            before is kept.
    """
    path = _file(folder, model, one)
    rows = _read(path, model.rows, len(one.pictures))
    left = one.pictures[len(rows) :]
    try:
        with Progress(one.name, len(one.pictures), len(rows), unit="pictures") as bar:
            for values in model.score(p.path for p in left):
                rows.append(values)
                bar.update()
                if len(rows) % SAVE_EVERY == 0:
                    _write(path, model.rows, rows)
    finally:
        if left:
            _write(path, model.rows, rows)
    table = np.array(rows, np.float64)
    return {name: table[:, i] for i, name in enumerate(model.rows)}


def _file(folder: Path, model: Model, one: PictureSet) -> Path:
    parts = "parts" if len(model.rows) > 1 else "whole"
    key = f"{model.digest[:16]}-{model.scorer.engine}-{__version__}-{parts}"
    return folder / "scores" / key / f"{one.name}-{one.digest[:16]}.json"


def _read(path: Path, names: Sequence[str], most: int) -> list[list[float]]:
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return []
    good = found.get("rows") == list(names) and len(found["scores"]) <= most
    return list(found["scores"]) if good else []


def _write(path: Path, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    with files.storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"rows": list(names), "scores": rows})
    files.write(path, text.encode())
