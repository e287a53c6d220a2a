"""Odd files of every kind through the real scorer: the score of the same picture as PNG, or a word.

The makers stand in `tests/odd_images.py` and `tests/odd_clips.py`, each with what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from giqa.local import LocalScorer
from giqa.types import Views, ViewScore
from giqa.video import score_video
from tests.makers import pnm, save
from tests.odd_clips import CLIPS, COUNT, PICTURES, RATE, Maker, decoded
from tests.odd_images import (
    AS_GREY,
    AS_RGB,
    GREY,
    HALVES,
    LOSSY,
    NOTES,
    QUANTISED,
    REFUSED,
    RGB,
    quantised,
)


@pytest.fixture(scope="module")
def scorer() -> Iterator[LocalScorer]:
    with LocalScorer(precision="f32") as one:
        yield one


class Remembering:
    """A real scorer of frames that infers equal views once: most clips hold the same pictures.

    Scores depend on nothing but their views (`test_engine.py`).
    """

    def __init__(self, real: LocalScorer) -> None:
        self.real, self.manifest, self.engine = real, real.manifest, real.engine
        self.score = real.score
        self.known: dict[bytes, ViewScore] = {}

    def score_views(self, views: Iterable[Views]) -> Iterator[ViewScore]:
        source = iter(views)
        while chunk := list(islice(source, 8)):
            named = [(sha256(v.global_view.tobytes() + v.local_view.tobytes()), v) for v in chunk]
            new = {k.digest(): v for k, v in named if k.digest() not in self.known}
            self.known.update(zip(new, self.real.score_views(new.values()), strict=True))
            yield from (self.known[key.digest()] for key, _ in named)


@pytest.fixture(scope="module")
def remembering(scorer: LocalScorer) -> Remembering:
    return Remembering(scorer)


def scores(scorer: LocalScorer, pictures: list[npt.NDArray[np.uint8]]) -> list[float]:
    found = scorer.score(save(Image.fromarray(picture), "PNG") for picture in pictures)
    return [one.score for one in found if one.score is not None]


@pytest.mark.parametrize("name", [*AS_RGB, *AS_GREY])
def test_a_picture_is_scored_as_its_png(scorer: LocalScorer, name: str) -> None:
    png = save(Image.fromarray(RGB if name in AS_RGB else GREY), "PNG")
    found, expected = scorer.score([(AS_RGB | AS_GREY)[name](), png])
    assert found.score is not None, found.error
    assert found.score == pytest.approx(expected.score, abs=2 if name.startswith(LOSSY) else 1)
    assert (found.width, found.height) == (192, 144)
    told = {NOTES[name]} if name in NOTES else set()
    assert told == set(found.notes) & {"damaged", "hdr_mapped", "raw_preview"}


@pytest.mark.parametrize("name", [*AS_RGB, *AS_GREY])
def test_boxes_lie_within_the_picture(scorer: LocalScorer, name: str) -> None:
    (found,) = scorer.score([(AS_RGB | AS_GREY)[name]()], profile="precise", quality_map=True)
    assert found.boxes is not None
    assert found.boxes.min() >= 0
    assert found.boxes[:, [0, 2]].max() <= 192
    assert found.boxes[:, [1, 3]].max() <= 144


@pytest.mark.parametrize("white", QUANTISED)
@pytest.mark.parametrize("kind", ["P5", "P6"])
def test_a_pnm_of_any_maxval_is_scored_as_what_is_left(
    scorer: LocalScorer, kind: str, white: int
) -> None:
    values = GREY if kind == "P5" else RGB
    left = save(Image.fromarray(quantised(values, white)), "PNG")
    found, expected = scorer.score([pnm(kind, values, white), left])
    assert found.score == pytest.approx(expected.score, abs=1)


@pytest.mark.parametrize("name", HALVES)
def test_half_a_picture_is_scored_with_a_note(scorer: LocalScorer, name: str) -> None:
    (found,) = scorer.score([HALVES[name]()])
    assert found.score is not None
    assert "damaged" in found.notes


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_named(scorer: LocalScorer, name: str) -> None:
    make, word = REFUSED[name]
    (found,) = scorer.score([make()])
    assert found.error is not None
    assert found.error.code == "unsupported_format"
    assert word in found.error.message
    assert found.error.remedy


@pytest.fixture(scope="module")
def known(
    scorer: LocalScorer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Maker | None], list[float]]:
    """The scores of a whole clip's frames as PNG."""

    @cache
    def of(make: Maker | None) -> list[float]:
        if make is None:
            return scores(scorer, PICTURES)
        return scores(scorer, decoded(make(tmp_path_factory.mktemp("whole"))))

    return of


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_is_scored_as_its_pictures_or_says_why_not(
    scorer: LocalScorer,
    remembering: Any,
    known: Callable[[Maker | None], list[float]],
    name: str,
    tmp_path: Path,
) -> None:
    clip = CLIPS[name]
    found = score_video(clip.file(tmp_path), remembering, scenes=False)
    assert clip.notes <= set(found.notes) <= clip.notes | clip.may
    assert clip.status in (found.status, None)
    if clip.status is None:
        assert found.status == "partial" or found.notes
    assert found.info is not None
    assert (found.info.width, found.info.height) == PICTURES[0].shape[1::-1]
    rows = [row for row in found.frames if row.score is not None]
    assert clip.frames[0] <= len(rows) <= clip.frames[1]
    assert all(row.error for row in found.frames if row.score is None)
    for values in ([row.pts_s for row in found.frames], [row.frame for row in found.frames]):
        assert values == sorted(set(values))
    if clip.shown is None:
        shown = known(clip.of)
    else:
        shown = scores(scorer, [clip.shown(picture) for picture in PICTURES[:4]])
    off = [
        row.score - shown[(clip.first + round((row.pts_s - rows[0].pts_s) * RATE)) % COUNT]
        for row in rows[: clip.sure]
        if row.score is not None and not row.damaged
    ]
    assert np.abs([0, *off]).max() <= clip.within
