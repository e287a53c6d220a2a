"""What holds of the metrics whatever the scores."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from training import metrics

Pair = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
quiet = settings(deadline=None)  # a busy machine is no failure
CORRELATIONS = [metrics.srocc, metrics.plcc, metrics.krcc]


@st.composite
def pairs(draw: st.DrawFn, *, ties: bool = True) -> Pair:
    """Two equally long arrays, neither constant."""
    n = draw(st.integers(2, 40))
    scores = st.integers(-8, 8) if ties else st.integers(-10_000, 10_000)
    varied = st.lists(scores, min_size=n, max_size=n).filter(lambda v: len(set(v)) > 1)
    return np.array(draw(varied), float), np.array(draw(varied), float)


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, abs_tol=1e-9)


@pytest.mark.parametrize("metric", CORRELATIONS)
@quiet
@given(pair=pairs())
def test_bounds_symmetry_and_sign(metric: metrics.Metric, pair: Pair) -> None:
    x, y = pair
    value = metric(x, y)
    assert -1 <= value <= 1
    assert same(metric(y, x), value)
    assert same(metric(-x, y), -value)
    assert metric(x, x) == pytest.approx(1)


@pytest.mark.parametrize("metric", [*CORRELATIONS, metrics.rmse])
@quiet
@given(pair=pairs(), data=st.data())
def test_the_order_of_images_does_not_matter(
    metric: metrics.Metric, pair: Pair, data: st.DataObject
) -> None:
    x, y = pair
    order = np.array(data.draw(st.permutations(range(x.size))))
    assert same(metric(x[order], y[order]), metric(x, y))


@pytest.mark.parametrize("metric", [metrics.srocc, metrics.krcc])
@quiet
@given(pair=pairs(ties=False))
def test_rank_metrics_ignore_monotone_mappings(metric: metrics.Metric, pair: Pair) -> None:
    x, y = pair
    assert metric(x**3 + x, np.arctan(y / 1e4)) == metric(x, y)


@quiet
@given(pair=pairs(), gain=st.floats(0.01, 100), offset=st.floats(-100, 100))
def test_plcc_ignores_scale_and_offset(pair: Pair, gain: float, offset: float) -> None:
    x, y = pair
    assert same(metrics.plcc(gain * x + offset, y), metrics.plcc(x, y))


@quiet
@given(pair=pairs())
def test_rank_metrics_equal_scipys(pair: Pair) -> None:
    x, y = pair
    assert same(metrics.srocc(x, y), float(stats.spearmanr(x, y)[0]))
    assert same(metrics.krcc(x, y), float(stats.kendalltau(x, y)[0]))


@quiet
@given(pair=pairs())
def test_rmse_is_a_distance(pair: Pair) -> None:
    x, y = pair
    assert metrics.rmse(x, x) == 0
    assert metrics.rmse(x, y) == metrics.rmse(y, x) >= 0
    assert metrics.rmse(x, y) >= abs(x.mean() - y.mean()) - 1e-9


@quiet
@given(pair=pairs(), seed=st.integers(0, 99))
def test_intervals_are_ordered_and_within_bounds(pair: Pair, seed: int) -> None:
    low, high = metrics.bootstrap_interval(metrics.srocc, *pair, n=30, seed=seed)
    assert (math.isnan(low) and math.isnan(high)) or -1 <= low <= high <= 1


@settings(deadline=None, max_examples=10)
@given(pair=pairs(), parameters=st.sampled_from([4, 5]))
def test_the_fit_is_finite_and_no_worse_than_the_mean(
    pair: Pair, parameters: Literal[4, 5]
) -> None:
    x, y = pair
    mapped = metrics.fit_logistic(x, y, parameters=parameters)(x)
    assert np.isfinite(mapped).all()
    assert metrics.rmse(mapped, y) <= y.std() + 1e-6
