"""Videos as units of work: cut into stretches of time, scored by `giqa.video`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib import import_module
from typing import Any

from giqa.batch._plan import Scoring
from giqa.batch._read import Spool
from giqa.batch._rows import Row, make_row, raise_if_gone
from giqa.batch._units import Unit
from giqa.errors import GiqaError, MissingExtraError, NoFramesError
from giqa.results import ImageResult
from giqa.scorer import Scorer
from giqa.uris import local_path

_FRAMES = 250
"""Frames that a video is taken to have whose header is not looked at."""

Stretch = dict[str, Any]
"""What is to be known of a stretch beside its rows: `input`, `start_s`, `stream`, `notes`, `leaps`,
`first_s`, `read_to_s`; plain values."""


def cut(unit: Unit, folder: str, scoring: Scoring) -> Iterator[Unit]:
    """Cut a video at keyframes into stretches of `scoring.chunk_s` at least.

    A video in a tar file, in a table or elsewhere is one stretch.

    Args:
        unit: a whole video.
        folder: where relative paths begin.
        scoring: the run's options.

    Yields:
        One unit a stretch; a video that cannot be opened becomes a unit with an error.

    Raises:
        MissingExtraError: what videos need is not installed.
    """
    whole = replace(unit, start_s=scoring.start_s, end_s=scoring.end_s)
    path = local_path(unit.name, folder) if unit.holder is None else None
    if path is None:
        _module()
        yield replace(whole, frames=_FRAMES)
        return
    try:
        parts = _cut(path, scoring)
    except MissingExtraError:
        raise
    except GiqaError as e:
        failed = Unit.failed(unit.input, unit.name, e)
        yield replace(failed, kind="video", kept=unit.kept, stamp=unit.stamp)
        return
    for part in parts:
        mark = None
        if part.mark is not None or part.before:
            at = None if part.mark is None else asdict(part.mark)
            mark = json.dumps({"at": at, "before": part.before})
        frames = max(part.frames, 1)
        yield replace(unit, start_s=part.start_s, end_s=part.end_s, frames=frames, mark=mark)


def score_stretch(
    unit: Unit, spool: Spool, scorer: Scorer, scoring: Scoring
) -> tuple[list[Row], Stretch]:
    """Score a stretch of a video.

    Which frames are chosen does not depend on how a video is cut. A stretch between two chosen
    frames has no row; the first one always has.

    Args:
        unit: the stretch.
        spool: gives its file.
        scorer: what scores the frames.
        scoring: the run's options.

    Returns:
        One row a frame, and one for what ended the video before its time; and what pooling needs.

    Raises:
        ServerError: the server is not there, or refuses all.
        StorageFullError: there is no room for a copy of the video.
    """
    common: dict[str, Any] = {
        "path": unit.name,
        "bundle": scorer.manifest.id,
        "engine": scorer.engine,
        "profile": "fast",
    }
    rows = []
    try:
        if unit.error is not None:
            raise unit.error
        limits = _module().VideoLimits(**scoring.given_limits)
        mark = None
        if unit.mark is not None:
            known = json.loads(unit.mark)
            mark = None if known["at"] is None else _module().Bookmark(**known["at"])
            limits = replace(limits, max_frames=limits.max_frames - known["before"])
        run = _module().VideoRun(
            spool.path(unit),
            scorer,
            name=unit.name,
            sampling=scoring.sampling(unit.start_s, unit.end_s),
            limits=limits,
            mark=mark,
            scenes=scoring.scenes,
        )
        for one in run:
            raise_if_gone(one.error)
            result = ImageResult(score=one.score, error=one.error, **common)
            rows.append(make_row(unit, result, one.frame, one.pts_s))
        found = run.result()
        first_s, leaps = run.leaps
        about = {
            "stream": None if found.info is None else asdict(found.info),
            "notes": list(found.notes),
            "first_s": first_s,
            "leaps": leaps,
            "read_to_s": run.read_to_s,
        }
        error = found.error
    except MissingExtraError:
        raise
    except GiqaError as e:
        raise_if_gone(e)
        if not hasattr(e, "code") or e.code == "storage_full":
            raise
        about, error = {}, e
    raise_if_gone(error)
    if isinstance(error, NoFramesError) and unit.start_s != scoring.start_s:
        error = None
    if error is not None:
        rows.append(make_row(unit, ImageResult(error=error, **common)))
    return rows, {"input": unit.input, "start_s": unit.start_s, **about}


def _cut(path: str, scoring: Scoring) -> list[Any]:
    """The stretches of a video; packets are read only if there may be more than one."""
    video = _module()
    limits = video.VideoLimits(**scoring.given_limits)
    whole = scoring.sampling(scoring.start_s, scoring.end_s)
    with video.read_frames(path, whole, limits=limits) as reader:
        info = reader.info
    length, rate = info.duration_s or 0.0, info.fps or 25.0
    if info.duration_s is None or length > scoring.chunk_s:
        found: list[Any] = video.stretches(path, whole, scoring.chunk_s, limits=limits)
        return found
    rate = rate / scoring.every if scoring.every else min(rate, scoring.fps or rate)
    return [video.Stretch(scoring.start_s, scoring.end_s, round(length * rate), 0, None)]


def _module() -> Any:
    try:
        return import_module("giqa.video")
    except ImportError as e:
        raise MissingExtraError("videos cannot be read", extra="video") from e
