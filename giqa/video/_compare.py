"""Renditions of one clip beside each other: how much better or worse, and whether that is noise."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from giqa import checks
from giqa.errors import UsageError
from giqa.video._result import VideoResult

COMPARISON_SCHEMA = "giqa.comparison/1"
Verdict = Literal["better", "worse", "within noise"]
_Array = npt.NDArray[np.float64]
_MEMORY_S = 1.0
"""Frames nearer to each other than this are not taken to be independent."""


@dataclass(frozen=True)
class Difference:
    """By how much a rendition scores higher than the first one, over a stretch.

    Attributes:
        start_s: the stretch's beginning, in seconds since the first one's first frame.
        end_s: its end.
        frames: how many frames of the first one have a frame of this one at their time.
        mean: mean difference in points; above 0: better.
        low: lower end of its 95 % interval over frames; None with fewer than two frames.
        high: upper end.
        verdict: see `compare`.
    """

    start_s: float
    end_s: float
    frames: int
    mean: float
    low: float | None
    high: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Rendition:
    """One of several renditions of a clip.

    Attributes:
        result: its scores.
        bit_rate: bits a second, of the whole file; None if unknown.
        whole: its difference from the first one; None for that one itself, and where none of its
            frames is at the time of one of the first.
        scenes: the same for each scene of the first one.
        times: times of the first one's frames that have a frame here.
        differences: of each of them, in points.
    """

    result: VideoResult
    bit_rate: float | None
    whole: Difference | None
    scenes: tuple[Difference, ...]
    times: tuple[float, ...]
    differences: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """The rendition as JSON writers give it."""
        return {
            "path": self.result.path,
            "bit_rate": self.bit_rate,
            "mean": None if self.result.pooled is None else self.result.pooled["mean"],
            "difference": None if self.whole is None else asdict(self.whole),
            "scenes": [asdict(scene) for scene in self.scenes],
        }


@dataclass(frozen=True)
class Comparison:
    """Renditions of one clip beside each other.

    Attributes:
        renditions: the first is what the others are compared with.
        margin: differences smaller than this are noise, whatever their interval.
    """

    renditions: tuple[Rendition, ...]
    margin: float

    @property
    def ladder(self) -> list[tuple[float, float]]:
        """Bits a second and mean score of each rendition that has both, by bit rate."""
        found = [
            (r.bit_rate, r.result.pooled["mean"])
            for r in self.renditions
            if r.bit_rate and r.result.pooled is not None
        ]
        return sorted(found)

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON writers give it; videos stand in it as `giqa video --json` has."""
        first = self.renditions[0].result
        return {
            "schema": COMPARISON_SCHEMA,
            "bundle": first.bundle,
            "engine": first.engine,
            "margin": self.margin,
            "renditions": [r.to_json() for r in self.renditions],
            "ladder": [{"bit_rate": rate, "mean": mean} for rate, mean in self.ladder],
            "videos": [r.result.to_json() for r in self.renditions],
        }


def compare(results: Sequence[VideoResult], *, margin: float = 0.5) -> Comparison:
    """Compare renditions of one clip with the first of them.

    Frames are matched by time: each frame of the first one with the nearest of the other, at most
    half a frame away. The interval says how far the mean could be off if other frames of the same
    kind had been scored; neighbours are not taken to be independent. The verdict is `within noise`
    where the interval has 0 in it or the mean is smaller than `margin`.

    Args:
        results: all scored with the same bundle and sampling.
        margin: least difference in points that counts.

    Returns:
        The comparison.

    Raises:
        UsageError: fewer than two, scored with different bundles or engines, or a margin below 0.
    """
    checks.instance("results", results, list, tuple)
    for result in results:
        checks.instance("results", result, VideoResult)
    if len(results) < 2:
        raise UsageError("a comparison needs two videos or more")
    if len({(result.bundle, result.engine) for result in results}) > 1:
        raise UsageError("scores of different bundles or engines cannot be compared")
    if not 0 <= margin < math.inf:
        raise UsageError(f"margin {margin} is no difference of scores")
    first = results[0]
    found = [Rendition(first, _bit_rate(first), None, (), (), ())]
    found += [_rendition(first, other, margin) for other in results[1:]]
    return Comparison(tuple(found), margin)


def _rendition(first: VideoResult, other: VideoResult, margin: float) -> Rendition:
    times, differences = _align(first, other)
    whole, scenes = None, []
    if times.size:
        end = first.scenes[-1].end_s if first.scenes else float(times[-1])
        whole = _difference(times, differences, float(times[0]), end, margin)
        for i, scene in enumerate(first.scenes):
            last = i + 1 == len(first.scenes)
            inside = (times >= scene.start_s) & ((times < scene.end_s) | last)
            if inside.any():
                part = times[inside], differences[inside]
                scenes.append(_difference(*part, scene.start_s, scene.end_s, margin))
    return Rendition(
        other,
        _bit_rate(other),
        whole,
        tuple(scenes),
        tuple(times.tolist()),
        tuple(differences.tolist()),
    )


def _scored(result: VideoResult) -> tuple[_Array, _Array]:
    rows = [(row.pts_s, row.score) for row in result.frames if row.score is not None]
    pairs = np.array(sorted(rows), np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _align(first: VideoResult, other: VideoResult) -> tuple[_Array, _Array]:
    """Times of the first one's frames that have a partner, and how much higher that scores."""
    (times, scores), (others, theirs) = _scored(first), _scored(other)
    if not times.size or not others.size:
        return np.empty(0), np.empty(0)
    steps = [np.median(np.diff(t)) for t in (times, others) if len(t) > 1]
    room = 0.5 * max(steps) + 1e-6 if steps else 0.02
    right = np.clip(np.searchsorted(others, times), 0, len(others) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(others[left] - times) <= np.abs(others[right] - times), left, right)
    there = np.abs(others[nearest] - times) <= room
    return times[there], theirs[nearest[there]] - scores[there]


def _difference(
    times: _Array, values: _Array, start_s: float, end_s: float, margin: float
) -> Difference:
    mean = float(values.mean())
    half = _half_width(times, values)
    low, high = (None, None) if half is None else (mean - half, mean + half)
    verdict: Verdict = "within noise"
    if low is not None and high is not None and abs(mean) >= margin and not low <= 0 <= high:
        verdict = "better" if mean > 0 else "worse"
    return Difference(start_s, end_s, len(values), mean, low, high, verdict)


def _half_width(times: _Array, values: _Array) -> float | None:
    """Half of the 95 % interval of the mean of a series whose neighbours are alike."""
    count = len(values)
    if count < 2:
        return None
    rest = values - values.mean()
    spread = float(rest @ rest) / count
    if spread < 1e-18:
        return 0.0
    # Bartlett's weights over one second (Newey and West, 1987): never below 0.
    lags = min(count - 1, round(_MEMORY_S / max(float(np.median(np.diff(times))), 1e-3)))
    shared = [
        2 * (1 - lag / (lags + 1)) * float(rest[lag:] @ rest[:-lag]) / count
        for lag in range(1, lags + 1)
    ]
    variance = max(spread + sum(shared), spread / count)
    free = min(max(count * spread / variance, 2.0), count) - 1
    return _student(free) * math.sqrt(variance / (count - 1))


def _student(free: float) -> float:
    """The two-sided 95 % point of Student's t, within 1 % from two degrees of freedom on."""
    z = 1.959964
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    if free < 1.5:
        return 12.71  # one degree of freedom
    return sum(term / free**i for i, term in enumerate(terms))


def _bit_rate(result: VideoResult) -> float | None:
    length = result.info.duration_s if result.info else None
    try:
        return 8 * os.path.getsize(result.path) / length if length else None
    except OSError:
        return None
