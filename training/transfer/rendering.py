"""All labels to pictures: in several processes, resumed after an interruption."""

from __future__ import annotations

import csv
import ctypes
import fcntl
import io
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from giqa import files
from giqa.errors import UsageError
from training.transfer import labels, manifest
from training.transfer.estimate import Estimate, estimate
from training.transfer.shards import (
    Encoding,
    Format,
    Job,
    read_part,
    remove_temporary,
    write_group,
)

SCHEMA = "giqa.render/1"
ABOUT = "render.json"
TABLE = "table.csv"

_DEATH_SIGNAL = 1  # <sys/prctl.h>


@dataclass(frozen=True)
class Done:
    """What there is after rendering.

    Attributes:
        pictures: how many were rendered, now and before.
        failed: labels whose picture could not be made, as `key: why`.
        table: the table of pictures; None for shards and after a dry run.
    """

    pictures: int
    failed: list[str]
    table: Path | None


def render_all(
    folder: Path,
    out: Path,
    *,
    photos: Path | None = None,
    format: Format = "images",
    encoding: Encoding = "png",
    workers: int = 1,
    dry_run: bool = False,
    tell: Callable[[Estimate], None] | None = None,
) -> Done:
    """Render the pictures of a folder of labels; call again to go on after an interruption.

    Args:
        folder: what `run.transfer` wrote.
        out: where pictures go; made if it does not exist.
        photos: the folder of photographs; the manifest's unless given.
        format: `images`, files and table.csv; `webdataset`, tar shards.
        encoding: `png` or `webp`, both without loss.
        workers: processes.
        dry_run: only estimate; nothing is written.
        tell: called with the estimate before rendering.

    Returns:
        What there is.

    Raises:
        NotFoundError: the folder lacks a file.
        TableInvalidError: labels or manifest cannot be used, or a photograph was changed.
        InputError: a photograph cannot be read.
        UsageError: `out` holds pictures of other labels or options, another process renders there,
            a value is out of range, or a worker died.
        StorageFullError: no room; finished groups stay.
    """
    about = manifest.read(folder)
    job = Job(folder / manifest.LABELS, photos or Path(about.photos), out, format, encoding)
    sizes = labels.groups(job.labels)
    if dry_run:
        _tell(job, _left(job, sizes), sizes, workers, tell)
        return Done(0, [], None)
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        _check_about(job, about)
        remove_temporary(out)
        left = _left(job, sizes)
        _tell(job, left, sizes, workers, tell)
        with tqdm(
            desc="pictures", total=sum(sizes), initial=sum(sizes) - sum(sizes[g] for g in left),
            disable=None, file=sys.stderr, mininterval=1, leave=False,
        ) as bar:  # fmt: skip
            for count in render_groups(job, left, workers):
                bar.update(count)
        return _finish(job, len(sizes))


def _left(job: Job, sizes: Sequence[int]) -> list[int]:
    return [group for group in range(len(sizes)) if not job.done(group)]


def _tell(
    job: Job,
    left: Sequence[int],
    sizes: Sequence[int],
    workers: int,
    tell: Callable[[Estimate], None] | None,
) -> None:
    if tell is not None:
        tell(estimate(job, left, sizes, workers))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep a second process from writing the same files."""
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise UsageError(
                "another process renders there", item=str(out), remedy="wait for it"
            ) from e
        yield


def _check_about(job: Job, about: manifest.Manifest) -> None:
    """Pictures of two tables, or of two versions, must not lie in one folder."""
    now: dict[str, Any] = {
        "schema": SCHEMA,
        "labels": about.labels,
        "format": job.format,
        "encoding": job.encoding,
        "distortions": manifest.of_distortions(),
    }
    path = job.out / ABOUT
    if path.is_file():
        try:
            then = json.loads(path.read_text())
        except ValueError:
            then = None
        if then != now:
            raise UsageError(
                "holds pictures of other labels, options or versions",
                item=str(job.out),
                remedy="give another --out",
            )
    files.write(path, f"{json.dumps(now, indent=1)}\n".encode())


def render_groups(job: Job, left: Sequence[int], workers: int) -> Iterator[int]:
    """Render groups; yields how many labels each had, as they are finished.

    Raises:
        UsageError: a worker died, or see `write_group`.
    """
    if workers == 1:
        yield from (write_group(job, group) for group in left)
        return
    context = multiprocessing.get_context("spawn")  # torch and threads do not survive a fork
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(os.getpid(),)
    ) as pool:
        pending: list[Future[int]] = [pool.submit(write_group, job, group) for group in left]
        try:
            for future in as_completed(pending):
                yield future.result()
        except BrokenProcessPool as e:
            raise UsageError(
                "a worker died, maybe for want of memory",
                item="--workers",
                remedy="give fewer and run again; finished shards are kept",
            ) from e
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    """Die with the parent, or a worker would go on writing what the next run writes, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends us
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _finish(job: Job, groups: int) -> Done:
    """Write the table of all pictures, and count them. Shards have no table."""
    failed: list[str] = []
    count = 0
    table = None if job.format == "webdataset" else job.out / TABLE
    with ExitStack() as stack:
        if table is None:
            lines = stack.enter_context(open(os.devnull, "w"))
        else:
            raw = stack.enter_context(files.replacing(table))
            lines = io.TextIOWrapper(raw, "utf-8", newline="", write_through=True)
            stack.callback(lines.detach)  # the file is flushed and closed by its owner
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("path", "mos", "subset"))
        for group in range(groups):
            folder = job.shard(group).relative_to(job.out).as_posix()
            for row in read_part(job, group):
                if "error" in row:
                    failed.append(f"{row['key']}: {row['error']}")
                    continue
                count += 1
                writer.writerow((f"{folder}/{row['file']}", repr(row["mos"]), row["type"]))
    return Done(count, failed, table)
