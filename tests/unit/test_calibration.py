"""Calibration recovers what was done to a raw output."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from training.calibration import fit_calibration


def made(gain: float, offset: float, noise: float = 0.0, n: int = 60) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (n, 1)) + rng.normal(0, 0.3, (n, 16))
    weights = softmax(rng.normal(0, 1, (n, 16)), axis=1)
    mos = 100 * (weights * expit(gain * logits + offset)).sum(1) + noise * rng.normal(size=n)
    return logits, weights, mos


@settings(deadline=None, max_examples=25)
@given(gain=st.floats(0.3, 3), offset=st.floats(-2, 2))
def test_known_gain_and_offset_are_found(gain: float, offset: float) -> None:
    found = fit_calibration(*made(gain, offset))
    assert found.gain == pytest.approx(gain, rel=1e-3)
    assert found.offset == pytest.approx(offset, abs=1e-3)
    assert found.rmse_after < 1e-2
    assert found.n == 60


def test_it_is_never_worse_than_none_and_keeps_the_order() -> None:
    for gain in (0.5, 1.0, 2.0):
        found = fit_calibration(*made(gain, 0.5, noise=15))
        assert found.rmse_after <= found.rmse_before
        assert found.gain > 0
