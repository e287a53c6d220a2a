"""Which frames of a video are scored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from giqa import checks
from giqa.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """Which frames are scored: all of them, unless one of `fps`, `every`, `keyframes` is given.

    A frame is chosen by its own place in the whole video, never by where reading began. So the
    frames of [0, t) and of [t, end), put together, are those of one run.

    Attributes:
        fps: the frames that are on screen at 0, 1/fps, 2/fps, ... seconds, each once.
        every: the frames whose index is a multiple of this.
        keyframes: keyframes alone; the others are not even decoded.
        start_s: only frames shown from here on, in seconds since the video's first frame.
        end_s: only frames whose showing begins before this.

    Raises:
        UsageError: more than one way is chosen, or a number makes no sense.

    Example:
        >>> Sampling(fps=2, end_s=60.0)
        Sampling(fps=2, every=None, keyframes=False, start_s=None, end_s=60.0)
    """

    fps: float | None = None
    every: int | None = None
    keyframes: bool = False
    start_s: float | None = None
    end_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if (self.fps is not None) + (self.every is not None) + self.keyframes > 1:
            raise UsageError("fps, every and keyframes exclude each other")
        if self.fps is not None:
            checks.number("fps", self.fps, 0, above=True)
        if self.every is not None:
            checks.whole("every", self.every)
        for name in ("start_s", "end_s"):
            if (value := getattr(self, name)) is not None and value != math.inf:
                checks.number(name, value)
        start = 0.0 if self.start_s is None else self.start_s
        end = math.inf if self.end_s is None else self.end_s
        if not 0 <= start < end or start == math.inf:  # NaN, too
            raise UsageError(f"{start} s .. {end} s is no range of time", item="start_s, end_s")

    def covers(self, pts: Fraction) -> bool:
        """Whether a time lies in [start_s, end_s).

        Args:
            pts: seconds since the video's first frame.
        """
        return pts >= (self.start_s or 0) and not self.ends_before(pts)

    def ends_before(self, pts: Fraction) -> bool:
        """Whether nothing from this time on is wanted."""
        return self.end_s is not None and pts >= self.end_s

    def takes(self, index: int, pts: Fraction, following: Fraction) -> bool:
        """Whether a frame is chosen.

        Args:
            index: its number in the video, from 0.
            pts: when its showing begins, in seconds since the video's first frame.
            following: when that of the next frame begins.
        """
        if not self.covers(pts):
            return False
        if self.every is not None:
            return index % self.every == 0
        if self.fps is not None:
            rate = Fraction(str(self.fps))  # what was written, not its nearest binary number
            return math.ceil(pts * rate) < following * rate
        return True
