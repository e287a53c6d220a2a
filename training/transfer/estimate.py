"""How long rendering will take, and how much room, measured on a few pictures."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from giqa.errors import UsageError
from training.transfer import labels
from training.transfer.render import render
from training.transfer.shards import Job, encode

_EACH = 2  # pictures a type


@dataclass(frozen=True)
class Estimate:
    """What is to be expected.

    Attributes:
        pictures: how many are left to render.
        measured: how many were rendered to know.
        seconds: of time for all that are left.
        size: bytes of all that are left.
        free: bytes that are free where they go.
    """

    pictures: int
    measured: int
    seconds: float
    size: int
    free: int

    def __str__(self) -> str:
        """One line."""
        short = "" if self.size < self.free else "; THAT IS TOO LITTLE"
        return (
            f"{self.pictures} pictures to render: about {_time(self.seconds)} and "
            f"{self.size / 2**30:.2f} GiB, {self.free / 2**30:.2f} GiB are free{short} "
            f"(by {self.measured} pictures)"
        )


def estimate(job: Job, left: Sequence[int], sizes: Sequence[int], workers: int) -> Estimate:
    """Render two pictures of each type, of one group in the middle.

    Types differ a hundredfold in time, so each counts by itself.

    Args:
        job: what is rendered; nothing is written.
        left: groups that are to be rendered.
        sizes: how many labels each group has, of all groups.
        workers: processes.

    Returns:
        The estimate; time is that of one process here divided by `workers`.

    Raises:
        GiqaError: as `shards.write_group`.
    """
    pictures = sum(sizes[group] for group in left)
    parent = next(p for p in (job.out, *job.out.resolve().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    if not left:
        return Estimate(0, 0, 0.0, 0, free)
    seconds: dict[str, list[float]] = defaultdict(list)
    size: dict[str, list[int]] = defaultdict(list)
    group = labels.read_group(job.labels, left[len(left) // 2])
    for label in group:
        if len(seconds[label.type]) >= _EACH:
            continue
        began = time.perf_counter()
        try:
            data = encode(render(label, job.photos).pixels, job.encoding)
        except UsageError:  # a PSNR that cannot be reached
            data = b""
        seconds[label.type].append(time.perf_counter() - began)
        size[label.type].append(len(data))
    counted = sum(map(len, size.values()))
    return Estimate(
        pictures=pictures,
        measured=counted,
        seconds=pictures * fmean(fmean(s) for s in seconds.values()) / workers,
        size=round(pictures * fmean(fmean(s) for s in size.values())),
        free=free,
    )


def _time(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
