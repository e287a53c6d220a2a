"""The report of videos: scores over time, scenes, the worst frames, facts of the stream."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from giqa.errors import GiqaError
from giqa.report._cards import shot
from giqa.report._charts import histogram, levels, timeline
from giqa.report._page import write_page
from giqa.report._pictures import shrink
from giqa.report._spread import Spread

FRAMES: Final = 12
"""Worst frames of a video."""
PICTURES: Final = 96
"""Worst frames on a page, shared by its videos; each has one at least."""
_LABEL: Final = 2.6
"""Width of a worst frame's number in percent of the widest timeline."""
SCENES: Final = 500
"""Scenes that are drawn and listed; all are counted."""


@dataclass(frozen=True)
class FrameScore:
    """One sampled frame.

    Attributes:
        frame: its index in the stream.
        pts_s: its presentation time in seconds.
        score: 0 (bad) .. 100 (excellent); None if it could not be scored.
    """

    frame: int
    pts_s: float
    score: float | None


@dataclass(frozen=True)
class Span:
    """A stretch of time and its mean score: a scene, or the worst window.

    Attributes:
        start_s: first second.
        end_s: last second.
        score: 0 (bad) .. 100 (excellent); None if nothing in it was scored.
    """

    start_s: float
    end_s: float
    score: float | None


@dataclass(frozen=True)
class WorstFrame:
    """A frame to show.

    Attributes:
        frame: its index in the stream.
        pts_s: its presentation time in seconds.
        score: 0 (bad) .. 100 (excellent).
        thumbnail: 8-bit RGB, small (see `WorstFrames`).
        width: width of the frame in pixels.
        height: height of the frame in pixels.
        quality_map: (grid, grid) float32 over the whole frame; None if the model has no map.
    """

    frame: int
    pts_s: float
    score: float
    thumbnail: Image.Image = field(repr=False, compare=False)
    width: int
    height: int
    quality_map: npt.NDArray[np.float32] | None = field(default=None, repr=False, compare=False)


class Frame(Protocol):
    """A sampled frame, as `giqa.video` hands it out."""

    @property
    def index(self) -> int:
        """Its index in the stream."""
        ...

    @property
    def pts_s(self) -> float:
        """Its presentation time in seconds."""
        ...

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8, RGB, upright; may be made only now."""
        ...


class WorstFrames:
    """Keeps the worst frames of a video while it is scored, as thumbnails: an `on_frame`.

    Neighbours look alike: time is cut into slots, and of each slot only the worst frame counts.
    Memory is bounded by `most` thumbnails.

    Args:
        most: frames to keep, those of the worst slots.
        slot_s: length of a slot in seconds.
    """

    def __init__(self, most: int = FRAMES, slot_s: float = 2.0) -> None:
        self._most, self._slot_s = most, slot_s
        self._kept: list[WorstFrame] = []

    def __call__(
        self, frame: Frame, score: float, quality_map: npt.NDArray[np.float32] | None = None
    ) -> None:
        """Look at a scored frame; its picture is asked for only if it is kept, as a thumbnail.

        Args:
            frame: the frame.
            score: 0 (bad) .. 100 (excellent).
            quality_map: (1, grid, grid) float32, of one view of the whole frame.
        """
        slot = self._slot(frame.pts_s)
        same = [k for k in self._kept if self._slot(k.pts_s) == slot]
        others = [k for k in self._kept if self._slot(k.pts_s) != slot]
        if any(k.score <= score for k in same):
            return
        if len(others) >= self._most and others[-1].score <= score:
            return
        picture = Image.fromarray(frame.image)
        others.append(
            WorstFrame(
                frame=frame.index,
                pts_s=frame.pts_s,
                score=score,
                thumbnail=shrink(picture),
                width=picture.width,
                height=picture.height,
                quality_map=None if quality_map is None else quality_map[0].copy(),
            )
        )
        self._kept = sorted(others, key=lambda k: k.score)[: self._most]

    @property
    def frames(self) -> list[WorstFrame]:
        """What is kept, from the worst."""
        return list(self._kept)

    def _slot(self, pts_s: float) -> int:
        return math.floor(pts_s / self._slot_s)


@dataclass(frozen=True)
class VideoReport:
    """What a page says of one video.

    Attributes:
        path: the video as it was named.
        bundle: name and version of the weights.
        engine: runtime and precision.
        facts: facts of the stream in words (`codec`: `h264`), in the order of the page.
        frames: the sampled frames.
        pooled: `mean`, `harmonic_mean`, `min`, `p5`, ...: the score of the whole, by method.
        scenes: the scenes, in order of time.
        worst_window: the worst stretch; None if there is none.
        worst: frames to show, from the worst.
        error: why it could not be scored, or not to its end; None if nothing went wrong.
    """

    path: str
    bundle: str
    engine: str
    facts: Mapping[str, str] = field(default_factory=dict)
    frames: Sequence[FrameScore] = ()
    pooled: Mapping[str, float] = field(default_factory=dict)
    scenes: Sequence[Span] = ()
    worst_window: Span | None = None
    worst: Sequence[WorstFrame] = ()
    error: GiqaError | None = None


def write_video_report(path: Path, videos: Sequence[VideoReport]) -> None:
    """Write one HTML file about one or several videos.

    A page holds at most 96 pictures (but one of each video at least), so about 4.5 MB, and up to
    100 kB of charts for each video, however long.

    Args:
        path: the HTML file.
        videos: what to tell, in order.

    Raises:
        MissingExtraError: jinja2 is not installed.
        StorageFullError: no space is left; the old file, if any, is untouched.
        OSError: the file cannot be written.
    """
    pictures = max(1, PICTURES // max(1, len(videos)))
    sections = [_section(video, pictures) for video in videos]
    write_page(
        path,
        "videos.html",
        sections=sections,
        bundles=sorted({video.bundle for video in videos}),
        engines=sorted({video.engine for video in videos}),
    )


def _section(video: VideoReport, pictures: int) -> dict[str, Any]:
    spread = Spread()
    for frame in video.frames:
        if frame.score is not None:
            spread.add(frame.score)
    spans = [*video.scenes, *([video.worst_window] if video.worst_window else [])]
    shape = timeline(
        [(frame.pts_s, frame.score) for frame in video.frames],
        min((span.start_s for span in spans), default=0.0),
        max((span.end_s for span in spans), default=0.0),
    )
    worst = [
        {"rank": 1 + i, "frame": w, "shot": shot(w.thumbnail, (w.width, w.height), w.quality_map)}
        for i, w in enumerate(video.worst[:pictures])
    ]
    return {
        "video": video,
        "spread": spread,
        "bars": histogram(spread),
        "timeline": shape,
        "scenes": video.scenes[:SCENES],
        "worst": worst,
        "levels": levels([shape.x(w.pts_s) for w in video.worst[:pictures]], _LABEL),
        "maps": any(card["shot"].map for card in worst),  # type: ignore[attr-defined]
    }
