"""Cutting a video at keyframes, so that each stretch is read from where it begins."""

from __future__ import annotations

import math
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from giqa import checks
from giqa.errors import GiqaError
from giqa.video._frames import check_reading
from giqa.video._info import VideoLimits
from giqa.video._packets import Packets
from giqa.video._sampling import Sampling
from giqa.video._stream import VideoStream
from giqa.video._timeline import Bookmark


@dataclass(frozen=True)
class Stretch:
    """A part of a video.

    Attributes:
        start_s: where it begins, in seconds; None: at the beginning.
        end_s: where it ends, exclusive; None: at the end.
        frames: how many frames are chosen in it, as far as its packets tell.
        before: how many are chosen before it.
        mark: where reading begins; None: at the file's beginning.
    """

    start_s: float | None
    end_s: float | None
    frames: int
    before: int
    mark: Bookmark | None


def stretches(
    path: str | Path, sampling: Sampling, length_s: float, *, limits: VideoLimits | None = None
) -> list[Stretch]:
    """Cut a video at keyframes; all packets are read once, and none is decoded.

    The frames of all stretches, put together, are those of one run, with their indices and times.
    Each stretch but the only one has a chosen frame. What cannot be cut (no timestamps, or such
    that jump) is one stretch.

    Args:
        path: the file.
        sampling: which frames, of which range.
        length_s: least length of a stretch but the last one, in seconds.
        limits: what is refused; stretches behind `max_frames` are left out.

    Returns:
        The stretches, in order; at least one.

    Raises:
        InputError: the file cannot be opened.
        MissingExtraError: PyAV is not installed.
    """
    limits = limits or VideoLimits()
    frames: list[tuple[Fraction, bool]] = []
    marks: dict[Fraction, Bookmark] = {}
    checks.path("path", path)
    check_reading(sampling, limits)
    with closing(VideoStream(path, limits)) as stream:
        rate = stream.info().fps or 25.0
        # What ends the file before its time is told when its last stretch is scored.
        with suppress(GiqaError):
            frames, marks = Packets(stream).index()
    whole = [Stretch(sampling.start_s, sampling.end_s, len(frames), 0, None)]
    starts: list[tuple[Fraction | None, int]] = [(None, 0)]
    chosen, begin = 0, Fraction(sampling.start_s or 0)
    for i, (at, key) in enumerate(frames):
        following = frames[i + 1][0] if i + 1 < len(frames) else at + 1 / Fraction(rate)
        full = at - begin >= length_s and chosen > starts[-1][1]
        if full and at in marks and sampling.covers(at):
            if chosen > limits.max_frames:
                break
            starts.append((at, chosen))
            begin = at
        chosen += sampling.takes(i, at, following) and (key or not sampling.keyframes)
    if not frames:
        return whole
    if len(starts) > 1 and starts[-1][1] == chosen:
        starts.pop()  # nothing is chosen behind it
    found = []
    for i, (first, before) in enumerate(starts):
        following_start = starts[i + 1] if i + 1 < len(starts) else (None, chosen)
        last = i + 1 == len(starts)
        start = sampling.start_s if first is None else _below(first)
        end = sampling.end_s if last or following_start[0] is None else _below(following_start[0])
        mark = None if first is None else marks[first]
        found.append(Stretch(start, end, following_start[1] - before, before, mark))
    return found


def _below(at: Fraction) -> float:
    """A time as a float that is not after it."""
    found = float(at)
    return math.nextafter(found, 0) if Fraction(found) > at else found
