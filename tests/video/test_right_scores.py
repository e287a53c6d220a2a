"""Frames of odd clips score as the same picture does as PNG, however colours are coded."""

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from giqa.local import LocalScorer
from giqa.video import score_video
from tests.makers import save
from tests.oracle import COLOURS, LAYOUTS, MATRICES, coded, signal_of
from tests.oracle import write as lossless
from tests.photos import photo

PICTURE = photo(640, 368, seed=5, noise=2)
GREY = np.asarray(Image.fromarray(PICTURE).convert("L").convert("RGB"))


@pytest.fixture(scope="module")
def scorer() -> LocalScorer:
    with LocalScorer(precision="f32") as one:
        yield one


def png(scorer: LocalScorer, picture: np.ndarray) -> float:
    (found,) = scorer.score([save(Image.fromarray(picture), "PNG")])
    assert found.score is not None
    return found.score


def clip(path: Path, colour: str, sampling: str, bits: int, full: bool) -> Path:
    """A lossless frame of the picture, in colours that are told."""
    matrix, primaries, transfer, _ = COLOURS[colour]
    pixels, ratio = LAYOUTS[sampling]
    picture = PICTURE if ratio else GREY
    planes = coded(signal_of(picture / 255, colour), matrix, ratio or (1, 1), bits, full)
    tags = (MATRICES[matrix][0], primaries, transfer, 2 if full else 1)
    layout = pixels + ("" if bits == 8 else f"{bits}le")
    return lossless(path, planes if ratio else planes[:1], layout, tags)


@pytest.mark.parametrize(
    ("colour", "sampling", "bits", "full"),
    [
        *itertools.product(COLOURS, ("444", "420"), (10,), (False,)),
        ("BT.709", "400", 8, False),
        ("BT.709", "400", 10, False),
        ("BT.2020, HLG", "400", 12, False),
        ("BT.601", "422", 8, True),
        ("BT.2020, PQ", "422", 12, True),
    ],
)
def test_a_frame_scores_as_its_picture(
    tmp_path: Path, scorer: LocalScorer, colour: str, sampling: str, bits: int, full: bool
) -> None:
    path = clip(tmp_path / "a.mkv", colour, sampling, bits, full)
    found = score_video(path, scorer, scenes=False)
    assert found.status == "ok"
    assert ("hdr_mapped" in found.notes) == colour.endswith(("PQ", "HLG"))
    picture = GREY if sampling == "400" else PICTURE
    halved = sampling in ("420", "422")
    assert found.frames[0].score == pytest.approx(png(scorer, picture), abs=2 if halved else 1)


@pytest.mark.parametrize("suffix", ["mov", "apng"])
def test_a_transparent_frame_scores_as_its_picture_over_white(
    tmp_path: Path, scorer: LocalScorer, suffix: str
) -> None:
    alpha = np.full((368, 640), 255, np.uint8)
    alpha[:, :200] = 0
    picture = np.dstack([PICTURE, alpha])
    codec, pixels = ("qtrle", "argb") if suffix == "mov" else ("apng", "rgba")
    with av.open(str(tmp_path / f"a.{suffix}"), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 368, pixels
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(picture, "rgba").reformat(format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = score_video(tmp_path / f"a.{suffix}", scorer, scenes=False)
    assert "alpha_flattened" in found.notes
    white = np.where(alpha[..., None] == 0, 255, PICTURE).astype(np.uint8)
    assert found.frames[0].score == pytest.approx(png(scorer, white), abs=1)
