"""Batch runs in processes of their own, judged by the shards that they leave."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq

_ROOT = Path(__file__).parents[1]
_LOOK_S = 0.05


@dataclass(frozen=True)
class BatchRun:
    """Processes that did a run together.

    Attributes:
        seconds: from their start to the end of the last one.
        rate: rows a second over the second half of the shards: nobody is still starting then.
    """

    seconds: float
    rate: float


@dataclass(frozen=True)
class Memory:
    """A process's resident memory while it worked.

    Attributes:
        peak_mb: the highest.
        slope: MB that it grew by with each 1,000 rows, over the second half of the run.
        rows: how many it wrote.
    """

    peak_mb: float
    slope: float
    rows: int


def run(commands: Sequence[Sequence[str | Path]], folders: Sequence[Path]) -> BatchRun:
    """Do runs at the same time.

    Args:
        commands: arguments of `giqa batch run`, a process each.
        folders: where each writes.

    Returns:
        How fast they were.

    Raises:
        RuntimeError: one of them failed.
    """
    start = time.perf_counter()
    processes = [_start(command) for command in commands]
    said = [process.communicate()[0] for process in processes]
    seconds = time.perf_counter() - start
    for process, words in zip(processes, said, strict=True):
        if process.returncode:
            raise RuntimeError(f"giqa batch run: exit code {process.returncode}: {words[-400:]}")
    return BatchRun(seconds, rate([path for folder in folders for path in _shards(folder)]))


def rate(shards: Sequence[Path]) -> float:
    """Rows a second between the middle shard and the last one, by the time of their files.

    Args:
        shards: Parquet files, three or more.

    Raises:
        ValueError: there are fewer, or all appeared at once.
    """
    ends = sorted((path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in shards)
    middle = (len(ends) - 1) // 2
    if len(ends) < 3 or ends[-1][0] <= ends[middle][0]:
        raise ValueError(f"{len(ends)} shards tell no rate")
    return sum(rows for _, rows in ends[middle + 1 :]) / (ends[-1][0] - ends[middle][0])


def watch(command: Sequence[str | Path], folder: Path) -> Memory:
    """Do a run and look at its memory meanwhile.

    Args:
        command: arguments of `giqa batch run`.
        folder: where it writes.

    Returns:
        What was seen.

    Raises:
        RuntimeError: it failed, or left too few shards to see a slope.
    """
    process = _start(command)
    seen: list[tuple[int, float]] = []
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        time.sleep(_LOOK_S)
        try:
            seen.append((len(_shards(folder)), watched.memory_info().rss / 1e6))
        except psutil.NoSuchProcess:
            break
    words = process.communicate()[0]
    if process.returncode not in (0, 3):  # 3: rows that are errors
        raise RuntimeError(f"giqa batch run: exit code {process.returncode}: {words[-400:]}")
    shards = _shards(folder)
    rows = sum(pq.read_metadata(path).num_rows for path in shards)
    return Memory(max(mb for _, mb in seen), slope(seen, rows / len(shards)), rows)


def slope(seen: Sequence[tuple[int, float]], shard_rows: float) -> float:
    """MB that memory grows by with each 1,000 rows: a line through the second half.

    What is seen when all shards are there is left out: the process frees what it had.

    Args:
        seen: shards that were there, and MB, in order of time.
        shard_rows: rows of a shard.

    Raises:
        RuntimeError: fewer than two shards were seen to appear in the second half.
    """
    last = seen[-1][0]
    half = [(n, mb) for n, mb in seen if last <= 2 * n and n < last]
    counts, mbs = np.array([n for n, _ in half], float), np.array([mb for _, mb in half])
    if len(set(counts)) < 2:
        raise RuntimeError("too few shards to see a slope")
    return float(np.polyfit(counts * shard_rows / 1000, mbs, 1)[0])


def _start(command: Sequence[str | Path]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "giqa", "batch", "run", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
    )


def _shards(folder: Path) -> list[Path]:
    """Shards that are finished; others have a hidden name."""
    return sorted((folder / "shards").glob("[!.]*.parquet"))
