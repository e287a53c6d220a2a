"""With the default weights: worse videos score lower, and where they are bad is found."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import stats

from benchmarks.demo import photos
from giqa import LocalScorer
from giqa.precision import Precision
from giqa.video import Sampling, read_frames, score_video
from tests.clips import Picture, pan, write


@pytest.fixture(scope="module")
def scorer() -> Iterator[LocalScorer]:
    with LocalScorer() as made:
        yield made


@pytest.fixture(scope="module")
def china() -> Picture:
    return photos()["china"]


def test_scores_fall_with_the_bit_rate(tmp_path: Path, scorer: LocalScorer, china: Picture) -> None:
    rows = []
    for rate in (None, 300_000, 150_000, 100_000, 70_000, 50_000, 30_000):
        quality = {"crf": "1"} if rate is None else {}
        path = tmp_path / f"{rate}.mp4"
        write(path, pan(24, 480, 320, of=china), rate=12, bit_rate=rate, gop=24, **quality)
        found = score_video(path, scorer, sampling=Sampling(every=4), scenes=False)
        assert found.pooled is not None
        rows.append((path.stat().st_size, found.pooled["mean"], found.pooled["p5"]))
    sizes, means, p5s = zip(*rows, strict=True)
    assert sorted(sizes, reverse=True) == list(sizes)
    # What the highest rates keep is hardly seen: lower ones are no point of 100 above the highest.
    assert max(means[1:]) - means[0] < 1
    assert max(p5s[2:]) - p5s[0] < 1
    assert stats.spearmanr(sizes[1:], means[1:]).statistic >= 0.9
    assert stats.spearmanr(sizes[1:], p5s[1:]).statistic >= 0.9


def test_three_bad_seconds_are_found(tmp_path: Path, scorer: LocalScorer, china: Picture) -> None:
    pictures = []
    for i, picture in enumerate(pan(48, 480, 320, of=china)):
        if 20 <= i < 32:  # seconds 5 to 8
            blurred = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(3))
            picture = np.asarray(blurred)
        pictures.append(picture)
    path = write(tmp_path / "clip.mp4", pictures, rate=4, crf="10")
    worst = score_video(path, scorer, window_s=3.0).worst_window
    assert worst is not None
    assert abs(worst.start_s - 5.0) <= 0.5
    assert abs(worst.end_s - 8.0) <= 0.5


@pytest.mark.parametrize("precision", ["f32", "auto"])
def test_frames_score_like_their_pngs(tmp_path: Path, precision: Precision, china: Picture) -> None:
    large = np.asarray(Image.fromarray(china).resize((1280, 854), Image.Resampling.BICUBIC))
    with LocalScorer(precision=precision) as scorer:
        bound = 3.0 if "int8" in scorer.engine else 2.0
        for picture, size in ((china, (480, 320)), (large, (1200, 800))):
            for pixels in ("yuv420p", "yuv444p"):
                clip = pan(2, *size, of=picture)
                path = write(tmp_path / "clip.mp4", clip, pixels=pixels, crf="18")
                found = score_video(path, scorer, scenes=False)
                pngs = []
                with read_frames(path) as frames:
                    for frame in frames:
                        file = io.BytesIO()
                        Image.fromarray(frame.image).save(file, "PNG")
                        pngs.append(file.getvalue())
                for row, result in zip(found.frames, scorer.score(pngs), strict=True):
                    assert row.score == pytest.approx(result.score, abs=bound)
