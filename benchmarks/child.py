"""A contender in a process of its own: how long it takes in all, and how much memory.

`python -m benchmarks.child NAME THREADS BATCH COUNT FOLDER [BUNDLE]` scores COUNT images, the
folder's files again and again, and prints one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

from benchmarks.contenders import Setup, opened

_SAMPLES = 40
"""Samples of memory in a run, at most."""
_PASSES = 8
"""A run of so many passes over the files is looked at after each: batches then weigh the same."""


@dataclass(frozen=True)
class Usage:
    """What a process used.

    Attributes:
        seconds: wall time from its start to its end.
        peak_mb: highest resident memory (MiB), which making ready may set.
        samples: images scored and resident memory (MiB) then, in the course of the run.
    """

    seconds: float
    peak_mb: float
    samples: tuple[tuple[int, float], ...]


def usage(name: str, setup: Setup, folder: Path, count: int) -> Usage:
    """Run a contender in a fresh process.

    Args:
        name: see `contenders.opened`.
        setup: how it runs.
        folder: of JPEG files.
        count: how many images to score.

    Returns:
        What it used.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "benchmarks.child", name, str(setup.threads)]
    command += [str(setup.batch), str(count), str(folder)]
    command += [setup.bundle] if setup.bundle else []
    found, seconds = timed(command)
    return Usage(**(json.loads(found.splitlines()[-1]) | {"seconds": seconds}))


def timed(command: Sequence[str]) -> tuple[str, float]:
    """Run a command.

    Returns:
        What it wrote to stdout, and the seconds from its start to its end.

    Raises:
        RuntimeError: its exit code is not 0.
    """
    start = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {ended.returncode}\n{ended.stderr}")
    return ended.stdout, seconds


def main(name: str, threads: str, batch: str, count: str, folder: str, bundle: str = "") -> None:
    """Score and print; arguments as in the command."""
    files = sorted(Path(folder).iterdir())
    setup = Setup(bundle or None, int(threads), int(batch))
    total, done, samples = int(count), 0, []
    step = max(setup.batch, -(-total // _SAMPLES // setup.batch) * setup.batch)
    if total >= _PASSES * len(files):
        step = len(files)
    with opened(name, setup) as score:
        source = cycle(files)
        while done < total:
            # One stream per step: memory has to be flat across them as well.
            images = [path.read_bytes() for path in islice(source, min(step, total - done))]
            done += len(score(images))
            samples.append((done, memory_mb("VmRSS")))
    print(json.dumps(asdict(Usage(0.0, memory_mb("VmHWM"), tuple(samples)))))


def memory_mb(field: str) -> float:
    """A field of /proc/self/status; getrusage's peak would be the parent's, inherited."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main(*sys.argv[1:])
