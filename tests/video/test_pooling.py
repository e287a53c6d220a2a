"""Pooling: against NumPy and SciPy, against brute force, and by what must always hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from giqa.video import POOLS, pool, pool_scenes, worst_window

SCORES = st.lists(st.floats(0, 100), min_size=1, max_size=60)


@settings(deadline=None)
@given(SCORES)
def test_pools_agree_with_numpy_and_scipy(scores: list[float]) -> None:
    found = pool(scores)
    assert tuple(found) == POOLS
    assert found["mean"] == pytest.approx(np.mean(scores))
    assert found["harmonic_mean"] == pytest.approx(stats.hmean(np.add(scores, 1)) - 1, abs=1e-9)
    assert found["min"] == min(scores)
    for name, percent in (("p1", 1), ("p5", 5), ("p95", 95)):
        assert found[name] == pytest.approx(stats.scoreatpercentile(scores, percent))


@settings(deadline=None)
@given(SCORES, st.randoms(use_true_random=False))
def test_pools_are_bounded_and_know_no_order(scores: list[float], random) -> None:
    found = pool(scores)
    assert all(min(scores) <= value <= max(scores) for value in found.values())
    assert found["harmonic_mean"] <= found["mean"] + 1e-9
    assert found["min"] <= found["p1"] <= found["p5"] <= found["p95"]
    shuffled = list(scores)
    random.shuffle(shuffled)
    assert pool(shuffled) == found


@settings(deadline=None)
@given(st.floats(0, 100), st.integers(1, 30))
def test_a_constant_pools_to_itself(score: float, count: int) -> None:
    assert set(pool([score] * count).values()) == {score}


def test_nothing_is_not_pooled() -> None:
    with pytest.raises(ValueError, match="nothing"):
        pool([])
    with pytest.raises(ValueError, match="nothing"):
        worst_window([], [])
    with pytest.raises(ValueError, match="nothing"):
        worst_window([0], [1], 0)


def brute_force(times: list[float], scores: list[float], length: float, end: float):
    best = None
    for start in sorted(times):
        if start + length <= end + 1e-6:
            inside = [s for t, s in zip(times, scores, strict=True) if start <= t < start + length]
            mean = sum(inside) / len(inside)
            if best is None or mean < best[1] - 1e-9:
                best = start, mean
    return best or (min(times), sum(scores) / len(scores))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 100)), min_size=2, max_size=40).map(
        dict
    ),
    st.integers(1, 300),
)
def test_worst_window_is_that_of_brute_force(rows: dict[int, int], length: int) -> None:
    times, scores = [float(t) for t in rows], [float(s) for s in rows.values()]
    end = max(times) + 1
    start, mean = brute_force(times, scores, length, end)
    found = worst_window(times, scores, length, end_s=end)
    assert (found.start_s, found.score) == (start, pytest.approx(mean))
    assert found.end_s == min(start + length, end)


def test_worst_window_counts_frames_at_binary_fractions_once() -> None:
    times = [i / 30 for i in range(300)]  # 1/30 is not a binary number
    scores = [10.0 if 90 <= i < 120 else 80.0 for i in range(300)]
    found = worst_window(times, scores, 1.0)
    assert (found.start_s, found.end_s, found.score) == (3.0, 4.0, 10.0)


def test_scenes_share_out_all_frames() -> None:
    times = [i / 10 for i in range(50)]
    scores = [float(i) for i in range(50)]
    scenes = pool_scenes(times, scores, [1.0, 3.5], 5.0)
    assert [(s.start_s, s.end_s, s.frames) for s in scenes] == [
        (0.0, 1.0, 10),
        (1.0, 3.5, 25),
        (3.5, 5.0, 15),
    ]
    assert [s.pooled for s in scenes] == [pool(scores[:10]), pool(scores[10:35]), pool(scores[35:])]
    assert pool_scenes([], [], [], 0.0) == ()
