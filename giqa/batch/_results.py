"""Rows of a run as results again, with their pictures: for reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from giqa.batch._folder import Folder
from giqa.batch._plan import Plan
from giqa.batch._read import Spool, read_items
from giqa.batch._rows import counts
from giqa.batch._units import Unit
from giqa.batch._videos import video_results
from giqa.errors import GiqaError, all_errors
from giqa.inputs import read
from giqa.results import ImageResult

if TYPE_CHECKING:
    from giqa.video import VideoResult


@dataclass(frozen=True)
class RunResult(ImageResult):
    """An image's row, or a video's: its mean score.

    Attributes:
        unit: what it is the outcome of.
        worst_s: when the worst frame of a video's worst window is shown.
    """

    unit: Unit | None = None
    worst_s: float | None = None


class Results:
    """A run's results: images in order, then videos; in memory for one shard.

    Args:
        out: the run's folder.

    Attributes:
        plan: the run's plan.

    Raises:
        PlanInvalidError: there is no plan, or it is damaged.
    """

    def __init__(self, out: str | Path) -> None:
        self._folder = Folder(out)
        self.plan = self._folder.plan()

    def __iter__(self) -> Iterator[RunResult]:
        """List them."""
        return _results(self._folder, self.plan)

    def picture(self, result: ImageResult) -> Image.Image | None:
        """What an input shows, or where a video is worst; None if it cannot be read any more."""
        if not isinstance(result, RunResult) or result.unit is None:
            return None
        try:
            return _picture(result.unit, result.worst_s, self.plan)
        except GiqaError:
            return None


def failures(out: str | Path) -> Iterator[GiqaError]:
    """List the errors of a run in its shards' order; shards without any are not read.

    Args:
        out: the run's folder.

    Yields:
        The error of each row that has one.
    """
    import pyarrow.parquet as pq

    folder = Folder(out)
    columns = ["error_code", "error_message", "path"]
    for name in sorted(folder.written()):
        about = pq.read_metadata(path := folder.shards / name)
        if counts(about.metadata, about.num_rows)[1]:
            for row in pq.read_table(path, columns=columns, partitioning=None).to_pylist():
                if (error := _error(*(row[column] for column in columns))) is not None:
                    yield error


def _results(folder: Folder, plan: Plan) -> Iterator[RunResult]:
    import pyarrow.parquet as pq

    for shard in folder.read_shards(plan):
        units = {unit.input: unit for unit in shard.units if unit.kind == "image"}
        path = folder.shards / shard.name
        if not units or not path.exists():
            continue
        for row in pq.read_table(path, partitioning=None).to_pylist():
            if (unit := units.get(row["input"])) is None:
                continue
            yield RunResult(
                row["path"],
                row["bundle"],
                row["engine"],
                row["profile"],
                score=row["score"],
                error=_error(row["error_code"], row["error_message"], row["path"]),
                width=row["width"],
                height=row["height"],
                notes=tuple(row["notes"]),
                unit=unit,
            )
    for unit, found in video_results(folder, plan):
        pooled, info = found.pooled, found.info
        score = None if pooled is None else pooled["mean"]
        yield RunResult(
            found.path,
            found.bundle,
            found.engine,
            "fast",
            score=score,
            error=found.error if score is None else None,
            width=info.width if info else None,
            height=info.height if info else None,
            notes=("video", *found.notes),
            unit=unit,
            worst_s=_worst(found),
        )


def _worst(video: VideoResult) -> float | None:
    """Time of the worst frame in the worst window."""
    window = video.worst_window
    if window is None:
        return None
    inside = (
        (frame.score, frame.pts_s)
        for frame in video.frames
        if frame.score is not None and window.start_s <= frame.pts_s < window.end_s
    )
    return min(inside, default=(0.0, window.start_s))[1]


def _picture(unit: Unit, worst_s: float | None, plan: Plan) -> Image.Image | None:
    from giqa.decode import decode_picture, probe

    if worst_s is not None:
        return _frame(unit, worst_s, plan)
    limits = plan.scoring.limits
    with closing(read_items([unit], plan.sources.folder, limits)) as items:  # type: ignore[type-var]
        data = read(next(iter(items)), limits)
    return decode_picture(data, probe(data, limits))


def _frame(unit: Unit, at: float, plan: Plan) -> Image.Image | None:
    from giqa.video import Sampling, read_frames

    sampling = Sampling(start_s=max(at - 1e-6, 0))
    with (
        closing(Spool(plan.sources.folder, plan.scoring.max_bytes)) as spool,
        read_frames(spool.path(unit), sampling) as frames,
    ):
        for frame in frames:
            if frame.error is None:
                return Image.fromarray(frame.image)
    return None


def _error(code: str | None, message: str | None, item: str) -> GiqaError | None:
    return None if code is None else all_errors()[code](message or "", item=item)
