"""Views: against Pillow, and the promises that boxes and derived views make."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from giqa.decode import Preprocessor, view_boxes
from giqa.errors import CorruptError
from giqa.types import Views
from tests.makers import UNDO
from tests.photos import photo as pixels


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(pixels(width, height, seed))


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return np.frombuffer(out.getvalue(), np.uint8)


@pytest.fixture(scope="module")
def preprocess() -> Preprocessor:
    return Preprocessor(global_side=224, local_side=448, batch=4, threads=2)


def one(preprocess: Preprocessor, data: np.ndarray, boxes: np.ndarray | None = None) -> Views:
    (views,) = preprocess([data], None if boxes is None else [boxes])
    assert isinstance(views, Views), views
    return views


@pytest.mark.parametrize("size", [(512, 512), (1024, 600), (300, 900), (100, 80), (448, 448)])
def test_local_view_is_pillows_antialiased_squash(
    preprocess: Preprocessor, size: tuple[int, int]
) -> None:
    image = photo(*size)
    views = one(preprocess, encode(image))
    expected = np.asarray(image.resize((448, 448), Image.Resampling.BILINEAR), int)
    difference = np.abs(views.local_view[0].astype(int) - expected)
    assert difference.max() <= 4
    assert difference.mean() <= 0.5


def test_global_view_is_the_mean_of_2x2_local_pixels(preprocess: Preprocessor) -> None:
    views = one(preprocess, encode(photo(640, 480)))
    means = views.local_view.reshape(1, 224, 2, 224, 2, 3).astype(float).mean((2, 4))
    assert np.abs(views.global_view - means).max() <= 0.5


def test_jpeg_decoding_equals_pillow(preprocess: Preprocessor) -> None:
    data = encode(photo(448, 448), "JPEG", quality=70)
    decoded = np.asarray(Image.open(io.BytesIO(data.tobytes())).convert("RGB"))
    assert np.array_equal(one(preprocess, data).local_view[0], decoded)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_give_one_picture(preprocess: Preprocessor, orientation: int) -> None:
    upright = photo(448, 448)
    stored = upright.transpose(UNDO[orientation]) if orientation in UNDO else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = one(preprocess, encode(upright, "JPEG", quality=100, subsampling=0))
    turned = one(preprocess, encode(stored, "JPEG", quality=100, subsampling=0, exif=exif))
    difference = np.abs(plain.local_view.astype(int) - turned.local_view.astype(int))
    assert difference.mean() < 1


def test_precise_views_are_native_pixels(preprocess: Preprocessor) -> None:
    image = photo(1000, 700)
    boxes = view_boxes(1000, 700, "precise", 448)
    views = one(preprocess, encode(image), boxes)
    assert views.local_view.shape == (6, 448, 448, 3)
    for box, view in zip(boxes, views.local_view, strict=True):
        assert np.array_equal(view, np.asarray(image.crop(tuple(box))))


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.sampled_from([224, 448]))
def test_precise_boxes_touch_the_borders(width: int, height: int, side: int) -> None:
    boxes = view_boxes(width, height, "precise", side)
    assert 1 <= len(boxes) <= 9
    square = min(width, height, side)
    assert (boxes[:, 2] - boxes[:, 0] == square).all()
    assert (boxes[:, 3] - boxes[:, 1] == square).all()
    assert boxes.min() >= 0
    for low, high, length in ((0, 2, width), (1, 3, height)):
        if length > square:
            assert boxes[:, low].min() == 0
            assert boxes[:, high].max() == length
    covered = width <= 3 * square and height <= 3 * square
    if covered:
        # an even grid of at most three lines leaves no gap inside
        for low, high in ((0, 2), (1, 3)):
            starts, ends = np.unique(boxes[:, low]), np.unique(boxes[:, high])
            assert (starts[1:] <= ends[:-1]).all()
    assert len({tuple(b) for b in boxes.tolist()}) == len(boxes)


def test_fast_box_is_the_frame() -> None:
    assert view_boxes(30, 20, "fast", 448).tolist() == [[0, 0, 30, 20]]


@pytest.mark.parametrize("bad_at", [0, 2, 5])
def test_a_bad_image_costs_only_itself(preprocess: Preprocessor, bad_at: int) -> None:
    good = [encode(photo(200 + 10 * i, 150, i)) for i in range(6)]
    expected = [one(preprocess, data) for data in good]
    mixed = list(good)
    mixed[bad_at] = np.frombuffer(b"this is no image at all", np.uint8)
    for i, result in enumerate(preprocess(mixed)):
        if i == bad_at:
            assert isinstance(result, CorruptError)
        else:
            assert isinstance(result, Views)
            assert np.array_equal(result.local_view, expected[i].local_view)
            assert np.array_equal(result.global_view, expected[i].global_view)


def test_equal_sides_share_the_view() -> None:
    views = one(Preprocessor(global_side=224, local_side=224), encode(photo(300, 300)))
    assert np.array_equal(views.global_view, views.local_view)


def test_other_ratios_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Preprocessor(global_side=224, local_side=512)([encode(photo(30, 30))])
