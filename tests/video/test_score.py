"""Scoring a video: every chosen frame has its row, in order, whatever fails on the way."""

import dataclasses
import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from giqa.ahead import ahead
from giqa.errors import (
    DeadlineExceededError,
    GiqaError,
    OverloadedError,
    ServerUnavailableError,
)
from giqa.video import Sampling, VideoRun, pool, score_video
from tests.brightness import Brightness
from tests.clips import pan, write


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clips") / "clip.mp4", pan(40))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of two seconds: dark, bright, middling."""
    shades = itertools.chain.from_iterable([40, 220, 120][i : i + 1] * 20 for i in range(3))
    pictures = [np.full((96, 160, 3), shade, np.uint8) for shade in shades]
    return write(tmp_path_factory.mktemp("films") / "film.mp4", pictures, rate=10)


def test_rows_pools_and_info(clip: Path, brightness: Brightness) -> None:
    seen = []
    found = score_video(
        clip, brightness, on_frame=lambda frame, score, _: seen.append((frame, score))
    )
    assert (found.status, found.error, found.bundle) == ("ok", None, brightness.manifest.id)
    assert [row.frame for row in found.frames] == list(range(40))
    assert found.pooled == pool([row.score for row in found.frames])
    assert found.info is not None
    assert found.info.codec == "h264"
    for (frame, score), row in zip(seen, found.frames, strict=True):
        assert (frame.index, frame.pts_s, score) == (row.frame, row.pts_s, row.score)
        assert frame.image.mean() / 2.55 == pytest.approx(score, abs=0.5)


def test_scenes_and_the_worst_window(film: Path, brightness: Brightness) -> None:
    found = score_video(film, brightness, window_s=2.0)
    assert [(s.start_s, s.end_s, s.frames) for s in found.scenes] == [
        (0.0, 2.0, 20),
        (2.0, 4.0, 20),
        (4.0, 6.0, 20),
    ]
    means = [scene.pooled["mean"] for scene in found.scenes]
    assert means == pytest.approx([40 / 2.55, 220 / 2.55, 120 / 2.55], abs=1)
    assert found.worst_window is not None
    assert (found.worst_window.start_s, found.worst_window.end_s) == (0.0, 2.0)
    # Cuts are found on all frames that are decoded, not only on those that are scored.
    few = score_video(film, brightness, sampling=Sampling(fps=1))
    assert [(s.start_s, s.frames) for s in few.scenes] == [(0.0, 2), (2.0, 2), (4.0, 2)]


def test_time_chunks_put_together_are_one_run(clip: Path, brightness: Brightness) -> None:
    whole = score_video(clip, brightness, sampling=Sampling(fps=8))
    rows = []
    for start, end in ((None, 0.5), (0.5, 1.1), (1.1, None)):
        sampling = Sampling(fps=8, start_s=start, end_s=end)
        rows += score_video(clip, brightness, sampling=sampling).frames
    assert tuple(rows) == whole.frames
    assert pool([row.score for row in rows]) == whole.pooled


@pytest.mark.parametrize("bad", [0, 7, 39])
def test_one_failed_answer_costs_one_row(clip: Path, bad: int) -> None:
    expected = score_video(clip, Brightness()).frames
    late = DeadlineExceededError("late")
    found = score_video(clip, Brightness(lambda n: late if n == bad else None))
    assert found.status == "partial"
    assert found.error is None
    assert found.frames[bad].error is late
    kept = [dataclasses.replace(row) for row in found.frames]
    kept[bad] = expected[bad]
    assert tuple(kept) == expected


def test_a_server_that_is_gone_ends_the_video_and_keeps_rows(clip: Path) -> None:
    gone = ServerUnavailableError("gone")
    found = score_video(clip, Brightness(lambda n: gone if n == 10 else None))
    assert (found.status, found.error) == ("partial", gone)
    assert [row.frame for row in found.frames] == list(range(10))


def test_a_server_that_only_fails_is_not_asked_for_ever(clip: Path) -> None:
    scorer = Brightness(lambda n: OverloadedError("busy"))
    found = score_video(clip, scorer)
    assert (found.status, found.error and found.error.code) == ("error", "overloaded")
    assert scorer.asked == 8
    assert found.pooled is None


def test_an_interruption_leaves_what_was_done(clip: Path, brightness: Brightness) -> None:
    before = threading.active_count()
    run = VideoRun(clip, brightness)
    rows = iter(run)
    taken = [next(rows) for _ in range(5)]
    rows.close()
    found = run.result()
    assert found.status == "partial"
    assert list(found.frames) == taken
    assert found.to_json()["notes"] == ["interrupted"]
    assert threading.active_count() == before


def test_reading_stays_just_ahead_of_scoring(clip: Path, brightness: Brightness) -> None:
    """So memory does not grow with a video's length."""
    run = VideoRun(clip, brightness)
    rows = iter(run)
    next(rows)
    time.sleep(0.5)  # as long as there is room, threads read on
    assert run._reader is not None
    assert run._reader._count <= 1 + 3 + 4 + 16 + 6  # scorer, decoded, ready, in hands
    assert len([*rows]) == 39


def test_ahead_keeps_order_and_is_bounded() -> None:
    pulled = []

    def numbers():
        for i in range(100):
            pulled.append(i)
            yield i

    items = ahead(numbers(), 3)
    assert next(items) == 0
    time.sleep(0.2)
    assert len(pulled) <= 1 + 3 + 1
    assert list(items) == list(range(1, 100))


def test_ahead_hands_on_errors_after_what_came_before() -> None:
    def broken():
        yield 1
        raise GiqaError("x")

    items = ahead(broken(), 2)
    assert next(items) == 1
    with pytest.raises(GiqaError, match="x"):
        next(items)


def test_ahead_stops_when_nobody_listens() -> None:
    closed = threading.Event()

    def endless():
        try:
            yield from itertools.count()
        finally:
            closed.set()

    items = ahead(endless(), 2)
    assert next(items) == 0
    items.close()
    assert closed.is_set()
