"""Pixels of frames: transparency, ranges, fields and colours as players show them."""

import itertools
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from giqa.video._colour import Converter, is_combed
from tests.clips import pan, write
from tests.photos import photo
from tests.video.test_right_frames import read


@pytest.mark.parametrize("step", [2, 6])
@pytest.mark.parametrize("woven", [True, False])
def test_pictures_of_two_moments_are_told_from_others(
    tmp_path: Path, step: int, woven: bool
) -> None:
    """As FFmpeg's idet says it, which looks at several: interlaced or progressive."""
    scene = photo(640, 288, noise=2)
    moments = [np.ascontiguousarray(scene[:, i * step : i * step + 320]) for i in range(24)]
    pictures = moments[::2]
    if woven:
        for even, odd in zip(pictures, moments[1::2], strict=True):
            even[1::2] = odd[1::2]
    options = {"codec": "mpeg2video", "bit_rate": 20_000_000, "flags": "+ildct+ilme"}
    path = write(tmp_path / "a.mkv", pictures, **options)
    with av.open(str(path)) as container:
        assert {is_combed(frame) for frame in container.decode(video=0)} == {woven}
    said = "deinterlaced" in read(path)[1]
    assert said == woven
    if shutil.which("ffmpeg"):
        show = ["-vf", "idet,metadata=print:file=-", "-f", "null", "-"]
        command = ["ffmpeg", "-nostdin", "-v", "quiet", "-i", str(path), *show]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert ("multiple.current_frame=tff" in told) == woven


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    picture = np.dstack([next(pan(1)), np.full((96, 160), 255, np.uint8)])
    picture[:, :80, 3] = 0
    picture[:, 80:100, 3] = 128
    white = Image.new("RGBA", (160, 96), "white")
    expected = np.asarray(Image.alpha_composite(white, Image.fromarray(picture)).convert("RGB"))
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("qtrle", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "argb"
        frame = av.VideoFrame.from_ndarray(picture, "rgba").reformat(format="argb")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames, notes, _ = read(path)
    assert notes == ["alpha_flattened"]
    assert np.abs(frames[0].image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("pixels", ["gray", "gray10le", "gray16be"])
def test_grey_has_the_range_that_is_said(pixels: str) -> None:
    """As AV1 and H.265 of 4:0:0 are decoded; FFmpeg takes all grey for full range."""
    frame = av.VideoFrame(64, 16, pixels)
    bits = frame.format.components[0].bits
    dtype = "u1" if bits == 8 else ">u2" if pixels.endswith("be") else "<u2"
    plane = frame.planes[0]
    rows = np.zeros((16, plane.line_size // np.dtype(dtype).itemsize), dtype)
    rows[:, :64] = levels = np.linspace(16, 235, 64).round() * (1 << bits - 8)
    plane.update(rows.tobytes())
    for said, expected in (
        (1, (levels / (1 << bits - 8) - 16) * 255 / 219),
        (2, levels * 255 / ((1 << bits) - 1)),
    ):
        frame.color_range = said
        assert np.abs(Converter().image(frame)[8] - expected[:, None]).max() <= 1


def test_vp9_with_transparency_is_laid_over_white(tmp_path: Path) -> None:
    picture = av.VideoFrame(160, 96, "yuva420p")
    for plane, level in zip(picture.planes, (81, 90, 240, 0), strict=True):
        plane.update(bytes([level]) * plane.buffer_size)
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuva420p"
        for packet in itertools.chain(stream.encode(picture), stream.encode()):
            container.mux(packet)
    (frame,), notes, _ = read(tmp_path / "a.webm")
    assert notes == ["alpha_flattened"]
    assert frame.image.min() >= 254


def test_progressive_pictures_that_are_flagged_interlaced_stay(tmp_path: Path) -> None:
    options = {"codec": "mpeg2video", "bit_rate": 8_000_000}
    path = write(tmp_path / "fake.mkv", pan(10, 320, 192), flags="+ildct+ilme", **options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    frames, notes, _ = read(path)
    assert notes == []
    flat = read(write(tmp_path / "true.mkv", pan(10, 320, 192), **options))[0]
    for a, b in zip(frames, flat, strict=True):
        assert np.abs(a.image.astype(int) - b.image).mean() < 3


_TO_709 = np.array(  # BT.2087: linear BT.2020 to linear BT.709
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)


def _light(code: np.ndarray, transfer: int) -> np.ndarray:
    """Display light, 1 being 203 cd/m2, as BT.2100 says."""
    if transfer == 16:
        root = code ** (1 / 78.84375)
        ratio = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        return 10000 / 203 * ratio ** (1 / 0.1593017578125)
    if transfer == 18:
        high = (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
        scene = np.where(code <= 0.5, code**2 / 3, high)
        luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
        return 1000 / 203 * scene * luminance[:, None] ** 0.2
    return code**2.4


@pytest.mark.parametrize("transfer", [14, 16, 18])
@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv444p10le"])
def test_colours_of_hdr_and_wide_gamuts_are_those_of_the_standard(
    transfer: int, pixels: str
) -> None:
    steps = np.linspace(0.05, 0.95, 7)
    code = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    luma = code @ np.array([0.2627, 0.6780, 0.0593])
    codes = np.round(
        [
            64 + 876 * luma,
            512 + 896 * (code[:, 2] - luma) / 1.8814,
            512 + 896 * (code[:, 0] - luma) / 1.4746,
        ]
    ).astype(np.uint16)
    frame = av.VideoFrame(16 * len(code), 16, pixels)
    for plane, values in zip(frame.planes, codes, strict=True):
        rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        rows[:, : plane.width] = np.repeat(values, plane.width // len(code))
        plane.update(rows.tobytes())
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, 9, 9, 1
    found = Converter().image(frame)[8, 8::16]
    # What was coded in 10 bits is what light is computed of.
    luma = (codes[0] - 64.0) / 876
    red, blue = luma + 1.4746 * (codes[2] - 512.0) / 896, luma + 1.8814 * (codes[1] - 512.0) / 896
    green = (luma - 0.2627 * red - 0.0593 * blue) / 0.6780
    coded = np.clip(np.stack([red, green, blue], 1), 0, 1)
    light = np.clip(_light(coded, transfer) @ _TO_709.T, 0, 1)
    if transfer == 14:
        expected = light ** (1 / 2.4)
    else:
        expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    difference = np.abs(found - 255 * expected)
    assert difference.max() < 3
    assert difference.mean() < 0.3
