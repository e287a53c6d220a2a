"""Videos as units of work: cut into stretches of time, scored by `giqa.video`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

from giqa.batch._plan import Scoring
from giqa.batch._rows import Row, make_row, raise_if_gone
from giqa.batch._units import Unit
from giqa.errors import GiqaError, MissingExtraError, NoFramesError, UnreadableError
from giqa.results import ImageResult
from giqa.scorer import Scorer
from giqa.uris import local_path


def cut(unit: Unit, folder: str, scoring: Scoring) -> Iterator[Unit]:
    """Cut a video into stretches of `scoring.chunk_s`; the last has no end.

    Args:
        unit: a whole video.
        folder: where relative paths begin.
        scoring: the run's options.

    Yields:
        One unit a stretch; a video that cannot be opened becomes a unit with an error.

    Raises:
        MissingExtraError: what videos need is not installed.
    """
    try:
        length = _duration_s(_path(unit, folder))
    except MissingExtraError:
        raise
    except GiqaError as e:
        yield Unit.failed(unit.input, unit.name, e)
        return
    step, number = scoring.chunk_s, 0
    while (number + 1) * step < length:
        yield replace(unit, start_s=number * step or None, end_s=(number + 1) * step)
        number += 1
    yield replace(unit, start_s=number * step or None)


def score_stretch(unit: Unit, folder: str, scorer: Scorer, scoring: Scoring) -> list[Row]:
    """Score a stretch of a video.

    Which frames are chosen does not depend on how a video is cut. A stretch between two chosen
    frames has no row; the first one always has.

    Args:
        unit: the stretch.
        folder: where relative paths begin.
        scorer: what scores the frames.
        scoring: the run's options.

    Returns:
        One row a frame, and one for what ended the video before its time.

    Raises:
        ServerError: the server is not there, or refuses all.
    """
    video = _module()
    sampling = video.Sampling(
        fps=scoring.fps,
        every=scoring.every,
        keyframes=scoring.keyframes,
        start_s=unit.start_s,
        end_s=unit.end_s,
    )
    common: dict[str, Any] = {
        "path": unit.name,
        "bundle": scorer.manifest.id,
        "engine": scorer.engine,
        "profile": "fast",
    }
    rows = []
    found = video.score_video(_path(unit, folder), scorer, sampling=sampling, scenes=False)
    for one in found.frames:
        raise_if_gone(one.error)
        result = ImageResult(score=one.score, error=one.error, **common)
        rows.append(make_row(unit, result, one.frame, one.pts_s))
    raise_if_gone(error := found.error)
    if isinstance(error, NoFramesError) and unit.start_s is not None:
        error = None
    if error is not None:
        rows.append(make_row(unit, ImageResult(error=error, **common)))
    return rows


def _duration_s(path: str) -> float:
    """The length by its header, in seconds; 0 if unknown: then it is one stretch."""
    video = _module()
    with video.read_frames(path, video.Sampling()) as reader:
        return reader.info.duration_s or 0.0


def _path(unit: Unit, folder: str) -> str:
    path = local_path(unit.name, folder)
    if path is None:
        raise UnreadableError("videos are read from local files only", item=unit.name)
    return path


def _module() -> Any:
    try:
        return import_module("giqa.video")
    except ImportError as e:
        raise MissingExtraError("videos cannot be read", extra="video") from e
