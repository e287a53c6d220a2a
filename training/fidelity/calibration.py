"""Weights of the measure, from opinions; judged on photographs that it was not fitted on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import pearsonr, spearmanr

from giqa import files
from training.distortions import TYPES
from training.fidelity.features import NAMES
from training.fidelity.measure import SCHEMA, Measure, expanded
from training.fidelity.opinions import Row

Vector = npt.NDArray[np.float64]

FOLDS = 5
RIDGE = 1e-3
"""Of squared weights of features scaled to mean square 1, beside the mean squared error."""

_EACH = {"kadid10k": 1.0, "jpeg": 5.0, "tid2013": 1.0}
"""How much a row of each set counts. Three qualities of JPEG stand beside 125 kinds of damage."""

_TID = "tid2013"


@dataclass(frozen=True)
class Agreement:
    """How well losses agree with opinions of pictures that were not fitted on.

    Attributes:
        n: pictures.
        srocc: Spearman's correlation, -1..1, higher is better.
        plcc: Pearson's, of what both are: shares of the scale.
    """

    n: int
    srocc: float
    plcc: float


@dataclass(frozen=True)
class Calibrated:
    """A measure, and what it is worth.

    Attributes:
        measure: fitted on everything.
        held_out: by name, on photographs of other folds; `tid2013 untouched` by a measure that saw
            none of that set.
        unseen: mean loss of JPEG at qualities that nobody sees, held out; 0 if there is none.
        photographs: how many, by set.
    """

    measure: Measure
    held_out: dict[str, Agreement]
    unseen: float
    photographs: dict[str, int]


def calibrate(rows: Sequence[Row]) -> Calibrated:
    """Fit the measure.

    Scores of TID2013 are on a scale of their own. They are brought to shares that are lost by a
    line: it gives them the mean and deviation of what a measure finds that was fitted without them.

    Args:
        rows: see `opinions`; of several photographs.

    Returns:
        The measure, and its agreement with opinions of held-out photographs.
    """
    vectors = expanded(np.stack([row.features for row in rows]))
    opinions = np.array([row.opinion for row in rows])
    each = np.array([_EACH[row.set] for row in rows])
    sets = np.array([row.set for row in rows])
    names = list(dict.fromkeys(row.reference for row in rows))
    fold = np.array([names.index(row.reference) for row in rows]) % FOLDS

    foreign = sets == _TID
    held_out = {}
    if foreign.any():
        alone = _fit(vectors[~foreign], opinions[~foreign], each[~foreign])
        found = _losses(vectors[foreign], alone)
        held_out["tid2013 untouched"] = _agreement(found, -opinions[foreign])
        scores = opinions[foreign]
        shares = found.mean() - (scores - scores.mean()) * (found.std() / scores.std())
        opinions = opinions.copy()
        opinions[foreign] = shares.clip(0, 1)

    predicted = np.zeros(len(rows))
    for number in range(FOLDS):
        test = fold == number
        if test.any():
            fitted = _fit(vectors[~test], opinions[~test], each[~test])
            predicted[test] = _losses(vectors[test], fitted)
    for name in ("kadid10k", _TID):
        if (of := sets == name).any():
            held_out[name] = _agreement(predicted[of], opinions[of])
    weights, unseen = _fit(vectors, opinions, each)
    final = _losses(vectors, (weights, unseen))
    expected = {
        kind.name: tuple(
            float(
                np.mean([v for v, row in zip(final, rows, strict=True) if _is(row, kind.name, n)])
            )
            for n in range(1, len(kind.levels) + 1)
        )
        for kind in TYPES
    }
    correction = _correction(rows, predicted, opinions) if foreign.any() else 0.0
    return Calibrated(
        Measure(weights, unseen, expected, correction),
        held_out,
        float(predicted[sets == "jpeg"].mean()) if "jpeg" in sets else 0.0,
        {name: len({row.reference for row in rows if row.set == name}) for name in set(sets)},
    )


def write(path: Path, found: Calibrated, provenance: Mapping[str, object]) -> None:
    """Write weights as JSON; `measure.read` reads them.

    Raises:
        StorageFullError: no space is left.
    """
    measure = found.measure
    by_name = measure.weights.reshape(3, len(NAMES)).T.tolist()
    about = {
        "schema": SCHEMA,
        "provenance": dict(provenance),
        "photographs": dict(sorted(found.photographs.items())),
        "held_out": {
            name: {"n": a.n, "srocc": round(a.srocc, 4), "plcc": round(a.plcc, 4)}
            for name, a in found.held_out.items()
        },
        "features": NAMES,
        "weights": {
            name: [float(f"{w:.6g}") for w in row]
            for name, row in zip(NAMES, by_name, strict=True)
            if any(row)
        },
        "unseen": float(f"{measure.unseen:.6g}"),
        "correction": round(measure.correction, 4),
        "expected": {k: [round(v, 4) for v in row] for k, row in measure.expected.items()},
    }
    files.write(path, f"{json.dumps(about, indent=1)}\n".encode())


def _is(row: Row, kind: str, level: int) -> bool:
    return row.set == "kadid10k" and row.kind == kind and row.level == level


def _losses(vectors: Vector, fitted: tuple[Vector, float]) -> Vector:
    weights, unseen = fitted
    return np.asarray(1 - np.exp(-(vectors @ weights - unseen).clip(0)))


def _fit(vectors: Vector, losses: Vector, each: Vector) -> tuple[Vector, float]:
    """Least squares of 1 - exp(-max(0, weights . vectors - unseen)); nothing is below 0."""
    scale = np.sqrt(np.square(vectors).mean(0)) + 1e-9
    scaled = np.hstack([vectors / scale, np.full((len(vectors), 1), -1.0)])
    share = each / each.sum()

    def error(values: Vector) -> tuple[float, Vector]:
        sums = scaled @ values
        left = np.exp(-sums.clip(0))
        miss = 1 - left - losses
        gradient = scaled.T @ (2 * share * miss * left * (sums > 0))
        gradient[:-1] += 2 * RIDGE * values[:-1]
        return float(share @ np.square(miss) + RIDGE * np.square(values[:-1]).sum()), gradient

    start = np.full(scaled.shape[1], 1 / scaled.shape[1])
    found = minimize(
        error, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start),
        options={"maxiter": 5000, "maxfun": 10_000},
    )  # fmt: skip
    return found.x[:-1] / scale, float(found.x[-1])


def _agreement(found: Vector, opinions: Vector) -> Agreement:
    return Agreement(
        len(found), float(spearmanr(found, opinions)[0]), float(pearsonr(found, opinions)[0])
    )


def _correction(rows: Sequence[Row], found: Vector, opinions: Vector) -> float:
    """The slope of opinions on losses among TID2013's pictures of one type and value, 0..1.

    Its values differ by picture. What a parabola of the value's logarithm says of both is taken off
    first, by type; what is left tells pictures apart that were damaged alike.
    """
    kinds: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if row.set == _TID:
            kinds.setdefault(row.kind, []).append(number)
    left = []
    for numbers in kinds.values():
        values = np.log([rows[number].value for number in numbers])
        parabola = np.stack([np.ones_like(values), values, values**2], 1)
        both = np.stack([found[numbers], opinions[numbers]], 1)
        left.append(both - parabola @ np.linalg.lstsq(parabola, both, rcond=None)[0])
    x, y = np.concatenate(left).T
    return float(np.clip((x @ y) / (x @ x), 0, 1))
