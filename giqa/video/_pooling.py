"""From scores of frames to scores of a video; from rows alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[np.float64]

_POOLS: Mapping[str, Callable[[_Array], Any]] = {
    "mean": np.mean,
    # One is added, as VMAF does: defined where a score is 0.
    "harmonic_mean": lambda x: 1 / np.mean(1 / (x + 1)) - 1,
    "min": np.min,
    "p1": lambda x: np.percentile(x, 1),
    "p5": lambda x: np.percentile(x, 5),
    "p95": lambda x: np.percentile(x, 95),
}
POOLS = tuple(_POOLS)
"""Ways to pool: `mean`, `harmonic_mean`, `min`, and percentiles with linear interpolation."""


@dataclass(frozen=True)
class Window:
    """A stretch of a video.

    Attributes:
        start_s: its first frame's time, in seconds since the video's first frame.
        end_s: its end.
        score: mean score of the frames whose showing begins in it.
    """

    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True)
class Scene:
    """What lies between two cuts.

    Attributes:
        start_s: the first frame's time, in seconds since the video's first frame.
        end_s: the time of the next cut, or of the video's end.
        frames: how many of its frames have a score.
        pooled: as `pool` gives it.
    """

    start_s: float
    end_s: float
    frames: int
    pooled: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The scene as JSON writers give it."""
        return asdict(self)


def pool(scores: Sequence[float] | npt.NDArray[Any]) -> dict[str, float]:
    """Pool the scores of frames; their order does not matter.

    Args:
        scores: each 0 (bad) .. 100 (excellent); at least one.

    Returns:
        By name of `POOLS`, each between the lowest and the highest score.

    Raises:
        ValueError: there are no scores.

    Example:
        >>> pool([0.0, 50.0, 100.0])["mean"]
        50.0
    """
    values = np.sort(np.asarray(scores, np.float64))  # sums are of the same order, always
    if not values.size:
        raise ValueError("nothing to pool")
    low, high = values[0], values[-1]
    return {name: float(np.clip(of(values), low, high)) for name, of in _POOLS.items()}


def worst_window(
    pts_s: Sequence[float] | npt.NDArray[Any],
    scores: Sequence[float] | npt.NDArray[Any],
    length_s: float = 1.0,
    *,
    end_s: float | None = None,
) -> Window:
    """Find the stretch of a given length with the lowest mean score.

    Args:
        pts_s: times of the frames in seconds, in any order.
        scores: their scores.
        length_s: the stretch's length in seconds.
        end_s: when the last frame's showing ends; a typical frame's length after the last unless
            given.

    Returns:
        The earliest of the worst. Only stretches that begin with a frame and are over before
        `end_s` count; a video shorter than `length_s` is one stretch.

    Raises:
        ValueError: there are no scores, or the length is not positive.

    Example:
        >>> worst_window([0, 1, 2, 3], [90, 10, 20, 80], 2.0)
        Window(start_s=1.0, end_s=3.0, score=15.0)
    """
    times, values = np.asarray(pts_s, np.float64), np.asarray(scores, np.float64)
    if not values.size or not length_s > 0:
        raise ValueError("nothing to look at")
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    end = max(times[-1] + step if end_s is None else end_s, times[-1])
    tick = 1e-6  # times are multiples of a tick of which binary numbers know only nearly
    starts = np.flatnonzero(times + length_s <= end + tick)
    if not starts.size:
        return Window(float(times[0]), float(end), float(values.mean()))
    stops = np.searchsorted(times, times[starts] + length_s - tick)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means = (sums[stops] - sums[starts]) / (stops - starts)
    worst = int(np.argmin(np.round(means, 9)))
    start, stop = starts[worst], stops[worst]
    return Window(
        float(times[start]), float(times[start] + length_s), float(values[start:stop].mean())
    )


def pool_scenes(
    pts_s: Sequence[float] | npt.NDArray[Any],
    scores: Sequence[float] | npt.NDArray[Any],
    cuts: Sequence[float],
    end_s: float,
) -> tuple[Scene, ...]:
    """Pool each scene by itself.

    Args:
        pts_s: times of the frames in seconds.
        scores: their scores.
        cuts: times of scenes' first frames, but for the first scene's; rising.
        end_s: the end of the last.

    Returns:
        The scenes that have a score, in order.
    """
    times, values = np.asarray(pts_s, np.float64), np.asarray(scores, np.float64)
    if not times.size:
        return ()
    starts = [min([float(times.min()), *cuts]), *cuts]
    ends = [*cuts, max(end_s, float(times.max()))]
    scenes = []
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        inside = (times >= start) & ((times < end) | (i == len(cuts)))
        if inside.any():
            part = values[inside]
            scenes.append(Scene(start, end, len(part), pool(part)))
    return tuple(scenes)
