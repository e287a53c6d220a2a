"""Pixels, boxes and notes of odd files; `tests/e2e/test_cases.py` scores them."""

import struct

import numpy as np
import pytest
from PIL import Image

from giqa.bundle import load_bundle
from giqa.decode import Decoded, Decoder, probe
from giqa.decode._signal import exif_orientation, still
from giqa.errors import GiqaError
from giqa.types import Item
from tests.makers import save
from tests.odd_images import (
    AS_GREY,
    AS_RGB,
    GREY,
    RGB,
    dng,
    exif,
    half,
    jpeg,
    pq_avif,
    pq_png,
    scans,
    with_property,
)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(load_bundle().manifest)


def views(decoder: Decoder, data: bytes, profile: str = "fast") -> Decoded:
    (found,) = decoder([Item("x", data=data)], profile)
    return found


def distance(a: Decoded, b: Decoded) -> float:
    assert a.views is not None, a.error
    assert b.views is not None
    return float(np.abs(a.views.local_view.astype(int) - b.views.local_view).mean())


@pytest.mark.parametrize("name", [*AS_RGB, *AS_GREY])
def test_pixels_are_those_of_the_png(decoder: Decoder, name: str) -> None:
    data = (AS_RGB | AS_GREY)[name]()
    expected = views(decoder, save(Image.fromarray(RGB if name in AS_RGB else GREY), "PNG"))
    found = views(decoder, data)
    assert distance(found, expected) < 1.2
    assert found.probe is not None
    assert found.probe.upright_size == (192, 144)


@pytest.mark.parametrize("name", ["XMP alone", "two EXIF segments, turned", "EXIF of LONG"])
def test_boxes_lie_within_the_picture(decoder: Decoder, name: str) -> None:
    found = views(decoder, AS_RGB[name](), "precise")
    assert found.boxes is not None
    assert found.boxes[:, [0, 2]].max() <= 192
    assert found.boxes[:, [1, 3]].max() <= 144
    expected = views(decoder, save(Image.fromarray(RGB), "PNG"), "precise")
    assert distance(found, expected) < 1.2


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("fill", [b"", b"zeros"])
def test_a_jpeg_with_a_part_missing_says_so(
    decoder: Decoder, progressive: bool, fill: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = jpeg(progressive=progressive)
    rest = bytes(len(whole) - len(half(whole)) - 2) if fill else b""
    found = views(decoder, half(whole) + rest + b"\xff\xd9")
    assert found.probe is not None
    assert "damaged" in found.probe.notes
    assert capfd.readouterr().err == ""
    intact = views(decoder, whole)
    assert intact.probe is not None
    assert "damaged" not in intact.probe.notes


@pytest.mark.parametrize("progressive", [False, True])
def test_what_decoders_say_of_damage_stays_off_the_terminal(
    decoder: Decoder, progressive: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = jpeg(progressive=progressive, restart_marker_blocks=5)
    draw, items = np.random.default_rng(1), []
    for _ in range(60):
        data = bytearray(whole)
        for at in draw.integers(2, 900, 2):
            data[at : at + 2] = bytes([0xFF, draw.choice([0xC4, 0xD3, 0xDA, 0xDB, 0xEE])])
        items.append(Item("x", data=bytes(data)))
    codes = {one.error and one.error.code for one in decoder(items, "fast")}
    assert codes <= {None, "corrupt", "truncated", "unsupported_format", "too_many_pixels"}
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_jpeg_that_is_cut_off_is_refused(progressive: bool, share: float) -> None:
    whole = jpeg(progressive=progressive)
    with pytest.raises(GiqaError) as caught:
        probe(whole[: int(len(whole) * share)])
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_progressive_jpeg_that_is_cut_off_between_scans_is_refused(count: int) -> None:
    with pytest.raises(GiqaError) as caught:
        probe(scans(count))
    assert caught.value.code == "truncated"


def test_notes_say_what_was_done() -> None:
    for data, note in (
        (pq_png(), "hdr_mapped"),
        (pq_avif(), "hdr_mapped"),
        (dng(95), "raw_preview"),
        (jpeg()[:-2], "damaged"),
    ):
        assert note in probe(data).notes


def test_orientation_is_that_of_ifd0() -> None:
    assert exif_orientation(exif(6)) == (6, True)
    assert exif_orientation(exif(8, 4, ">")) == (8, False)
    assert exif_orientation(exif(9)) == (1, False)
    assert exif_orientation(exif(3)[:20]) == (1, False)
    assert exif_orientation(b"") == (1, True)


def test_a_crop_outside_the_picture_is_none() -> None:
    wrong = struct.pack(">I4sIIIIiIiI", 40, b"clap", 500, 1, 144, 1, 0, 1, 0, 1)
    data = save(Image.fromarray(RGB), "AVIF")
    assert still(with_property(data, wrong)).crop is None
    assert still(data[:60]).crop is None
