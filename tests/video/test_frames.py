"""Frames: which, when, and what they look like; against PyAV, Pillow and formulas."""

import contextlib
import io
import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from giqa.bundle import load_bundle
from giqa.decode import Preprocessor
from giqa.errors import NoFramesError, UnsupportedCodecError, UsageError
from giqa.video import Sampling, read_frames
from giqa.video._colour import Converter
from tests.clips import pan, write

KINDS = {  # container, encoder, pixels: with B-frames, without, intra only; 8 and 10 bit
    "mp4": ("libx264", "yuv420p", {"tune": "psnr", "bf": "3"}),
    "mkv": ("libx265", "yuv420p10le", {"x265-params": "log-level=none"}),
    "webm": ("libvpx", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good"}),
    "ts": ("mpeg2video", "yuv420p", {"bf": "2"}),
    "avi": ("mpeg4", "yuv420p", {"bf": "2"}),
    "mov": ("prores_ks", "yuv422p10le", {}),
    "h264": ("libx264", "yuv420p", {}),
    "gif": ("gif", "rgb8", {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clips")
    for suffix, (codec, pixels, options) in KINDS.items():
        write(made / f"clip.{suffix}", pan(40), codec=codec, pixels=pixels, **options)
    return made


def told(path: Path, sampling: Sampling | None = None, **options) -> list[tuple[int, float, bytes]]:
    with read_frames(path, sampling, **options) as frames:
        return [(f.index, f.pts_s, f.image.tobytes()) for f in frames]


@pytest.mark.parametrize("suffix", KINDS)
def test_frames_are_pyavs_with_numbers_and_times(folder: Path, suffix: str) -> None:
    path = folder / f"clip.{suffix}"
    flags = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    rgb = {"format": "rgb24", "interpolation": flags}
    with av.open(path) as container:
        expected = [f.to_ndarray(**rgb) for f in container.decode(video=0)]
    with read_frames(path) as frames:
        found = list(frames)
        assert (frames.info.width, frames.info.height, frames.info.fps) == (160, 96, 25.0)
    assert [f.index for f in found] == list(range(40))
    assert [f.pts_s for f in found] == pytest.approx([i / 25 for i in range(40)], abs=1e-3)
    for frame, picture in zip(found, expected, strict=True):
        assert np.array_equal(frame.image, picture)


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("way", [{}, {"fps": 7.0}, {"every": 3}, {"keyframes": True}], ids=str)
def test_chunks_put_together_are_one_run(folder: Path, suffix: str, way: dict) -> None:
    path = folder / f"clip.{suffix}"
    whole = told(path, Sampling(**way))
    edges = [None, 0.4, 0.56, 1.0, None]  # a keyframe, a frame, between frames
    parts = []
    for start, end in itertools.pairwise(edges):
        with contextlib.suppress(NoFramesError):  # between two keyframes
            parts += told(path, Sampling(**way, start_s=start, end_s=end))
    assert [row[:2] for row in parts] == [row[:2] for row in whole]
    assert parts == whole


def test_sampling_by_time_takes_what_is_on_screen(tmp_path: Path) -> None:
    times = [0, 40, 80, 500, 510, 520, 1900, 2000, 2500]  # variable frame rate
    path = write(tmp_path / "vfr.mkv", pan(len(times)), times=times)
    assert [round(pts * 1000) for _, pts, _ in told(path)] == times
    # On screen at 0, .5, 1, 1.5, 2, 2.5 s; a frame that is there twice comes once.
    found = told(path, Sampling(fps=2))
    assert [round(pts * 1000) for _, pts, _ in found] == [0, 500, 520, 2000, 2500]


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=10),
    st.sampled_from([0.1, 1, 2.5, 29.97, 1000]),
)
def test_a_frame_is_taken_if_a_tick_falls_into_its_showing(gaps: list[int], fps: float) -> None:
    edges = np.cumsum([0, *gaps])
    sampling, rate = Sampling(fps=fps), Fraction(str(fps))
    for i, (start, end) in enumerate(itertools.pairwise(edges)):
        ticks = [k for k in range(int(end * rate / 1000) + 2) if start <= k * 1000 / rate < end]
        taken = sampling.takes(i, Fraction(int(start), 1000), Fraction(int(end), 1000))
        assert taken == bool(ticks)


@pytest.mark.parametrize(
    "wrong",
    [
        {"fps": 1, "every": 2},
        {"every": 2, "keyframes": True},
        {"fps": 0},
        {"fps": float("nan")},
        {"every": 0},
        {"start_s": -1},
        {"start_s": 2, "end_s": 2},
        {"end_s": float("nan")},
    ],
    ids=str,
)
def test_samplings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        Sampling(**wrong)


@pytest.mark.parametrize(
    ("rotation", "transpose"),
    [
        (90, Image.Transpose.ROTATE_90),
        (180, Image.Transpose.ROTATE_180),
        (270, Image.Transpose.ROTATE_270),
    ],
)
def test_rotation_gives_the_upright_picture(
    tmp_path: Path, rotation: int, transpose: Image.Transpose
) -> None:
    plain = next(read := read_frames(write(tmp_path / "a.mp4", pan(1), crf="1")))
    path = write(tmp_path / "b.mp4", pan(1), crf="1", rotation=rotation)
    turned = next(other := read_frames(path))
    expected = np.asarray(Image.fromarray(plain.image).transpose(transpose))
    assert np.array_equal(turned.image, expected)
    assert (turned.info.height, turned.info.width) == turned.image.shape[:2]
    assert turned.info.rotation == rotation
    read.close()
    other.close()


def test_interlaced_pictures_lose_their_comb(tmp_path: Path) -> None:
    picture = np.zeros((96, 160, 3), np.uint8)
    picture[0::2, 40:80] = picture[1::2, 60:100] = 255  # moved between the fields
    path = write(tmp_path / "i.mkv", [picture] * 3, codec="mpeg2video", flags="+ildct+ilme")
    with read_frames(path) as frames:
        image = next(frames).image.astype(int)
        assert frames.notes == ["deinterlaced"]
    assert np.abs(np.diff(picture.astype(int), axis=0)).mean() > 50
    assert np.abs(np.diff(image, axis=0)).mean() < 1


def flat(pixels: str, luma: int, **tags: int) -> av.VideoFrame:
    """A grey picture with that luma code."""
    frame = av.VideoFrame(64, 48, pixels)
    wide = "10" in pixels
    for i, plane in enumerate(frame.planes):
        code = luma if i == 0 else (512 if wide else 128)
        size = plane.buffer_size // (2 if wide else 1)
        plane.update(np.full(size, code, np.uint16 if wide else np.uint8).tobytes())
    for name, value in tags.items():
        setattr(frame, name, value)
    return frame


def pq_to_srgb(code: int) -> float:
    """SMPTE ST 2084 to sRGB with white at 203 cd/m2, of a 10-bit narrow-range luma code."""
    signal = ((code - 64) / 876) ** (1 / 78.84375)
    linear = (max(signal - 0.8359375, 0) / (18.8515625 - 18.6875 * signal)) ** (1 / 0.1593017578125)
    light = min(linear * 10000 / 203, 1)
    return 255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055)


def test_hdr_is_mapped_as_the_standard_says() -> None:
    converter = Converter()
    for code in (64, 300, 420, 500, 560, 940):
        tags = {"color_trc": 16, "color_primaries": 9, "colorspace": 9, "color_range": 1}
        image = converter.image(flat("yuv420p10le", code, **tags))
        assert np.ptp(image) <= 2
        assert image.mean() == pytest.approx(pq_to_srgb(code), abs=3)


@pytest.mark.parametrize("transfer", [8, 9, 10, 17])
def test_other_transfers_are_refused(transfer: int) -> None:
    with pytest.raises(UnsupportedCodecError, match="transfer"):
        Converter().image(flat("yuv420p", 128, color_trc=transfer))


@pytest.mark.parametrize(("height", "space"), [(576, 5), (720, 1)])
def test_untagged_pictures_have_the_matrix_of_their_size(height: int, space: int) -> None:
    codes = np.tile(np.array([81, 90, 240], np.uint8), (height, 64, 1))
    planar = np.ascontiguousarray(codes.transpose(2, 0, 1))
    untagged = av.VideoFrame.from_ndarray(planar, "yuv444p")
    tagged = av.VideoFrame.from_ndarray(planar, "yuv444p")
    tagged.colorspace = space
    converter = Converter()
    assert np.array_equal(converter.image(untagged), converter.image(tagged))


def test_views_are_those_of_the_frame_saved_as_png(folder: Path) -> None:
    manifest = load_bundle().manifest
    sizes = manifest.tensors
    preprocess = Preprocessor(global_side=sizes.global_side, local_side=sizes.local_side)
    for suffix in ("mp4", "mkv", "mov"):
        with read_frames(folder / f"clip.{suffix}", Sampling(every=20)) as frames:
            for frame in frames:
                png = io.BytesIO()
                Image.fromarray(frame.image).save(png, "PNG")
                (expected,) = preprocess([np.frombuffer(png.getvalue(), np.uint8)])
                found = frame.views(manifest)
                for a, b in (
                    (found.local_view, expected.local_view),
                    (found.global_view, expected.global_view),
                ):
                    assert a.shape == b.shape
                    assert np.abs(a.astype(int) - b).mean() <= 0.25


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 447), st.integers(1, 900), st.integers(0, 9))
@example(1, 1, 0)
def test_enlarged_pixels_are_those_of_the_whole_picture(width: int, height: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    picture = av.VideoFrame.from_ndarray(noise, "rgb24").reformat(format="yuv444p")
    picture.colorspace = 1  # BT.709: nothing is left to guess
    manifest = load_bundle().manifest
    flags = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    side = manifest.tensors.local_side
    planar = picture.reformat(format="gbrp", interpolation=flags)
    packed = planar.reformat(side, side, "rgb24", interpolation=flags).to_ndarray()
    assert (Converter().views(picture, manifest).local_view[0] == packed).all()


def test_sizes_may_change_in_mid_stream(tmp_path: Path) -> None:
    small = write(tmp_path / "a.ts", pan(10)).read_bytes()
    large = write(tmp_path / "b.ts", pan(10, 320, 192)).read_bytes()
    both = tmp_path / "both.ts"
    both.write_bytes(small + large)
    with read_frames(both) as frames:
        shapes = [frame.image.shape for frame in frames]
        assert frames.notes == ["timestamps_jumped", "resolution_changed"]
    assert shapes == [(96, 160, 3)] * 10 + [(192, 320, 3)] * 10


def test_timestamps_that_jump_back_go_on(tmp_path: Path) -> None:
    one = write(tmp_path / "one.ts", pan(30), codec="mpeg2video").read_bytes()
    three = tmp_path / "three.ts"
    three.write_bytes(3 * one)
    whole = told(three)
    assert [index for index, _, _ in whole] == list(range(90))
    assert [pts for _, pts, _ in whole] == pytest.approx([i / 25 for i in range(90)])
    parts = [
        row
        for start, end in ((None, 1.0), (1.0, 2.5), (2.5, None))
        for row in told(three, Sampling(start_s=start, end_s=end))
    ]
    assert parts == whole


def test_frames_can_be_dropped_and_keep_their_numbers(folder: Path) -> None:
    with read_frames(folder / "clip.mp4", Sampling(start_s=1.0)) as frames:
        bare = next(frames).without_picture()
    assert (bare.index, bare.pts_s) == (25, 1.0)
    assert bare._picture is None
