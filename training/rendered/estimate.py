"""How long rendering will take, and how much room, measured on a few groups."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from training.distortions.convert import Pixels
from training.rendered.groups import Plan, group

_SAMPLES = 12  # groups at most


def encode(pixels: Pixels) -> bytes:
    """A picture (H, W, 3) uint8 as PNG; the same bytes every time with one version of Pillow."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def estimate(plan: Plan, out: Path, left: Sequence[int], workers: int) -> str:
    """Render some groups to see how long all take, and how much room.

    Args:
        plan: what from; nothing is written.
        out: where pictures would go.
        left: groups that are to be rendered.
        workers: processes.

    Returns:
        One line; time is that of one process here divided by `workers`.
    """
    parent = next(p for p in (out, *out.resolve().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    count = min(_SAMPLES, 1 + len(left) // 10)
    samples = left[:: max(1, len(left) // count)][:count]
    pictures = size = 0
    began = time.perf_counter()
    for number in samples:
        found = group(plan, number)
        size += sum(len(encode(item.pixels)) for item in found.pictures)
        pictures += len(found.pictures)
    took = time.perf_counter() - began
    scale = len(left) / max(1, len(samples))
    hours, room = took * scale / workers / 3600, size * scale
    short = "" if room < free else "; THAT IS TOO LITTLE"
    return (
        f"{round(pictures * scale)} pictures to render: about {hours:.2f} hours and "
        f"{room / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free{short} (by {pictures} pictures)"
    )
