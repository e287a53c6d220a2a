"""How far two runs over the same inputs are apart: another bundle, another encoder, another day."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from giqa.batch._folder import Folder
from giqa.batch._plan import Plan
from giqa.batch._videos import video_results

_MOST = 20


@dataclass(frozen=True)
class Change:
    """An input whose score changed.

    Attributes:
        path: the input.
        before: its score in the other run.
        after: its score in this one.
    """

    path: str
    before: float
    after: float


@dataclass(frozen=True)
class Drift:
    """How far two runs are apart.

    Attributes:
        both: inputs that have a score in both; a video's is its mean, so that a long one weighs as
            much as an image, and the interval takes no frame for an input.
        only_here: that have one in this run alone.
        only_there: that have one in the other alone.
        mean: mean difference in points; above 0: higher here.
        low: lower end of its 95 % interval over inputs; None with fewer than two.
        high: upper end.
        spread: standard deviation of the differences.
        largest: largest difference, whatever its sign.
        over_one: share of differences over one point.
        ks: largest distance of the two distributions (Kolmogorov and Smirnov), 0..1.
        bundles: the other run's bundle and this one's.
        engines: the other run's engine and this one's.
        changes: those that changed most.
    """

    both: int
    only_here: int
    only_there: int
    mean: float
    low: float | None
    high: float | None
    spread: float
    largest: float
    over_one: float
    ks: float
    bundles: tuple[str, str]
    engines: tuple[str, str]
    changes: tuple[Change, ...]


def drift(out: str | Path, other: str | Path) -> Drift:
    """Compare a run with another one, input by input; they are matched by name.

    Memory grows with the number of rows, by about 200 bytes each.

    Args:
        out: the run's folder.
        other: the folder of the run it is compared with.

    Returns:
        How far they are apart.

    Raises:
        PlanInvalidError: a folder holds no run.
    """
    here, there = Folder(out), Folder(other)
    plans = there.plan(), here.plan()
    before, after = _scores(there, plans[0]), _scores(here, plans[1])
    names = [name for name in after if name in before]
    a = np.array([before[name] for name in names], np.float64)
    b = np.array([after[name] for name in names], np.float64)
    apart = b - a
    low = high = None
    if len(names) > 1:
        half = 1.96 * float(apart.std(ddof=1)) / len(names) ** 0.5
        low, high = float(apart.mean()) - half, float(apart.mean()) + half
    most = np.argsort(-np.abs(apart), kind="stable")[:_MOST]
    return Drift(
        both=len(names),
        only_here=len(after) - len(names),
        only_there=len(before) - len(names),
        mean=float(apart.mean()) if names else 0.0,
        low=low,
        high=high,
        spread=float(apart.std()) if names else 0.0,
        largest=float(np.abs(apart).max()) if names else 0.0,
        over_one=float((np.abs(apart) > 1).mean()) if names else 0.0,
        ks=_distance(np.array([*before.values()]), np.array([*after.values()])),
        bundles=(plans[0].bundle, plans[1].bundle),
        engines=(plans[0].scored_by, plans[1].scored_by),
        changes=tuple(Change(names[i], float(a[i]), float(b[i])) for i in most if apart[i]),
    )


def _scores(folder: Folder, plan: Plan) -> dict[str, float]:
    """Scores by name; one that is there twice counts once."""
    import pyarrow.parquet as pq

    found: dict[str, float] = {}
    for name in sorted(folder.written()):
        table = pq.read_table(
            folder.shards / name, columns=["path", "frame", "score"], partitioning=None
        )
        for path, frame, score in zip(*(c.to_pylist() for c in table.columns), strict=True):
            if score is not None and frame is None:
                found[path] = score
    for _, video in video_results(folder, plan):
        if video.pooled is not None:
            found[video.path] = video.pooled["mean"]
    return found


def _distance(a: np.ndarray, b: np.ndarray) -> float:  # type: ignore[type-arg]
    if not a.size or not b.size:
        return 0.0
    a, b = np.sort(a), np.sort(b)
    every = np.concatenate([a, b])
    shares = [np.searchsorted(x, every, side="right") / len(x) for x in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())
