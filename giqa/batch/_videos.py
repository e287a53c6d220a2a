"""A row a video: what stretches pool to, exactly as the whole video in one run would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any

from giqa.batch._folder import Folder
from giqa.batch._plan import Plan
from giqa.batch._rows import STRETCHES, Row, flat, text, with_kept
from giqa.batch._units import Unit
from giqa.batch._video import Stretch
from giqa.errors import NoFramesError, all_errors
from giqa.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa

    from giqa.video import VideoResult

VIDEOS = "videos.parquet"
_GROUP = 256


def video_schema(kept: pa.DataType | None = None) -> pa.Schema:
    """The Arrow schema of `videos.parquet`, a row a video (`giqa.video/1`).

    Args:
        kept: the struct of columns that are carried through, if there are any.
    """
    import pyarrow as pa

    from giqa.video import POOLS

    seconds = [pa.field("start_s", pa.float64()), pa.field("end_s", pa.float64())]
    pooled = pa.struct([pa.field(name, pa.float64()) for name in POOLS])
    scene = pa.struct([*seconds, pa.field("frames", pa.int64()), pa.field("pooled", pooled)])
    stream: dict[str, Any] = dict.fromkeys(
        ("container", "codec", "width", "height", "fps", "duration_s", "pixel_format"), pa.string()
    )
    stream |= dict.fromkeys(("width", "height", "rotation"), pa.int32())
    stream |= dict.fromkeys(("fps", "duration_s"), pa.float64()) | {"transfer": pa.string()}
    columns: dict[str, pa.DataType] = {
        "input": pa.int64(),
        **dict.fromkeys(("schema", "path", "status"), pa.string()),
        "score": pa.float64(),
        **dict.fromkeys(("frames", "failed_frames"), pa.int64()),
        **dict.fromkeys(("error_code", "error_message"), pa.string()),
        "pooled": pooled,
        "worst_window": pa.struct([*seconds, pa.field("score", pa.float64())]),
        "scenes": pa.list_(scene),
        "stream": pa.struct([pa.field(name, kind) for name, kind in stream.items()]),
        "notes": pa.list_(pa.string()),
        **dict.fromkeys(("bundle", "engine"), pa.string()),
    }
    return with_kept(pa.schema([pa.field(n, k) for n, k in columns.items()]), kept)


def write_videos(folder: Folder, plan: Plan) -> int:
    """Pool all videos of a run whose shards are there to `videos.parquet`; without videos, to none.

    Returns:
        How many videos there are.

    Raises:
        StorageFullError: no space is left.
    """
    import pyarrow.parquet as pq

    kept, count = folder.kept(), 0
    path = folder.path / VIDEOS
    rows = video_rows(folder, plan)
    if (first := next(rows, None)) is None:
        path.unlink(missing_ok=True)
        return 0
    schema = video_schema(kept)
    with replacing(path) as file, pq.ParquetWriter(file, schema) as writer:
        part = [first]
        for row in rows:
            part.append(row)
            if len(part) == _GROUP:
                writer.write_table(flat(part, schema))
                count, part = count + len(part), []
        if part:
            writer.write_table(flat(part, schema))
    return count + len(part)


def video_rows(folder: Folder, plan: Plan) -> Iterator[Row]:
    """The rows of `videos.parquet`, from shards; videos that lack a shard are left out."""
    for unit, result in video_results(folder, plan):
        yield _row(unit, result)


def video_results(folder: Folder, plan: Plan) -> Iterator[tuple[Unit, VideoResult]]:
    """Pool the videos of a run, one after the other, in memory for one video and one shard.

    Args:
        folder: the run's folder.
        plan: its plan.

    Yields:
        Each video's first unit and its result.
    """
    import pyarrow.parquet as pq

    there = folder.written()
    first: Unit | None = None
    rows: list[Row] = []
    stretches: list[Stretch] = []
    whole = True
    for shard in folder.read_shards(plan):
        if not any(unit.kind == "video" for unit in shard.units):
            continue
        found: dict[int, list[Row]] = {}
        about: dict[int, list[Stretch]] = {}
        if shard.name in there:
            table = pq.read_table(folder.shards / shard.name, partitioning=None)
            for row in table.to_pylist():
                found.setdefault(row["input"], []).append(row)
            for one in json.loads((table.schema.metadata or {}).get(STRETCHES, b"[]")):
                about.setdefault(one["input"], []).append(one)
        for unit in _firsts(shard.units):
            if first is not None and first.input != unit.input:
                if whole:
                    yield first, _pooled(first, rows, stretches, plan)
                first = None
            if first is None:
                first, rows, stretches, whole = unit, [], [], True
            rows += found.get(unit.input, [])
            stretches += about.get(unit.input, [])
            whole = whole and shard.name in there
    if first is not None and whole:
        yield first, _pooled(first, rows, stretches, plan)


def _firsts(units: tuple[Unit, ...]) -> list[Unit]:
    """The first unit of each video."""
    found: dict[int, Unit] = {}
    for unit in units:
        if unit.kind == "video":
            found.setdefault(unit.input, unit)
    return list(found.values())


def _pooled(unit: Unit, rows: list[Row], stretches: list[Stretch], plan: Plan) -> VideoResult:
    video, scoring = import_module("giqa.video"), plan.scoring
    frames, error = [], None
    for row in rows:
        failure = None
        if row["error_code"] is not None:
            failure = all_errors()[row["error_code"]](row["error_message"] or "", item=row["path"])
        if row["frame"] is None:
            error = failure
        else:
            frames.append(video.FrameRow(row["frame"], row["pts_s"], row["score"], failure))
    if not frames and error is None:
        error = NoFramesError("no frame in the chosen range", item=unit.name)
    opened = [one for one in stretches if one.get("stream")]
    notes = dict.fromkeys(note for one in opened for note in one["notes"])
    if len({(one["stream"]["width"], one["stream"]["height"]) for one in opened}) > 1:
        notes.setdefault("resolution_changed")
    found: VideoResult = video.VideoResult.gather(
        unit.name,
        plan.bundle,
        plan.scored_by,
        frames,
        leaps=[at for one in opened for at in one["leaps"]],
        first_s=opened[0]["first_s"] if opened else None,
        read_to_s=opened[-1]["read_to_s"] if opened else None,
        end_s=scoring.end_s,
        window_s=scoring.window_s,
        error=error,
        info=video.StreamInfo(**opened[0]["stream"]) if opened else None,
        notes=tuple(notes),
    )
    return found


def _row(unit: Unit, result: VideoResult) -> Row:
    from giqa.video import VIDEO_SCHEMA

    scored = sum(frame.score is not None for frame in result.frames)
    window, error = result.worst_window, result.error
    return {
        "input": unit.input,
        "schema": VIDEO_SCHEMA,
        "path": text(result.path),
        "status": result.status,
        "score": None if result.pooled is None else result.pooled["mean"],
        "frames": scored,
        "failed_frames": len(result.frames) - scored,
        "error_code": None if error is None else error.code,
        "error_message": None if error is None else text(error.message),
        "pooled": result.pooled,
        "worst_window": None if window is None else asdict(window),
        "scenes": [asdict(scene) for scene in result.scenes],
        "stream": None if result.info is None else asdict(result.info),
        "notes": list(result.notes),
        "bundle": result.bundle,
        "engine": result.engine,
        "kept": unit.kept,
    }
