"""The probe against Pillow, and what it refuses."""

import io
import time
import warnings

import pytest
from PIL import Image

from giqa.decode import probe, views_by_pillow
from giqa.errors import GiqaError
from giqa.types import Limits
from tests.makers import BAD, GOOD, gif_frames, icc, jpeg, oriented, png, save, with_profile
from tests.makers import image as picture


@pytest.mark.parametrize("name", GOOD)
def test_facts_are_pillows(name: str) -> None:
    data = GOOD[name]()
    start = time.perf_counter()
    found = probe(data)
    assert time.perf_counter() - start < 0.5
    if name == "text-bomb.png":
        return  # Pillow refuses it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = Image.open(io.BytesIO(data))
    assert found.format == expected.format or (found.format, expected.format) == ("JPEG", "MPO")
    assert (found.width, found.height) == expected.size
    assert found.frames == getattr(expected, "n_frames", 1)
    assert found.mode == expected.mode
    assert found.has_alpha == expected.has_transparency_data


@pytest.mark.parametrize(
    "name",
    [n for n in BAD if n != "no-data.png"],  # that one is seen in decoding only
)
def test_refusals_are_quick_and_coded(name: str) -> None:
    make, code = BAD[name]
    data = make()
    start = time.perf_counter()
    with pytest.raises(GiqaError) as caught:
        probe(data)
    assert time.perf_counter() - start < 0.5
    assert caught.value.code == code


def decoded(data: bytes) -> object:
    return views_by_pillow(data, probe(data), None, global_side=224, local_side=448)


@pytest.mark.parametrize("name", GOOD)
def test_every_cut_is_noticed(name: str) -> None:
    if name in ("pages.tif", "trailing.jpg", "trailing.png", "one-pixel.png"):
        pytest.skip("what is cut off is not the first picture")
    data = GOOD[name]()
    for tenth in range(1, 10):
        cut = data[: len(data) * tenth // 10]
        # Numbers written as text have no length to check: decoding finds the end.
        check = decoded if name == "text.ppm" else probe
        with pytest.raises(GiqaError) as caught:
            check(cut)
        assert caught.value.code in ("truncated", "corrupt"), tenth


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int, kind: str) -> None:
    found = probe(oriented(orientation, kind))
    assert found.orientation == orientation
    assert found.upright_size == (448, 336)


@pytest.mark.parametrize(("space", "kind"), [("srgb", "srgb"), ("p3", "other"), ("adobe", "other")])
def test_profiles_are_judged_by_what_they_do(space: str, kind: str) -> None:
    found = probe(with_profile(space))
    assert found.icc == kind
    assert found.route == ("dali" if kind == "srgb" else "pillow")


def test_a_broken_profile_is_ignored_and_noted() -> None:
    for profile in (b"nonsense", icc("p3")[:200]):
        found = probe(save(picture(), "PNG", icc_profile=profile))
        assert (found.icc, found.route) == ("broken", "dali")
        assert "icc_ignored" in found.notes


def test_limits() -> None:
    data = jpeg(100, 100)
    for limits, code in (
        (Limits(max_bytes=len(data) - 1), "too_many_bytes"),
        (Limits(max_pixels=9_999), "too_many_pixels"),
    ):
        with pytest.raises(GiqaError) as caught:
            probe(data, limits)
        assert caught.value.code == code
    probe(data, Limits(max_bytes=len(data), max_pixels=10_000))
    probe(gif_frames(10_000))
    with pytest.raises(GiqaError, match="frames"):
        probe(gif_frames(4), Limits(max_frames=3))


def test_pillows_own_limit_neither_holds_nor_changes() -> None:
    usual = Image.MAX_IMAGE_PIXELS
    big = save(Image.new("1", (20_000, 10_000)), "PNG")
    assert probe(big, Limits(max_pixels=200_000_000)).width == 20_000
    assert usual == Image.MAX_IMAGE_PIXELS


def test_buffers_of_any_kind() -> None:
    import numpy as np

    data = png()
    assert probe(memoryview(data)) == probe(np.frombuffer(data, np.uint8)) == probe(data)
