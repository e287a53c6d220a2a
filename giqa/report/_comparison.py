"""The report of a comparison: all curves on one timeline, scenes, and frames side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from giqa import checks
from giqa.errors import GiqaError
from giqa.report._cards import Shot, shot
from giqa.report._charts import timeline
from giqa.report._page import write_page
from giqa.report._pictures import shrink
from giqa.report._video import SCENES, facts
from giqa.video import Comparison, Rendition, Sampling, VideoResult, read_frames

MOMENTS: Final = 6
"""Times at which frames are shown side by side."""
_SLOT_S: Final = 2.0
_LINES: Final = 6
"""Renditions whose curves are told apart; those beyond have the last one's colour."""


@dataclass(frozen=True)
class Step:
    """A rendition on the ladder of bit rates; places in percent.

    Attributes:
        x: by its bit rate, on a logarithmic scale.
        y: by its score, from the top.
        bit_rate: bits a second.
        score: its mean.
    """

    x: float
    y: float
    bit_rate: float
    score: float


def write_comparison(path: str | Path, comparison: Comparison) -> None:
    """Write one HTML file about renditions of a clip.

    Frames are read again from the videos: where a rendition is worst beside the first one, both
    and all others are shown at that time.

    Args:
        path: the HTML file.
        comparison: what to tell.

    Raises:
        MissingExtraError: jinja2 is not installed.
        StorageFullError: no space is left; the old file, if any, is untouched.
        OSError: the file cannot be written.
    """
    checks.instance("comparison", comparison, Comparison)
    path = checks.path("path", path)
    renditions = comparison.renditions
    start, end = _range(comparison)
    curves = [
        timeline([(f.pts_s, f.score) for f in r.result.frames], start, end) for r in renditions
    ]
    first = renditions[0].result
    write_page(
        path,
        "comparison.html",
        comparison=comparison,
        curves=curves,
        lines=[f"line{min(i, _LINES - 1)}" for i in range(len(renditions))],
        names=_names([r.result.path for r in renditions]),
        facts=[facts(r.result) for r in renditions],
        scenes=first.scenes[:SCENES],
        by_scene=[{scene.start_s: scene for scene in r.scenes} for r in renditions],
        moments=[
            (at, [_shot(r.result, at) for r in renditions]) for at in _moments(renditions[1:])
        ],
        steps=_steps(comparison),
        bundle=first.bundle,
        engine=first.engine,
    )


def _range(comparison: Comparison) -> tuple[float, float]:
    times = [f.pts_s for r in comparison.renditions for f in r.result.frames]
    return min(times, default=0.0), max(times, default=1.0)


def _names(paths: list[str]) -> list[str]:
    """Names as short as they may be without being the same."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else paths


def _moments(renditions: tuple[Rendition, ...]) -> list[float]:
    """Times of the largest losses, none near another; with none, of the largest differences."""
    found = [(d, t) for r in renditions for t, d in zip(r.times, r.differences, strict=True)]
    slots: dict[int, float] = {}
    for _, at in sorted(found):
        slots.setdefault(math.floor(at / _SLOT_S), at)
        if len(slots) == MOMENTS:
            break
    return list(slots.values())


def _shot(result: VideoResult, at: float) -> tuple[float | None, Shot]:
    """The scored frame that is nearest to a time, with its score."""
    scored = [(abs(f.pts_s - at), f) for f in result.frames if f.score is not None]
    row = min(scored, key=lambda pair: pair[0])[1]
    try:
        with read_frames(result.path, Sampling(start_s=max(row.pts_s - 1e-6, 0))) as frames:
            picture = Image.fromarray(next(iter(frames)).image)
    except (GiqaError, StopIteration, ValueError):
        return row.score, Shot("", 16, 9)
    return row.score, shot(shrink(picture), picture.size, None)


def _steps(comparison: Comparison) -> list[Step]:
    ladder = comparison.ladder
    if len(ladder) < 2:
        return []
    low, high = math.log(ladder[0][0]), math.log(ladder[-1][0])
    width = high - low or 1.0
    return [
        Step(round(4 + 92 * (math.log(rate) - low) / width, 2), round(100 - mean, 2), rate, mean)
        for rate, mean in ladder
    ]
