"""Groups of pictures: one as it is, and damaged at rising levels.

The types are those of KADID-10k whose mean opinion falls with their level (ranking.toml).
"""

from __future__ import annotations

import io
import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from giqa import files
from training.data.samples import Sample
from training.distortions import ranked
from training.distortions.types import distort
from training.progress import Progress

LEVELS = (0, 1, 3, 5)
"""Of the pictures of a group, from the best on; 0 is the picture as it is."""

_ABOUT = "pictures.json"
_ALONE = 16  # pictures that are rendered sooner than processes start


class _Job(NamedTuple):
    source: Path
    type: str
    level: int
    seed: int
    out: Path


def groups(samples: Sequence[Sample], folder: Path, count: int, threads: int = 1) -> list[Sample]:
    """Choose pictures and damage them, or read what an earlier call made.

    The pictures with the highest scores are taken: damage shows on them. Types take turns.

    Args:
        samples: training images.
        folder: for the damaged pictures, PNG.
        count: how many groups.
        threads: processes that render.

    Returns:
        Without labels, one after the other the levels of each group, see `LEVELS`; `subset` is the
        type.

    Raises:
        FileNotFoundError: a picture is missing.
        StorageFullError: no room; what was written stays, and the next call goes on from there.
        ValueError: the folder holds pictures made from something else.
    """
    best = sorted(range(len(samples)), key=lambda i: (-samples[i].mos, i))[:count]
    types = ranked.names()
    made, jobs = [], []
    for number, index in enumerate(best):
        source, kind = samples[index].path, types[number % len(types)]
        for level in LEVELS:
            path = folder / f"{number:05d}-{kind}-{level}.png" if level else source
            if level:
                jobs.append(_Job(source, kind, level, number, path))
            made.append(Sample(path, float("nan"), kind, source.name, level))
    with files.storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, [samples[i] for i in best])
    missing = [job for job in jobs if not job.out.is_file()]
    if missing:
        _render_all(missing, threads)
    return made


def _claim(folder: Path, samples: Sequence[Sample]) -> None:
    """Say what a folder's pictures are made from, or refuse another's."""
    from training import cache  # torch, which processes that render do without

    about = {"samples": cache.fingerprint(samples), "levels": LEVELS, "types": ranked.names()}
    text = json.dumps(about)
    path = folder / _ABOUT
    if not path.is_file():
        files.write(path, text.encode())
    elif path.read_text() != text:
        raise ValueError(f"{folder} holds pictures made from other images; delete it")


def _render_all(jobs: Sequence[_Job], threads: int) -> None:
    if len(jobs) <= _ALONE:
        for job in jobs:
            _render(job)
        return
    # Spawned: a fork of a process whose threads compute may hang.
    with ProcessPoolExecutor(threads, multiprocessing.get_context("spawn")) as pool:
        done = pool.map(_render, jobs, chunksize=16)
        with Progress("damage", len(jobs), unit="pictures") as bar:
            for _ in done:
                bar.update()


def _render(job: _Job) -> None:
    with Image.open(job.source) as image:
        photo = np.asarray(image.convert("RGB"))
    files.write(job.out, damaged(photo, job.type, job.level, job.seed))


def damaged(photo: npt.NDArray[np.uint8], kind: str | None, level: int, seed: int) -> bytes:
    """A picture of a group as a PNG file.

    Args:
        photo: (H, W, 3) uint8, sRGB.
        kind: type of damage; None: as it is.
        level: 1 to 5.
        seed: of the damage.

    Returns:
        The file.
    """
    worse = photo if kind is None else distort(photo, kind, level=level, seed=seed)
    buffer = io.BytesIO()
    Image.fromarray(worse).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
