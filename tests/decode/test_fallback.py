"""The Pillow route gives the same views as DALI, where both apply."""

import io

import numpy as np
import pytest
from PIL import Image

from giqa.decode import Preprocessor, probe, view_boxes, views_by_pillow
from giqa.errors import CorruptError
from giqa.types import Views
from tests.makers import GOOD, image, oriented, png, rgba, save, with_profile

BOTH = [
    "baseline.jpg", "progressive.jpg", "grey.jpg", "subsampled.jpg", "odd-size.jpg",
    "cmyk-adobe.jpg", "rgb.png", "grey.png", "one-bit.png", "palette.png", "sixteen-bit.png",
    "sixteen-bit-grey.png", "lossy.webp", "lossless.webp", "rgb.bmp", "palette.bmp", "rgb.tif",
    "lzw.tif", "grey.pgm", "rgb.ppm", "lossless.jp2", "lossy.j2k", "thin.png", "one-pixel.png",
]  # fmt: skip
SIDES = {"global_side": 224, "local_side": 448}


@pytest.fixture(scope="module")
def preprocess() -> Preprocessor:
    return Preprocessor(**SIDES)


def both(
    preprocess: Preprocessor, data: bytes, boxes: np.ndarray | None = None
) -> tuple[Views, Views]:
    ours = views_by_pillow(data, probe(data), boxes, **SIDES)
    (dali,) = preprocess([np.frombuffer(data, np.uint8)], None if boxes is None else [boxes])
    assert isinstance(dali, Views), dali
    return ours, dali


@pytest.mark.parametrize("name", BOTH)
def test_views_are_within_two_levels_of_dalis(preprocess: Preprocessor, name: str) -> None:
    ours, dali = both(preprocess, GOOD[name]())
    for a, b in ((ours.local_view, dali.local_view), (ours.global_view, dali.global_view)):
        difference = np.abs(a.astype(int) - b)
        assert difference.max() <= 2
        assert difference.mean() <= 0.3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_alike(
    preprocess: Preprocessor, orientation: int, kind: str
) -> None:
    ours, dali = both(preprocess, oriented(orientation, kind))
    assert np.abs(ours.local_view.astype(int) - dali.local_view).max() <= 2


def test_boxes_are_cut_alike(preprocess: Preprocessor) -> None:
    boxes = view_boxes(1000, 700, "precise", 448)
    ours, dali = both(preprocess, png(1000, 700), boxes)
    assert np.array_equal(ours.local_view, dali.local_view)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_flattened_over_white(kind: str) -> None:
    data = rgba(kind)
    picture = Image.open(io.BytesIO(data))
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    flat = Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    expected = views_by_pillow(save(flat, "PNG"), probe(save(flat, "PNG")), None, **SIDES)
    found = views_by_pillow(data, probe(data), None, **SIDES)
    assert np.abs(found.local_view.astype(int) - expected.local_view).max() <= 2


@pytest.mark.parametrize("space", ["p3", "adobe"])
def test_profiles_are_converted_to_srgb(space: str) -> None:
    data, plain = with_profile(space), save(image(), "PNG")
    found = views_by_pillow(data, probe(data), None, **SIDES)
    expected = views_by_pillow(plain, probe(plain), None, **SIDES)
    ignored = np.asarray(Image.open(io.BytesIO(data)).resize((448, 448)), int)
    assert np.abs(found.local_view.astype(int) - expected.local_view).mean() < 1.5
    assert np.abs(ignored - expected.local_view[0]).mean() > 5


@pytest.mark.parametrize("name", ["animated.gif", "animated.webp"])
def test_the_first_frame_counts(name: str) -> None:
    first = Image.open(io.BytesIO(GOOD[name]())).convert("RGB").resize((448, 448), 2)
    data = GOOD[name]()
    found = views_by_pillow(data, probe(data), None, **SIDES)
    assert np.abs(found.local_view[0].astype(int) - np.asarray(first)).max() <= 2


def test_damaged_pixels_are_corrupt() -> None:
    data = bytearray(rgba())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    with pytest.raises(CorruptError):
        views_by_pillow(bytes(data), probe(bytes(data)), None, **SIDES)
