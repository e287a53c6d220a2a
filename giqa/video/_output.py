"""Writers of videos' results: JSON, CSV, Parquet, subtitles, scenes, libvmaf's log."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, Protocol

from giqa import checks
from giqa.files import Output, replacing, write
from giqa.results import Row, Writer, open_writer, utf8
from giqa.rows import rows_into
from giqa.video._compare import Difference
from giqa.video._info import StreamInfo
from giqa.video._pooling import POOLS
from giqa.video._result import FRAMES, VIDEO_SCHEMA, FrameRow, VideoResult

VideoFormat = Literal["json", "csv", "parquet"]
VIDEO_FORMATS: tuple[VideoFormat, ...] = ("json", "csv", "parquet")

_CUE_S = 0.5
"""Shortest subtitle in seconds: quicker ones cannot be read."""


class VideoWriter(Protocol):
    """Writes videos one by one."""

    def write(self, result: VideoResult) -> None:
        """Write one video."""
        ...


class _Json:
    def __init__(self, file: IO[bytes], bundle: str, engine: str) -> None:
        self._file, self._any = file, False
        head = {"schema": VIDEO_SCHEMA, "bundle": bundle, "engine": engine}
        file.write(utf8(json.dumps(head)[:-1]) + b', "videos": [')

    def write(self, result: VideoResult) -> None:
        row = json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False)
        self._file.write((b",\n" if self._any else b"\n") + utf8(row))
        self._any = True

    def close(self) -> None:
        self._file.write(b"\n]}\n" if self._any else b"]}\n")


class _Rows:
    def __init__(self, writer: Writer[Row]) -> None:
        self._writer = writer

    def write(self, result: VideoResult) -> None:
        for row in result.rows():
            self._writer.write(row)


@contextmanager
def open_video_writer(
    path: Path | IO[bytes] | Output, kind: VideoFormat, *, bundle: str, engine: str
) -> Iterator[VideoWriter]:
    """Open a writer of videos, see `giqa.rows.rows_into`.

    Args:
        path: the file, an open binary stream (stdout), or what was made of it before.
        kind: `json` (one document, `giqa.video/1`), `csv` or `parquet` (a row a frame,
            `giqa.frame/1`).
        bundle: name and version of the weights.
        engine: runtime and precision.

    Yields:
        The writer.

    Raises:
        StorageFullError: no space is left.
        UnwritableError: the file cannot be written.
    """
    checks.one_of("kind", kind, VIDEO_FORMATS)
    if kind != "json":
        with open_writer(path, kind, FRAMES) as rows:
            yield _Rows(rows)
        return
    output = path if isinstance(path, Output) else Output(path)
    with rows_into(output, lambda file: _Json(file, bundle, engine)) as videos:
        yield videos


def write_srt(path: Path, result: VideoResult) -> None:
    """Write scores as SubRip subtitles: each the mean of at least half a second.

    Args:
        path: the file.
        result: a video.

    Raises:
        StorageFullError: no space is left.
        UnwritableError: the file cannot be written.
    """
    with replacing(path) as file:
        for number, (start, end, score) in enumerate(_cues(result.frames), 1):
            lines = f"{number}\n{_clock(start)} --> {_clock(end)}\n{score:.1f}\n\n"
            file.write(lines.encode())


def _cues(frames: tuple[FrameRow, ...]) -> Iterator[tuple[float, float, float]]:
    rows = [row for row in frames if row.score is not None]
    start, scores = 0.0, list[float]()
    for i, row in enumerate(rows):
        assert row.score is not None
        start = row.pts_s if not scores else start
        scores.append(row.score)
        last = i + 1 == len(rows)
        end = max(row.pts_s, start + _CUE_S) if last else rows[i + 1].pts_s
        if last or end - start >= _CUE_S - 1e-6:
            yield start, end, sum(scores) / len(scores)
            scores = []


def _clock(seconds: float) -> str:
    milliseconds = max(round(seconds * 1000), 0)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02},{rest % 1000:03}"


SCENE_COLUMNS = (
    *("schema", "path", "scene", "start_s", "end_s", "start_timecode", "end_timecode"),
    *("frames", *POOLS, "difference", "low", "high", "verdict"),
)


class SceneWriter:
    """Writes a row a scene as CSV (`giqa.scene/1`): what lies between two cuts, a shot.

    Args:
        file: an open binary file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._line(SCENE_COLUMNS)

    def write(self, result: VideoResult, differences: Sequence[Difference] = ()) -> None:
        """Write a video's scenes.

        Args:
            result: the video.
            differences: of each of its scenes from another rendition's, by their beginning.
        """
        by_start = {one.start_s: one for one in differences}
        for number, scene in enumerate(result.scenes):
            found = by_start.get(scene.start_s)
            codes = [timecode(at, result.info) for at in (scene.start_s, scene.end_s)]
            cells = ["giqa.scene/1", result.path, number, scene.start_s, scene.end_s, *codes]
            cells += [scene.frames, *(scene.pooled[name] for name in POOLS)]
            if found is None:
                cells += [None] * 4
            else:
                cells += [found.mean, found.low, found.high, found.verdict]
            self._line(cells)

    def _line(self, cells: Sequence[object]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        self._file.write(utf8(text.getvalue()))


def write_vmaf(path: Path | IO[bytes], result: VideoResult) -> None:
    """Write scores of frames as libvmaf's JSON log has them, for tools that read that.

    Args:
        path: the file, or an open binary stream.
        result: a video; frames without a score are left out.

    Raises:
        StorageFullError: no space is left.
        OSError: the file cannot be written.
    """
    frames = [
        {"frameNum": row.frame, "metrics": {"giqa": row.score}}
        for row in result.frames
        if row.score is not None
    ]
    scores = [row.score for row in result.frames if row.score is not None]
    pooled = result.pooled or {}
    means = {name: pooled[name] for name in ("mean", "harmonic_mean") if name in pooled}
    ends = {"min": min(scores), "max": max(scores)} if scores else {}
    document = {
        "version": f"{result.bundle} {result.engine}",
        "fps": result.info.fps if result.info else None,
        "frames": frames,
        "pooled_metrics": {"giqa": ends | means},
        "aggregate_metrics": {},
    }
    write(path, json.dumps(document, indent=1).encode() + b"\n")


def timecode(seconds: float, info: StreamInfo | None) -> str:
    """An SMPTE timecode, `01:02:03:04`; drop-frame (`01:02:03;04`) at 29.97 and 59.94.

    Args:
        seconds: since the video's first frame.
        info: says how many frames a second it has; 25 unless known.
    """
    rate = (info.fps if info else None) or 25.0
    base = max(round(rate), 1)
    frame = round(seconds * rate)
    drop = abs(rate - base / 1.001) < 0.005 and base % 30 == 0
    if drop:
        # Two numbers (four at 60) are left out each minute, but for each tenth one.
        out = base // 15
        tens, rest = divmod(frame, base * 600 - 9 * out)
        frame += 9 * out * tens + out * max(0, (rest - out) // (base * 60 - out))
    minutes, left = divmod(frame, base * 60)
    s, f = divmod(left, base)
    return f"{minutes // 60:02}:{minutes % 60:02}:{s:02}{';' if drop else ':'}{f:02}"
