"""Tiles of frames: the pixels of the frame saved as PNG, whatever its layout, size and colours."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from giqa.bundle import load_bundle
from giqa.contract import TILES
from giqa.decode import Decoder, tile_boxes
from giqa.manifest import Manifest, ViewProfile
from giqa.types import Item
from giqa.video import read_frames
from giqa.video._colour import Converter
from giqa.video._tiles import cuts_exactly, windows
from tests.clips import pan, write
from tests.photos import photo
from tests.tiled import without_tiles


def manifest(pixels: int, side: int = 448) -> Manifest:
    """The default bundle's, with tiles."""
    found = load_bundle().manifest
    fast = ViewProfile(max_views=1, tiles=TILES, tile_pixels=pixels)
    sizes = found.tensors.model_copy(update={"local_side": side, "global_side": side // 2})
    return found.model_copy(update={"profiles": {**found.profiles, "fast": fast}, "tensors": sizes})


def tiles_of(image: np.ndarray, what: Manifest) -> list[np.ndarray]:
    """Tiles cut by Pillow."""
    side = what.tensors.local_side
    boxes = tile_boxes(image.shape[1], image.shape[0], what.profiles["fast"], side)
    picture, bilinear = Image.fromarray(image), Image.Resampling.BILINEAR
    return [
        np.asarray(picture.resize((side, side), bilinear, box=tuple(box))) for box in boxes.tolist()
    ]


def tiles_of_png(image: np.ndarray, what: Manifest) -> list[np.ndarray]:
    """What the decoder makes of the picture saved as PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    (found,) = Decoder(what)([Item.of(file.getvalue())], "fast")
    assert found.views is not None
    return list(found.views.local_view[1:])


LAYOUTS = [
    "yuv420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "yuv422p10le", "p010le", "rgb24",
    "gbrp", "yuvj420p", "yuv411p", "yuv410p", "gray", "bgr0", "yuyv422", "gray10le", "yuva420p",
]  # fmt: skip
SIZES = [(1280, 720), (960, 540), (1283, 701), (1000, 452), (450, 1300)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiles_are_the_frames_own_pixels(layout: str) -> None:
    converter = Converter()
    for width, height in SIZES:
        source = av.VideoFrame.from_ndarray(photo(width, height, 3, noise=30), "rgb24")
        picture = source.reformat(format=layout)
        whole = converter.image(picture)
        views = converter.views(picture, manifest(400_000))
        assert views.counts == (1, 5)
        for tile, expected in zip(views.local_view[1:], tiles_of(whole, manifest(0)), strict=True):
            assert np.array_equal(tile, expected), (width, height)


@settings(max_examples=15, deadline=None)
@given(st.integers(60, 700), st.integers(60, 700), st.sampled_from(["yuv420p", "yuv410p"]))
@example(320, 320, "yuv420p")
@example(64, 700, "yuv420p")
def test_any_size(width: int, height: int, layout: str) -> None:
    what = manifest(0, side=64)
    picture = av.VideoFrame.from_ndarray(photo(width, height, noise=30), "rgb24")
    picture = picture.reformat(format=layout)
    converter = Converter()
    found = converter.views(picture, what).local_view[1:]
    for tile, expected in zip(found, tiles_of(converter.image(picture), what), strict=True):
        difference = np.abs(tile.astype(int) - expected)
        assert difference.max() <= (0 if min(width, height) >= 64 else 1)


@pytest.mark.parametrize(
    "tags",
    [
        {"color_trc": 16, "color_primaries": 9, "colorspace": 9, "color_range": 1},
        pytest.param(
            {"color_trc": 18, "color_primaries": 9, "colorspace": 9, "color_range": 1},
            marks=pytest.mark.slow,
        ),
        {"color_trc": 1, "color_primaries": 12, "colorspace": 1, "color_range": 1},
        {"color_trc": 1, "color_primaries": 1, "colorspace": 5, "color_range": 2},
        {},
    ],
    ids=["pq", "hlg", "p3", "bt601-full", "untagged"],
)
def test_colours_are_mapped_alike(tags: dict[str, int]) -> None:
    source = av.VideoFrame.from_ndarray(photo(1280, 720, 1, noise=20), "rgb24")
    picture = source.reformat(format="yuv420p10le")
    for name in ("color_trc", "color_primaries", "colorspace", "color_range"):
        setattr(picture, name, tags.get(name, 2 if name != "color_range" else 0))
    converter = Converter()
    expected = tiles_of(converter.image(picture), manifest(0))
    found = converter.views(picture, manifest(0)).local_view[1:]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


KINDS = {
    "a.mp4": {},
    "b.mkv": {"codec": "libx265", "pixels": "yuv420p10le", "x265-params": "log-level=none"},
    "c.mkv": {"codec": "mpeg2video", "flags": "+ildct+ilme"},
    "d.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "e.mov": {"codec": "prores_ks", "pixels": "yuv422p10le"},
    "f.mkv": {"codec": "libx265", "x265-params": "log-level=none:chromaloc=2"},
    "g.mp4": {"rotation": 90},
    "h.mp4": {"rotation": 180},
    "i.mp4": {"rotation": 270},
}


@pytest.mark.parametrize("name", KINDS)
def test_tiles_of_decoded_frames(tmp_path: Path, name: str) -> None:
    """With what decoders say of chroma, interlaced, turned."""
    size = (801, 601) if name == "d.avi" else (800, 600)
    path = write(tmp_path / name, pan(3, *size), **KINDS[name])
    with read_frames(path) as frames:
        for frame in frames:
            found = frame.views(manifest(480_000))
            assert found.counts == (1, 5)
            expected = tiles_of_png(frame.image, manifest(0))
            for tile, one in zip(found.local_view[1:], expected, strict=True):
                assert np.array_equal(tile, one)


@pytest.mark.parametrize(("pixels", "count"), [(479_999, 4), (480_000, 4), (480_001, 0)])
def test_frames_have_tiles_from_the_threshold_on(tmp_path: Path, pixels: int, count: int) -> None:
    path = write(tmp_path / "clip.mp4", pan(1, 800, 600))
    with read_frames(path) as frames:
        assert next(frames).views(manifest(pixels)).counts == (1, 1 + count)


def test_without_tiles_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = av.VideoFrame.from_ndarray(photo(1280, 720), "rgb24").reformat(format="yuv420p")
    converter = Converter()
    wanted = converter.views(picture, manifest(0))
    monkeypatch.setattr(Converter, "_tiles", None)
    found = converter.views(picture, without_tiles(load_bundle()).manifest)
    assert found.counts == (1, 1)
    assert np.array_equal(found.local_view, wanted.local_view[:1])
    assert np.array_equal(found.global_view, wanted.global_view)


@given(st.integers(448, 4000), st.integers(448, 4000))
def test_windows_hold_their_tiles_with_room(width: int, height: int) -> None:
    boxes = tile_boxes(width, height, ViewProfile(max_views=1, tiles=TILES), 448)
    found = windows(boxes, width, height)
    assert len({tuple(size) for size in (found[:, 2:] - found[:, :2]).tolist()}) == 1
    for axis, length in ((0, width), (1, height)):
        before = boxes[:, axis] - found[:, axis]
        after = found[:, axis + 2] - boxes[:, axis + 2]
        assert ((before >= 8) | (found[:, axis] == 0)).all()
        assert ((after >= 8) | (found[:, axis + 2] == length)).all()
        assert (found[:, axis + 2] <= length).all()
        assert (found[:, axis] % 32 == 0).all()


def test_large_frames_are_cut_before_they_are_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = av.VideoFrame.from_ndarray(photo(1920, 1080), "rgb24").reformat(format="yuv420p")
    assert cuts_exactly(picture)
    converter = Converter()
    monkeypatch.setattr(converter, "_whole", None)  # nothing converts it at full size
    assert converter.views(picture, manifest(0)).counts == (1, 5)
    odd = av.VideoFrame(1921, 1080, "yuv420p")
    assert not cuts_exactly(odd)
