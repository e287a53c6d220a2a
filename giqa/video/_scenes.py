"""Cuts between scenes, found on frames while they are decoded."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from giqa.errors import MissingExtraError

_SIDE = 128
"""Longer side of the pictures that are compared: content does not change with size."""
_TICKS = 90_000
_RATE = 25.0


class CutDetector:
    """Finds cuts with PySceneDetect's content detector; one video, one caller at a time.

    Args:
        threshold: difference of neighbouring frames, 0..255, that makes a cut.
        least_s: shortest scene in seconds.

    Raises:
        MissingExtraError: PySceneDetect is not installed.
    """

    def __init__(self, threshold: float = 27.0, least_s: float = 0.6) -> None:
        try:
            from av.error import FFmpegError
            from av.video.reformatter import Interpolation, VideoReformatter
            from scenedetect.common import FrameTimecode, Timecode
            from scenedetect.detector import FlashFilter
            from scenedetect.detectors import ContentDetector
        except ImportError as e:
            raise MissingExtraError(f"PySceneDetect does not import: {e}", extra="video") from e
        self._errors = FFmpegError, ValueError
        self._timecode: Callable[[int], Any] = lambda ticks: FrameTimecode(
            Timecode(pts=ticks, time_base=Fraction(1, _TICKS)), fps=_RATE
        )
        self._detector: Any = ContentDetector(
            threshold=threshold,
            min_scene_len=float(least_s),
            filter_mode=FlashFilter.Mode.SUPPRESS,  # a cut is told at its own frame
        )
        self._reformatter, self._flags = VideoReformatter(), Interpolation.FAST_BILINEAR
        self._shape: tuple[int, int] | None = None
        self.cuts: list[float] = []

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
            self.cuts.append(float(pts))
