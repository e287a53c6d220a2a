"""All labels to pictures: in several processes, resumed after an interruption.

A row group of labels is one task, `images/000000/KEY.png`; it is done once `images/000000.json` is
there, which says what failed. A task that was interrupted is done again, to the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image

from giqa import files
from giqa.errors import UsageError
from training import processes
from training.progress import Progress
from training.transfer import labels, manifest
from training.transfer.render import Pixels, render

SCHEMA = "giqa.render/1"
ABOUT = "render.json"
TABLE = "table.csv"

_EACH = 2  # pictures a type that are rendered to estimate time and room


@dataclass(frozen=True)
class Job:
    """What is rendered, and to where.

    Attributes:
        labels: the Parquet file.
        photos: the folder of photographs.
        out: the folder of pictures.
    """

    labels: Path
    photos: Path
    out: Path

    def folder(self, group: int) -> Path:
        """The pictures of a row group."""
        return self.out / "images" / f"{group:06}"

    def report(self, group: int) -> Path:
        """What failed in a finished row group: keys and why."""
        return self.folder(group).with_suffix(".json")


@dataclass(frozen=True)
class Done:
    """What there is after rendering.

    Attributes:
        pictures: how many were rendered, now and before.
        failed: labels whose picture could not be made, as `key: why`.
        table: the table of pictures; None after a dry run.
    """

    pictures: int
    failed: list[str]
    table: Path | None


def render_all(
    folder: Path,
    out: Path,
    *,
    photos: Path | None = None,
    workers: int = 1,
    dry_run: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Done:
    """Render the pictures of a folder of labels; call again to go on after an interruption.

    Args:
        folder: what `run.transfer` wrote.
        out: where pictures and table.csv go; made if it does not exist.
        photos: the folder of photographs; the manifest's unless given.
        workers: processes.
        dry_run: only estimate; nothing is written.
        tell: called with an estimate of time and room before rendering.

    Returns:
        What there is.

    Raises:
        NotFoundError: the folder lacks a file.
        TableInvalidError: labels or manifest cannot be used, or a photograph was changed.
        InputError: a photograph cannot be read.
        UsageError: `out` holds pictures of other labels, a value is out of range, or a worker died.
        StorageFullError: no room; finished groups stay.
    """
    about = manifest.read(folder)
    job = Job(folder / manifest.LABELS, photos or Path(about.photos), out)
    sizes = labels.groups(job.labels)
    left = [group for group in range(len(sizes)) if not job.report(group).is_file()]
    if dry_run:
        if tell is not None:
            tell(estimate(job, left, sizes, workers))
        return Done(0, [], None)
    out.mkdir(parents=True, exist_ok=True)
    _check_about(job, about)
    for half in out.glob("images/**/.*.tmp"):  # of a killed run
        half.unlink(missing_ok=True)
    if tell is not None:
        tell(estimate(job, left, sizes, workers))
    done = sum(sizes) - sum(sizes[group] for group in left)
    with Progress("pictures", sum(sizes), done) as bar:
        for count in _render_groups(job, left, workers):
            bar.update(count)
    return _finish(job, len(sizes))


def _check_about(job: Job, about: manifest.Manifest) -> None:
    """Pictures of two tables, or of two versions, must not lie in one folder."""
    path = job.out / ABOUT
    now = {"schema": SCHEMA, "labels": about.labels, "distortions": manifest.of_distortions()}
    text = f"{json.dumps(now, indent=1)}\n"
    if path.is_file() and path.read_text() != text:
        raise UsageError(
            "holds pictures of other labels or versions",
            item=str(job.out),
            remedy="give another --out",
        )
    files.write(path, text.encode())


def _render_groups(job: Job, left: Sequence[int], workers: int) -> Iterator[int]:
    if workers == 1:
        yield from (write_group(job, group) for group in left)
        return
    context = multiprocessing.get_context("spawn")  # torch and threads do not survive a fork
    with ProcessPoolExecutor(workers, context, processes.begin, (os.getpid(),)) as pool:
        try:
            pending = [pool.submit(write_group, job, group) for group in left]
            for future in as_completed(pending):
                yield future.result()
        except BrokenProcessPool as e:
            raise UsageError(
                "a worker died, maybe for want of memory",
                item="--workers",
                remedy="give fewer and run again; finished groups are kept",
            ) from e
        finally:
            pool.shutdown(cancel_futures=True)


def write_group(job: Job, group: int) -> int:
    """Render a row group. A picture whose PSNR cannot be reached is noted and left out.

    Returns:
        How many labels it has.

    Raises:
        GiqaError: see `render_all`; the group does not count as done.
    """
    found = labels.read_group(job.labels, group)
    folder, failed = job.folder(group), {}
    with files.storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for label in found:
        try:
            picture = encode(render(label, job.photos).pixels)
        except UsageError as e:
            if label.psnr is None:
                raise
            failed[label.key] = str(e)
        else:
            files.write(folder / f"{label.key}.png", picture)
    files.write(job.report(group), json.dumps(failed).encode())
    return len(found)


def encode(pixels: Pixels) -> bytes:
    """A picture (H, W, 3) uint8 as PNG; the same bytes every time with one version of Pillow."""
    file = io.BytesIO()
    # The next slower settings save a few per cent of the space.
    Image.fromarray(pixels).save(file, "PNG", compress_level=3)
    return file.getvalue()


def _finish(job: Job, groups: int) -> Done:
    """Write the table of all pictures. The photograph is their content, which splits must keep."""
    failed: list[str] = []
    count, text = 0, io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "mos", "subset", "reference"))
    for group in range(groups):
        told: dict[str, Any] = json.loads(job.report(group).read_text())
        failed += (f"{key}: {why}" for key, why in told.items())
        folder = job.folder(group).relative_to(job.out).as_posix()
        for one in labels.read_group(job.labels, group):
            if one.key not in told:
                count += 1
                path = f"{folder}/{one.key}.png"
                writer.writerow((path, repr(one.mos), one.type, one.photo))
    files.write(job.out / TABLE, text.getvalue().encode("utf-8", "surrogateescape"))
    return Done(count, failed, job.out / TABLE)


def estimate(job: Job, left: Sequence[int], sizes: Sequence[int], workers: int) -> str:
    """How long rendering will take, and how much room, in one line.

    Two pictures of each type are rendered, of one group in the middle: types differ a hundredfold
    in time.

    Args:
        job: what is rendered; nothing is written.
        left: groups that are to be rendered.
        sizes: how many labels each group has, of all groups.
        workers: processes.
    """
    pictures = sum(sizes[group] for group in left)
    parent = next(p for p in (job.out, *job.out.resolve().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    seconds: dict[str, list[float]] = defaultdict(list)
    size: dict[str, list[int]] = defaultdict(list)
    for label in labels.read_group(job.labels, left[len(left) // 2]) if left else ():
        if len(seconds[label.type]) < _EACH:
            began = time.perf_counter()
            try:
                data = encode(render(label, job.photos).pixels)
            except UsageError:  # told when it is its turn
                data = b""
            seconds[label.type].append(time.perf_counter() - began)
            size[label.type].append(len(data))
    hours = bytes_ = 0.0
    if left:
        hours = pictures * fmean(map(fmean, seconds.values())) / workers / 3600
        bytes_ = pictures * fmean(map(fmean, size.values()))
    short = "" if bytes_ < free else "; THAT IS TOO LITTLE"
    return (
        f"{pictures} pictures to render: about {hours:.2f} hours and {bytes_ / 2**30:.2f} GiB, "
        f"{free / 2**30:.2f} GiB are free{short} (by {sum(map(len, size.values()))} pictures)"
    )
