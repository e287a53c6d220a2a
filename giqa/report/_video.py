"""The report of videos: scores over time, scenes, the worst frames, facts of the stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from giqa import checks
from giqa.files import Output
from giqa.report._cards import shot
from giqa.report._charts import histogram, levels, timeline
from giqa.report._page import Page, check, write_page
from giqa.report._pictures import shrink
from giqa.report._spread import Spread
from giqa.video import Frame, Scene, VideoResult, Window

FRAMES: Final = 12
"""Worst frames of a video."""
PICTURES: Final = 96
"""Worst frames on a page, shared by its videos; each has one at least."""
_LABEL: Final = 2.6
"""Width of a worst frame's number in percent of the widest timeline."""
SCENES: Final = 500
"""Scenes that are drawn and listed; all are counted."""


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


class WorstFrames:
    """Keeps the worst frames of a video while it is scored, as thumbnails: an `on_frame`.

    Neighbours look alike: time is cut into slots, and of each slot only the worst frame counts.
    Memory is bounded by `most` thumbnails.

    Args:
        most: frames to keep, those of the worst slots.
        slot_s: length of a slot in seconds.
    """

    def __init__(self, most: int = FRAMES, slot_s: float = 2.0) -> None:
        self._most = checks.whole("most", most)
        self._slot_s = checks.number("slot_s", slot_s, 0, above=True)
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


class VideoReport(Page):
    """Gathers videos and writes one HTML file about them.

    A page holds at most 96 pictures (but one of each video at least), so about 4.5 MB, and up to
    100 kB of charts for each video, however long.

    Args:
        path: the HTML file.

    Raises:
        MissingExtraError: jinja2 is not installed.
        UnwritableError: nothing can be written there.
    """

    def __init__(self, path: str | Path) -> None:
        # Said now and not after the work.
        check()
        self._path = checks.path("path", path)
        Output(self._path)
        self._videos: list[tuple[VideoResult, list[WorstFrame]]] = []

    def write(self, result: VideoResult, worst: WorstFrames | None = None) -> None:
        """Take in a video.

        Args:
            result: the video.
            worst: what was its `on_frame`; None: no pictures.
        """
        checks.instance("result", result, VideoResult)
        self._videos.append((result, worst.frames if worst else []))

    @property
    def begun(self) -> bool:
        """There is a video."""
        return bool(self._videos)

    def close(self) -> None:
        """Write the file.

        Raises:
            StorageFullError: no space is left; the old file, if any, is untouched.
            UnwritableError: the file cannot be written.
        """
        pictures = max(1, PICTURES // max(1, len(self._videos)))
        write_page(
            self._path,
            "videos.html",
            sections=[_section(result, worst[:pictures]) for result, worst in self._videos],
            bundles=sorted({result.bundle for result, _ in self._videos}),
            engines=sorted({result.engine for result, _ in self._videos}),
        )


def facts(result: VideoResult) -> dict[str, str]:
    """Facts of a video's stream in words, in the order of the page."""
    found = {}
    if (info := result.info) is not None:
        rate = "-" if info.fps is None else f"{info.fps:.3f}".rstrip("0").rstrip(".")
        found = {
            "container": info.container,
            "codec": info.codec,
            "size": f"{info.width} x {info.height}",
            "frames_a_second": rate,
            "duration": "-" if info.duration_s is None else f"{info.duration_s:.2f} s",
            "pixel_format": info.pixel_format,
            "transfer": info.transfer,
            "rotation": f"{info.rotation} degrees",
        }
    if result.notes:
        found["notes"] = ", ".join(result.notes).replace("_", " ")
    return found


def _section(result: VideoResult, frames: list[WorstFrame]) -> dict[str, Any]:
    spread = Spread()
    for frame in result.frames:
        if frame.score is not None:
            spread.add(frame.score)
    window = result.worst_window
    spans: list[Scene | Window] = [*result.scenes, *([window] if window else [])]
    shape = timeline(
        [(frame.pts_s, frame.score) for frame in result.frames],
        min((span.start_s for span in spans), default=0.0),
        max((span.end_s for span in spans), default=0.0),
    )
    worst = [
        {"rank": 1 + i, "frame": w, "shot": shot(w.thumbnail, (w.width, w.height), w.quality_map)}
        for i, w in enumerate(frames)
    ]
    return {
        "video": result,
        "facts": facts(result),
        "spread": spread,
        "bars": histogram(spread),
        "timeline": shape,
        "scenes": result.scenes[:SCENES],
        "worst": worst,
        "levels": levels([shape.x(w.pts_s) for w in frames], _LABEL),
        "maps": any(card["shot"].map for card in worst),  # type: ignore[attr-defined]
    }
