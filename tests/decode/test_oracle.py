"""Pixels beside those of libvips and of FFmpeg's zscale, over the matrix of formats."""

import shutil
from pathlib import Path

import pytest

from tests import oracle

pytest.importorskip("pyvips")
needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg on PATH")


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(group, marks=[needs_ffmpeg, pytest.mark.slow] if group[:3] == "BMP" else ())
        for group in oracle.STILLS
    ],
)
def test_stills_have_the_pixels_of_another_reader(group: str, tmp_path: Path) -> None:
    for one in oracle.stills(group, tmp_path):
        # libvips repeats the chroma of AVIF, where others interpolate it.
        repeated = group.startswith("AVIF") and one.name.endswith(("420", "422"))
        most, mean = (15, 2.0) if repeated else (4 if group.startswith("AVIF") else 1, 0.75)
        assert one.difference.max() <= most, one[:4]
        assert one.difference.mean() <= mean, one[:4]


@needs_ffmpeg
@pytest.mark.parametrize(
    ("colour", "depths"),
    [
        ("BT.2020, HLG", (10,)),
        *(pytest.param(c, oracle.DEPTHS, marks=pytest.mark.slow) for c in oracle.COLOURS),
    ],
)
def test_frames_have_the_pixels_of_zscale(
    colour: str, depths: tuple[int, ...], tmp_path: Path
) -> None:
    for one in oracle.frames(colour, tmp_path, depths):
        halved = one.name[:3] in ("420", "422")
        if one.group.endswith("patches"):
            assert one.difference.max() <= 1, one[:4]
        elif not halved:
            assert one.difference.max() <= 4, one[:4]
        # zscale takes chroma to lie on the left, FFmpeg's own conversion in the middle.
        assert one.difference.mean() <= (1.2 if halved else 0.6), one[:4]
