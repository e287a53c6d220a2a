"""Arrays on disk that are computed once, row by row, and resumed after an interruption.

A cache is a folder: `cache.json` (what the rows were made from, how many are done) and one `.npy`
array a tensor, float16, first axis = row.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from giqa import files
from giqa.errors import StorageFullError
from training.data.samples import Sample
from training.progress import Progress

_META = "cache.json"
_SAVE_EVERY = 64  # batches


def fill(
    folder: Path,
    identity: Mapping[str, object],
    rows: int,
    batch: int,
    compute: Callable[[int, int], Sequence[npt.NDArray[Any]]],
    *,
    what: str,
) -> None:
    """Compute the rows that are missing.

    Args:
        folder: the cache; made if it does not exist.
        identity: what decides the contents, JSON-serialisable.
        rows: how many rows there are.
        batch: rows a call.
        compute: (start, end) to one array a tensor, first axis end - start.
        what: the contents in words, for errors and the progress bar.

    Raises:
        ValueError: the folder holds a cache of something else.
        StorageFullError: no room; what was saved stays, and the next call goes on from there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    meta, done = folder / _META, 0
    if meta.is_file():
        old = json.loads(meta.read_text())
        done, arrays_then = old.pop("done", None), old.pop("arrays", None)
        if None in (done, arrays_then) or old != json.loads(json.dumps(identity)):
            raise ValueError(
                f"{folder} holds {what} of other images or weights, or another command's; "
                "name another folder, or delete it"
            )
    arrays: list[np.memmap[Any, np.dtype[np.float16]]] = []
    with Progress(what, rows, done, unit="rows") as bar:
        for start in range(done, rows, batch):
            end, began = min(start + batch, rows), time.monotonic()
            parts = compute(start, end)
            if not arrays:
                if not done:  # what an interrupted run left before it saved anything
                    _remove(folder)
                    bar.say(_room(folder, what, rows, parts))
                arrays = [
                    _open(folder / f"{i}.npy", (rows, *part.shape[1:]), new=not done)
                    for i, part in enumerate(parts)
                ]
            elif start == done + batch and rows > _SAVE_EVERY * batch:  # the first one compiled
                minutes = (time.monotonic() - began) * (rows - start) / (end - start) / 60
                bar.say(f"{what}: about {minutes:.0f} min")
            for array, part in zip(arrays, parts, strict=True):
                array[start:end] = part
            bar.update(end - start)
            if end == rows or (start // batch) % _SAVE_EVERY == _SAVE_EVERY - 1:
                for array in arrays:
                    array.flush()
                state = {**identity, "arrays": len(arrays), "done": end}
                files.write(meta, json.dumps(state).encode())


def _room(folder: Path, what: str, rows: int, parts: Sequence[npt.NDArray[Any]]) -> str:
    size = sum(2 * rows * part[0].size for part in parts)
    free = shutil.disk_usage(folder).free
    return f"{what}: {rows} rows, {size / 2**30:.2f} GiB of {free / 2**30:.2f} GiB that are free"


def read(folder: Path) -> tuple[list[npt.NDArray[np.float16]], dict[str, Any]]:
    """Map a finished cache.

    Returns:
        Its arrays, memory-mapped, first axis = row, and what they were made from.
    """
    meta = json.loads((folder / _META).read_text())
    paths = [folder / f"{i}.npy" for i in range(meta["arrays"])]
    return [np.load(p, mmap_mode="r") for p in paths], meta


def _remove(folder: Path) -> None:
    for path in folder.glob("*.npy"):
        path.unlink()


def fingerprint(samples: Sequence[Sample]) -> str:
    """Digest of which images these are: names and sizes, in order."""
    names = (f"{s.path.name} {s.path.stat().st_size}" for s in samples)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _open(path: Path, shape: tuple[int, ...], *, new: bool) -> Any:
    """Map a file for writing, with its room on the disk reserved: a full one would kill later."""
    array = np.lib.format.open_memmap(
        path, mode="w+" if new else "r+", dtype=np.float16, shape=shape
    )
    if new:
        try:
            with path.open("r+b") as f:
                os.posix_fallocate(f.fileno(), 0, path.stat().st_size)
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            del array
            size = path.stat().st_size
            _remove(path.parent)
            raise StorageFullError(f"no room for {size / 2**30:.1f} GiB", item=str(path)) from e
    return array
