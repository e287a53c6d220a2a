"""Ridge against scikit-learn, the MLP on something that it can learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from giqa.decode import Preprocessor
from tests import small
from training import baseline, fit, metrics
from training.model import create

pytestmark = pytest.mark.usefixtures("small_presets")


def split(n: int, seed: int) -> baseline.Split:
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (n, 30)).astype(np.float32)
    mos = 50 + 5 * (x[:, 0] - 3) - 4 * (x[:, 1] - 3) + rng.normal(0, 3, n)
    return x, mos.clip(0, 100).astype(np.float32)


def test_ridge_equals_scikit_learns() -> None:
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    train, validation, test = split(400, 0), split(80, 1), split(90, 2)
    found = baseline.ridge(train, validation, test[0])
    alpha = float(found.choice.removeprefix("alpha = "))
    scaler = StandardScaler().fit(train[0])
    theirs = Ridge(alpha=alpha).fit(scaler.transform(train[0]), train[1])
    expected = theirs.predict(scaler.transform(test[0]))
    np.testing.assert_allclose(found.test, expected, atol=0.02)
    assert metrics.srocc(found.test, test[1]) > 0.9


def test_the_mlp_learns() -> None:
    train, validation, test = split(800, 0), split(100, 1), split(100, 2)
    found = baseline.mlp(train, validation, test[0])
    assert metrics.srocc(found.test, test[1]) > 0.85
    assert found.validation.shape == (100,)


def test_features_are_moments_of_what_the_backbones_give(tmp_path: Path) -> None:
    root = small.make_root(tmp_path, count=12)
    samples, _ = fit.splits(small.recipe(root, tmp_path))
    torch.manual_seed(0)
    model = create("small")
    found = baseline.features_of(tmp_path / "cache", model, samples)
    again = baseline.features_of(tmp_path / "cache", model, samples)
    np.testing.assert_array_equal(found, again)
    assert found.shape == (4, 2 * 3 * 192 + 2 * 2 * (64 + 128) + 2 * 256)  # one position a cell
    with torch.inference_mode():
        preprocess = Preprocessor(global_side=224, local_side=224)
        (views,) = preprocess([np.fromfile(samples[1].path, np.uint8)])
        raw = model.global_branch.tokens(torch.from_numpy(views.global_view)[None])[0, 0]
        maps = model.local_branch.backbone(
            model.local_branch.normalize(torch.from_numpy(views.local_view)[None])
        )
    expected = {0: raw[0], 192: raw[1:].mean(0), 384: raw[1:].std(0, correction=0)}
    for start, value in expected.items():
        np.testing.assert_allclose(found[1, start : start + 192], value, rtol=4e-3, atol=4e-3)
    cells = found[1, 2 * 3 * 192 :]
    np.testing.assert_allclose(cells[:64], maps[0][0].mean((1, 2)), rtol=4e-3, atol=4e-3)
    np.testing.assert_allclose(
        cells[-256:], maps[-1][0].flatten(1).std(-1, correction=0), rtol=4e-3, atol=4e-3
    )
