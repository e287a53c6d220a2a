"""The same photograph in another form: what the forms are, and that scores hardly move."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from giqa.local import LocalScorer
from tests.photos import photo
from training.evaluation.invariance import FORMS, invariance


def upright(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data)))


def test_forms_are_the_same_picture() -> None:
    image = Image.fromarray(photo(160, 90, 3))
    original = np.asarray(image, np.float32)
    assert np.array_equal(np.asarray(upright(FORMS["png"](image))), original)
    turned = upright(FORMS["exif"](image))
    assert turned.size == (160, 90)
    assert np.abs(np.asarray(turned, np.float32) - original).mean() < 1.5
    assert Image.open(io.BytesIO(FORMS["exif"](image))).size == (90, 160)
    assert upright(FORMS["half size"](image)).size == (80, 45)
    assert upright(FORMS["squashed"](image)).size == (120, 90)


def test_scores_of_real_photographs_hardly_move(tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data")
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        Image.fromarray(getattr(data, name)()).save(tmp_path / f"{name}.png")
    with LocalScorer() as scorer:
        rows = invariance(scorer, sorted(tmp_path.iterdir()))
    found = {row.form: row for row in rows}
    assert set(found) == set(FORMS)
    assert found["png"].median == 0
    assert all(row.n == 4 for row in rows)
    assert all(row.median < 3 for row in rows if row.form != "half size"), rows
    # Half of these is less than the local view: detail is lost, and should cost something.
    assert found["half size"].median < 8
    large = tmp_path / "large"
    large.mkdir()
    for name in ("astronaut", "coffee"):
        image = Image.fromarray(getattr(data, name)())
        image.resize((2048, 1536), Image.Resampling.LANCZOS).save(large / f"{name}.png")
    with LocalScorer() as scorer:
        rows = invariance(scorer, sorted(large.iterdir()))
    found = {row.form: row for row in rows}
    # These are enlarged, which native pixels show: at half their size they are sharper.
    assert found["half size"].bias > 0
    assert all(row.median < 4 for row in rows if row.form != "half size"), rows


def test_no_photograph_is_an_error() -> None:
    with LocalScorer() as scorer, pytest.raises(ValueError, match="no photograph"):
        invariance(scorer, [])


def test_the_picture_of_bands_shows_scores() -> None:
    from training.evaluation.bands import STEPS, bands

    with LocalScorer() as scorer:
        sheet = bands(scorer, [Image.fromarray(photo(200, 150, i)) for i in range(3)])
    assert sheet.size == (5 * 300, 3 * 326)
    assert all(len(parameters) == 5 for _, parameters, _ in STEPS)
    assert len(np.unique(np.asarray(sheet)[:26, :300])) > 2, "no caption"
