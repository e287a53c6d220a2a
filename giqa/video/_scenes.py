"""Cuts between scenes, found on frames while they are decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from giqa.extras import importing

_SIDE = 128
"""Longer side of the pictures that are compared: content does not change with size."""
_TICKS = 90_000
_RATE = 25.0
_LEAST_S = 0.6


class CutDetector:
    """Finds cuts with PySceneDetect's content detector; one video, one caller at a time.

    Args:
        threshold: difference of neighbouring frames, 0..255, that makes a cut.

    Attributes:
        first_s: time of the first frame in seconds; None before it.
        leaps: times of frames that differ so much from the one before; `settle` makes cuts of them.

    Raises:
        MissingExtraError: PySceneDetect is not installed.
    """

    def __init__(self, threshold: float = 27.0) -> None:
        with importing("PySceneDetect", "video"):
            from av.error import FFmpegError
            from av.video.reformatter import Interpolation, VideoReformatter
            from scenedetect.common import FrameTimecode, Timecode
            from scenedetect.detectors import ContentDetector
        self._errors = FFmpegError, ValueError
        self._timecode: Callable[[int], Any] = lambda ticks: FrameTimecode(
            Timecode(pts=ticks, time_base=Fraction(1, _TICKS)), fps=_RATE
        )
        self._detector: Any = ContentDetector(
            threshold=threshold,
            min_scene_len=0,  # so that a stretch of a video tells what the whole one would
        )
        self._reformatter, self._flags = VideoReformatter(), Interpolation.FAST_BILINEAR
        self._shape: tuple[int, int] | None = None
        self.first_s: float | None = None
        self.leaps: list[float] = []

    def see(self, picture: Any, pts: Fraction) -> None:
        """Look at the next frame.

        Args:
            picture: an `av.VideoFrame`.
            pts: seconds since the video's first frame.
        """
        if self._shape is None:  # kept when the video's changes: shapes must be equal
            scale = min(1.0, _SIDE / max(picture.width, picture.height))
            sides = picture.width, picture.height
            self._shape = max(round(sides[0] * scale), 1), max(round(sides[1] * scale), 1)
        try:
            small = self._reformatter.reformat(
                picture, *self._shape, "bgr24", interpolation=self._flags, threads=1
            )
        except self._errors:
            return  # the frame's own row says so
        ticks = max(round(pts * _TICKS), 0)
        if self._detector.process_frame(self._timecode(ticks), small.to_ndarray()):
            self.leaps.append(float(pts))
        if self.first_s is None:
            self.first_s = float(pts)


def settle(first_s: float, leaps: Sequence[float], end_s: float | None) -> list[float]:
    """Choose the cuts: a scene has at least 0.6 seconds.

    Args:
        first_s: time of the first frame.
        leaps: of `CutDetector`, rising.
        end_s: cuts from here on do not count.

    Returns:
        Times of scenes' first frames, but for the first scene's.
    """
    cuts, last = [], first_s
    for at in leaps:
        if (end_s is None or at < end_s) and at - last >= _LEAST_S - 1 / _TICKS:
            cuts.append(at)
            last = at
    return cuts
