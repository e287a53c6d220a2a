"""Metrics against scipy, and the behaviour at the edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from giqa.manifest import Correlation as BundleCorrelation
from training import metrics
from training.metrics import Logistic

Metric = Callable[[npt.ArrayLike, npt.ArrayLike], float]
METRICS: list[Metric] = [metrics.srocc, metrics.plcc, metrics.krcc, metrics.rmse]
CORRELATIONS = METRICS[:3]
ORACLES: list[tuple[Metric, Callable[..., tuple[float, float]]]] = [
    (metrics.srocc, stats.spearmanr),
    (metrics.plcc, stats.pearsonr),
    (metrics.krcc, stats.kendalltau),
]
Pair = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def noisy(n: int, *, seed: int = 0, decimals: int = 9) -> Pair:
    rng = np.random.default_rng(seed)
    actual = rng.uniform(0, 100, n)
    predicted = actual + rng.normal(0, 15, n)
    return predicted.round(decimals), actual.round(decimals)


def sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("n", [2, 3, 7, 64, 1000, 2049])
@pytest.mark.parametrize("decimals", [9, -1], ids=["distinct", "ties"])
@pytest.mark.parametrize(("metric", "oracle"), ORACLES, ids=["srocc", "plcc", "krcc"])
def test_correlations_equal_scipys(
    metric: Metric, oracle: Callable[..., tuple[float, float]], n: int, decimals: int
) -> None:
    x, y = noisy(n, seed=n, decimals=decimals)
    if n < 4 and decimals < 0:
        y = np.arange(n, dtype=float)  # rounding would leave a constant
    assert metric(x, y) == pytest.approx(oracle(x, y)[0], abs=1e-12)


def test_rmse_by_hand() -> None:
    assert metrics.rmse([1, 2, 3, 4], [1, 2, 3, 8]) == 2.0


def test_lists_and_integers_are_welcome() -> None:
    assert metrics.srocc([3, 1, 2], (30, 10, 20)) == 1.0


@pytest.mark.parametrize("metric", CORRELATIONS)
def test_perfect_agreement(metric: Metric) -> None:
    x = np.array([0.1, 0.2, 0.4, 0.7])
    assert metric(x, 3 * x + 1) == pytest.approx(1)
    assert metric(x, -3 * x) == pytest.approx(-1)


@pytest.mark.parametrize("metric", CORRELATIONS)
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e300])
def test_a_constant_input_gives_nan(metric: Metric, constant: float) -> None:
    other = np.arange(7.0)
    assert math.isnan(metric(np.full(7, constant), other))
    assert math.isnan(metric(other, np.full(7, constant)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("predicted", "actual", "message"),
    [
        ([1.0, math.nan], [1.0, 2.0], "predicted is not finite at 1 places, first at 1"),
        ([1.0, 2.0], [math.inf, 2.0], "actual is not finite at 1 places, first at 0"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], "3 predicted scores against 2 actual ones"),
        ([1.0], [1.0], "at least 2 points, not 1"),
        ([], [], "at least 2 points, not 0"),
        ([[1.0, 2.0]], [[1.0, 2.0]], r"predicted has shape \(1, 2\)"),
    ],
)
def test_bad_input_is_refused(
    metric: Metric, predicted: list[float], actual: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metric(predicted, actual)


def test_extreme_scales_do_not_overflow() -> None:
    x, y = noisy(50)
    assert metrics.plcc(x * 1e200, y * 1e-200) == pytest.approx(metrics.plcc(x, y), abs=1e-12)


# --- logistic ---


@pytest.mark.parametrize(
    "truth", [(90.0, 10.0, 0.4, 0.1), (10.0, 90.0, 0.4, 0.1)], ids=["rising", "falling"]
)
def test_four_parameters_are_recovered(truth: tuple[float, ...]) -> None:
    x = np.linspace(0, 1, 200)
    upper, lower, centre, width = truth
    y = lower + (upper - lower) * sigmoid((x - centre) / width)
    fit = metrics.fit_logistic(x, y)
    assert fit.parameters == pytest.approx(truth, rel=1e-4)
    np.testing.assert_allclose(fit(x), y, atol=1e-4)


def test_five_parameters_fit_a_sigmoid_on_a_line() -> None:
    x = np.linspace(-5, 30, 300)
    height, slope, centre, tilt, shift = 40.0, 0.8, 11.0, 0.7, 25.0
    y = height * (0.5 - 1 / (1 + np.exp(slope * (x - centre)))) + tilt * x + shift
    fit = metrics.fit_logistic(x, y, parameters=5)
    np.testing.assert_allclose(fit(x), y, atol=1e-3)


def test_a_logistic_is_its_formula_and_never_overflows() -> None:
    four, five = Logistic((80.0, 20.0, 5.0, 2.0)), Logistic((6.0, 0.5, 5.0, 2.0, 3.0))
    x = np.array([-1.0, 5.0, 6.5])
    np.testing.assert_allclose(four(x), 20 + 60 * sigmoid((x - 5) / 2))
    np.testing.assert_allclose(five(x), 6 * (0.5 - 1 / (1 + np.exp(0.5 * (x - 5)))) + 2 * x + 3)
    np.testing.assert_allclose(four([-1e9, 1e9]), [20, 80])
    assert four(np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize("parameters", [4, 5])
def test_the_fit_straightens_a_monotone_curve(parameters: Literal[4, 5]) -> None:
    rng = np.random.default_rng(3)
    quality = rng.uniform(-3, 3, 300)
    predicted, actual = quality, 100 * sigmoid(2 * quality) + rng.normal(0, 2, 300)
    before = metrics.plcc(predicted, actual)
    after, error = metrics.after_logistic(predicted, actual, parameters=parameters)
    assert after > before + 0.02
    assert error == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize("parameters", [4, 5])
def test_the_fit_does_not_depend_on_the_units_of_the_scores(parameters: Literal[4, 5]) -> None:
    x, y = noisy(150, seed=5)
    r, error = metrics.after_logistic(x, y, parameters=parameters)
    r2, error2 = metrics.after_logistic(x * 1e-3 + 7, y * 10, parameters=parameters)
    assert r2 == pytest.approx(r, abs=1e-4)
    assert error2 == pytest.approx(10 * error, rel=1e-3)


def test_five_parameters_are_never_worse_than_a_line() -> None:
    for seed in range(5):
        x, y = noisy(40, seed=seed)
        line = np.polynomial.Polynomial.fit(x, y, 1)(x)
        r, error = metrics.after_logistic(x, y, parameters=5)
        assert error <= metrics.rmse(line, y) + 1e-9
        assert r >= metrics.plcc(line, y) - 1e-9


@pytest.mark.parametrize("parameters", [4, 5])
def test_a_collapsed_model_is_mapped_to_the_mean_opinion(parameters: Literal[4, 5]) -> None:
    fit = metrics.fit_logistic([3, 3, 3], [1, 2, 6], parameters=parameters)
    np.testing.assert_allclose(fit([3, 99]), [3, 3])
    r, error = metrics.after_logistic([3, 3, 3], [1, 2, 6], parameters=parameters)
    assert math.isnan(r)
    assert error == pytest.approx(np.std([1, 2, 6]))


def test_other_parameter_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="4 or 5 parameters, not 3"):
        metrics.fit_logistic([1, 2], [1, 2], parameters=3)  # type: ignore[arg-type]


# --- bootstrap ---


def test_the_interval_is_reproducible_and_holds_the_estimate() -> None:
    x, y = noisy(300)
    low, high = metrics.bootstrap_interval(metrics.srocc, x, y)
    assert (low, high) == metrics.bootstrap_interval(metrics.srocc, x, y)
    assert (low, high) != metrics.bootstrap_interval(metrics.srocc, x, y, seed=1)
    assert low < metrics.srocc(x, y) < high


def test_the_interval_is_near_scipys() -> None:
    x, y = noisy(200)
    low, high = metrics.bootstrap_interval(metrics.plcc, x, y, n=4000)
    theirs = stats.bootstrap(
        (x, y),
        lambda a, b: stats.pearsonr(a, b)[0],
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert low == pytest.approx(theirs.low, abs=0.01)
    assert high == pytest.approx(theirs.high, abs=0.01)


def test_the_interval_of_a_mean_covers_as_often_as_it_says() -> None:
    def mean_error(predicted: npt.NDArray[np.float64], actual: npt.NDArray[np.float64]) -> float:
        return float((predicted - actual).mean())

    rng = np.random.default_rng(7)
    hits = 0
    for trial in range(200):
        error = rng.normal(0, 1, 60)
        low, high = metrics.bootstrap_interval(
            mean_error, error, np.zeros(60), n=200, seed=trial, level=0.9
        )
        hits += low <= 0 <= high
    assert 0.83 <= hits / 200 <= 0.95


def test_more_images_and_a_lower_level_narrow_the_interval() -> None:
    def width(n: int, level: float) -> float:
        low, high = metrics.bootstrap_interval(metrics.srocc, *noisy(n), n=500, level=level)
        return high - low

    assert width(1000, 0.95) < width(100, 0.95)
    assert width(100, 0.5) < width(100, 0.95)


def test_undefined_resamples_are_left_out() -> None:
    low, high = metrics.bootstrap_interval(metrics.srocc, [1, 2, 3], [1, 2, 3], n=200)
    assert low == high == 1.0
    assert all(map(math.isnan, metrics.bootstrap_interval(metrics.srocc, [1, 1], [1, 2], n=9)))


@pytest.mark.parametrize(
    ("options", "message"), [({"n": 0}, "0 resamples"), ({"level": 1.0}, "level 1.0")]
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.bootstrap_interval(metrics.srocc, [1, 2], [1, 2], **options)  # type: ignore[arg-type]


# --- summary ---


def test_summary_pools_and_splits() -> None:
    x, y = noisy(90)
    subsets = ["b", "a", ""] * 30
    pooled, by_subset = metrics.summary(x, y, subsets, resamples=50)
    assert list(by_subset) == ["a", "b"]
    assert (pooled.n, by_subset["a"].n) == (90, 30)
    assert pooled.srocc == metrics.srocc(x, y)
    assert pooled.srocc_interval == metrics.bootstrap_interval(metrics.srocc, x, y, n=50)
    assert by_subset["a"].plcc == metrics.plcc(x[1::3], y[1::3])
    assert by_subset["b"].rmse == metrics.rmse(x[::3], y[::3])


def test_summary_rows_fit_the_manifest() -> None:
    pooled, by_subset = metrics.summary(*noisy(10), resamples=20)
    assert by_subset == {}
    assert BundleCorrelation.model_validate(asdict(pooled)).n == 10


def test_a_subset_of_one_image_has_no_correlation() -> None:
    row = metrics.summary([1, 2, 5], [1, 2, 3], ["a", "a", "b"], resamples=5)[1]["b"]
    assert (row.n, row.rmse) == (1, 2.0)
    assert math.isnan(row.srocc)
    assert math.isnan(row.plcc)


def test_summary_wants_a_subset_per_score() -> None:
    with pytest.raises(ValueError, match="1 subsets for 2 scores"):
        metrics.summary([1, 2], [1, 2], ["a"])
