"""Agreement between predicted scores and opinion scores, with bootstrap intervals.

Conventions, the same for every function here:

- Inputs are `predicted`, scores of the model (n,), and `actual`, opinion scores (n,) in the same
  order: equally many finite numbers, at least two; anything else raises `ValueError`, because it is
  a bug of the caller.
- A correlation with a constant input is undefined and is NaN. It is no error: a collapsed model
  predicts a constant, and an evaluation has to be able to say so. NaN cannot slip into a bundle,
  whose manifest refuses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.stats import kendalltau, rankdata

FloatArray = npt.NDArray[np.float64]
Metric = Callable[[FloatArray, FloatArray], float]


def _pair(predicted: npt.ArrayLike, actual: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Check two inputs and give them as float64 arrays of shape (n,).

    Raises:
        ValueError: not one-dimensional, unequal lengths, fewer than 2 points, NaN or infinity.
    """
    pair = np.asarray(predicted, np.float64), np.asarray(actual, np.float64)
    for name, values in zip(("predicted", "actual"), pair, strict=True):
        if values.ndim != 1:
            raise ValueError(f"{name} has shape {values.shape}, not (n,)")
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ValueError(f"{name} is not finite at {bad.size} places, first at {bad[0]}")
    if pair[0].size != pair[1].size:
        raise ValueError(f"{pair[0].size} predicted scores against {pair[1].size} actual ones")
    if pair[0].size < 2:
        raise ValueError(f"agreement needs at least 2 points, not {pair[0].size}")
    return pair


def _pearson(x: FloatArray, y: FloatArray) -> float:
    # The centred values of a constant can be rounding noise: constancy is asked of the values.
    if x.min() == x.max() or y.min() == y.max():
        return math.nan
    x, y = _centred(x), _centred(y)
    return float(np.clip(x @ y / math.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def _centred(values: FloatArray) -> FloatArray:
    """Without mean and with largest magnitude 1, so that no square over- or underflows."""
    scaled = values / np.abs(values).max()
    scaled = scaled - scaled.mean()
    return scaled / np.abs(scaled).max()


def plcc(predicted: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """Pearson's linear correlation coefficient, -1..1, or NaN if an input is constant.

    Example:
        >>> plcc([1, 2, 3], [10, 20, 30])
        1.0
    """
    return _pearson(*_pair(predicted, actual))


def srocc(predicted: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """Spearman's rank-order correlation coefficient; ties share their mean rank.

    -1..1, or NaN if an input is constant.

    Example:
        >>> srocc([1, 2, 3], [1, 10, 100])
        1.0
    """
    x, y = _pair(predicted, actual)
    return _pearson(rankdata(x), rankdata(y))


def krcc(predicted: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """Kendall's rank correlation coefficient (tau-b, which corrects for ties).

    -1..1, or NaN if an input is constant.

    Example:
        >>> round(krcc([1, 2, 3], [1, 3, 2]), 4)
        0.3333
    """
    return float(kendalltau(*_pair(predicted, actual)).statistic)


def rmse(predicted: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """Root mean square error, in the units of the scores.

    Example:
        >>> rmse([0, 0], [3, 3])
        3.0
    """
    x, y = _pair(predicted, actual)
    return _rms(x - y)


def _rms(error: FloatArray) -> float:
    return float(math.sqrt(np.mean(np.square(error))))


@dataclass(frozen=True)
class Logistic:
    """A fitted mapping from predicted to opinion scores.

    Attributes:
        parameters: four: (upper, lower, centre, width) of
            lower + (upper - lower) / (1 + exp(-(x - centre) / width)), width > 0;
            or five: (height, slope, centre, tilt, shift) of
            height * (0.5 - 1 / (1 + exp(slope * (x - centre)))) + tilt * x + shift.
    """

    parameters: tuple[float, ...]

    def __call__(self, predicted: npt.ArrayLike) -> FloatArray:
        """Map scores, any shape to the same shape."""
        x = np.asarray(predicted, np.float64)
        if len(self.parameters) == 4:
            upper, lower, centre, width = self.parameters
            return lower + (upper - lower) * _sigmoid((x - centre) / width)
        height, slope, centre, tilt, shift = self.parameters
        return height * (_sigmoid(slope * (x - centre)) - 0.5) + tilt * x + shift


def _sigmoid(x: FloatArray) -> FloatArray:
    # tanh saturates quietly where exp overflows.
    return 0.5 + 0.5 * np.tanh(x / 2)


def fit_logistic(
    predicted: npt.ArrayLike, actual: npt.ArrayLike, *, parameters: Literal[4, 5] = 4
) -> Logistic:
    """Fit the logistic mapping of the VQEG reports by least squares.

    Four parameters (VQEG FR-TV Phase I) give a sigmoid, five (Sheikh et al., 2006) add a line.
    The four-parameter mapping may come out falling if the scores run against the opinions.

    Args:
        predicted: (n,) scores of the model.
        actual: (n,) opinion scores, in the same order.
        parameters: 4 or 5.

    Returns:
        The mapping. If an input is constant, so is the mapping: the mean opinion.

    Raises:
        ValueError: unequal lengths, fewer than 2 points, NaN or infinity, or `parameters` is
            neither 4 nor 5.
    """
    if parameters not in (4, 5):
        raise ValueError(f"a logistic has 4 or 5 parameters, not {parameters}")
    x, y = _pair(predicted, actual)
    x_mean, y_mean, x_std, y_std = x.mean(), y.mean(), x.std(), y.std()
    if x.min() == x.max() or y.min() == y.max():
        constant = (y_mean, y_mean, x_mean, 1.0) if parameters == 4 else (0, 1, x_mean, 0, y_mean)
        return Logistic(tuple(float(p) for p in constant))
    starts: list[tuple[float, ...]]
    # Standardised, so that one set of starting points and step sizes fits every scale.
    u, v = (x - x_mean) / x_std, (y - y_mean) / y_std
    slope = float(u @ v) / u.size
    if parameters == 4:
        # The width is fitted as its logarithm: it cannot pass through zero.
        starts = [(top, -top, 0.0, math.log(w)) for top in (2.0, -2.0) for w in (0.25, 0.5, 1.0)]
    else:
        # The first start is the straight line: the fit is never worse than linear regression.
        starts = [
            (0.0, 1.0, 0.0, slope, 0.0),
            (4.0, 1.0, 0.0, 0.0, 0.0),
            (2.0, 4.0, 0.0, slope, 0.0),
        ]

    def unpack(p: npt.NDArray[np.float64]) -> Logistic:
        q = [float(value) for value in p]
        if parameters == 4:
            q[3] = math.exp(min(max(q[3], -30.0), 30.0))
        return Logistic(tuple(q))

    fits = [least_squares(lambda p: unpack(p)(u) - v, s, max_nfev=500) for s in starts]
    p = unpack(min(fits, key=lambda f: float(f.cost)).x).parameters
    if parameters == 4:
        upper, lower = (float(y_mean + y_std * end) for end in p[:2])
        return Logistic((upper, lower, float(x_mean + x_std * p[2]), float(x_std * p[3])))
    tilt = p[3] * y_std / x_std
    shift = y_mean + y_std * p[4] - tilt * x_mean
    back = (p[0] * y_std, p[1] / x_std, x_mean + x_std * p[2], tilt, shift)
    return Logistic(tuple(float(value) for value in back))


def after_logistic(
    predicted: npt.ArrayLike, actual: npt.ArrayLike, *, parameters: Literal[4, 5] = 4
) -> tuple[float, float]:
    """PLCC and RMSE after the logistic mapping, as papers of the field report them.

    The mapping is fitted on the very points it is judged on, so both flatter the model; they are
    for comparison with papers.

    Args:
        predicted: (n,) scores of the model.
        actual: (n,) opinion scores, in the same order.
        parameters: 4 or 5, of the mapping.

    Returns:
        PLCC (NaN if an input is constant) and RMSE in the units of `actual`.

    Raises:
        ValueError: as `fit_logistic`.
    """
    x, y = _pair(predicted, actual)
    mapped = fit_logistic(x, y, parameters=parameters)(x)
    return _pearson(mapped, y), _rms(mapped - y)


def bootstrap_interval(
    metric: Metric,
    predicted: npt.ArrayLike,
    actual: npt.ArrayLike,
    *,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a metric over images.

    Images are drawn with replacement, as many as there are. Resamples in which the metric is
    undefined (all images drawn alike) are left out.

    Args:
        metric: a function of (predicted, actual), as those of this module.
        predicted: (m,) scores of the model.
        actual: (m,) opinion scores, in the same order.
        n: resamples.
        seed: seed of the draw; the same seed gives the same interval.
        level: coverage, between 0 and 1.

    Returns:
        Lower and upper end; NaN twice if the metric is undefined in every resample.

    Raises:
        ValueError: unequal lengths, fewer than 2 points, NaN or infinity, `n` below 1, or `level`
            outside 0..1.
    """
    if n < 1:
        raise ValueError(f"a bootstrap of {n} resamples")
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    x, y = _pair(predicted, actual)
    rng = np.random.default_rng(seed)
    values = np.empty(n)
    for i in range(n):
        drawn = rng.integers(0, x.size, x.size)
        values[i] = metric(x[drawn], y[drawn])
    values = values[~np.isnan(values)]
    if not values.size:
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Correlation:
    """Agreement with human scores; `asdict` gives the fields of the manifest's `Correlation`.

    Attributes:
        n: images.
        srocc: Spearman's correlation, -1..1, or NaN if undefined.
        srocc_interval: its 95 % bootstrap interval.
        plcc: Pearson's correlation without any fit, -1..1, or NaN if undefined.
        rmse: root mean square error in points of the score scale.
    """

    n: int
    srocc: float
    srocc_interval: tuple[float, float]
    plcc: float
    rmse: float


def _row(x: FloatArray, y: FloatArray, resamples: int, seed: int) -> Correlation:
    if x.size < 2:  # a subset of one image has an error, but no correlation
        return Correlation(x.size, math.nan, (math.nan, math.nan), math.nan, _rms(x - y))
    interval = bootstrap_interval(srocc, x, y, n=resamples, seed=seed)
    return Correlation(x.size, srocc(x, y), interval, plcc(x, y), rmse(x, y))


def summary(
    predicted: npt.ArrayLike,
    actual: npt.ArrayLike,
    subsets: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Correlation, dict[str, Correlation]]:
    """Agreement over all images and within each subset.

    Args:
        predicted: (n,) scores of the model.
        actual: (n,) opinion scores, in the same order and on the same scale.
        subsets: (n,) each image's subset, as `Sample.subset`; "" belongs to none.
        resamples: bootstrap resamples behind each interval.
        seed: seed of the bootstrap.

    Returns:
        The pooled row, and a row per subset, sorted by name. A subset of one image has NaN for
        its correlations.

    Raises:
        ValueError: unequal lengths, fewer than 2 points, NaN or infinity.
    """
    x, y = _pair(predicted, actual)
    if subsets is not None and len(subsets) != x.size:
        raise ValueError(f"{len(subsets)} subsets for {x.size} scores")
    member = np.asarray(subsets if subsets is not None else [], str)
    return _row(x, y, resamples, seed), {
        name: _row(x[member == name], y[member == name], resamples, seed)
        for name in sorted(set(member.tolist()) - {""})
    }
