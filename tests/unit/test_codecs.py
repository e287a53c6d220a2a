"""Codecs in use: what comes back is the picture, less of it the harder it is coded."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from giqa.errors import UsageError
from training.board import native
from training.distortions.codecs import CODECS, coded

PHOTO = np.ascontiguousarray(data.astronaut()[40:341, 60:361])  # odd sides
STEPS = {
    "jpeg": (90, 40, 8),
    "webp": (90, 40, 2),
    "jpeg2000": (10, 60, 250),
    "hevc": (10, 30, 48),
    "av1": (90, 45, 5),
    "vp9": (10, 40, 62),
}


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.square(a.astype(float) - b).mean()))


@pytest.mark.parametrize("codec", CODECS)
def test_harder_coding_errs_more_and_keeps_size_and_brightness(codec: str) -> None:
    results = [coded(PHOTO, codec, value) for value in STEPS[codec]]
    errors = [error(result, PHOTO) for result in results]
    assert [r.shape for r in results] == [PHOTO.shape] * 3
    assert errors == sorted(errors)
    assert errors[0] < 8 < errors[2]
    # A shift of all pixels would tell coded pictures from others.
    assert abs(results[0].mean() - PHOTO.mean()) < 0.5


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(UsageError, match="one of jpeg, webp"):
        coded(PHOTO, "gif", 1)


@pytest.mark.parametrize("kind", native.TYPES)
def test_native_damage_grows_with_its_level(kind: str) -> None:
    pictures = [native.damaged(PHOTO, kind, level, 3) for level in (1, 2, 3)]
    errors = [error(picture, PHOTO) for picture in pictures]
    assert all(p.shape == PHOTO.shape and p.dtype == np.uint8 for p in pictures)
    assert errors == sorted(errors)
    assert errors[0] > 0.5
    again = native.damaged(PHOTO, kind, 2, 3)
    np.testing.assert_array_equal(again, pictures[1])
