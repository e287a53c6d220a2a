"""Writers of videos' results: JSON, CSV, Parquet, subtitles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, Protocol

from giqa.files import whole_file
from giqa.results import Row, Writer, open_writer, utf8
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
    path: Path | IO[bytes], kind: VideoFormat, *, bundle: str, engine: str
) -> Iterator[VideoWriter]:
    """Open a writer of videos; the file appears under its name when it is closed, complete.

    On any way out, an interruption included, what was written so far is finished and kept.

    Args:
        path: the file, or an open binary stream (stdout).
        kind: `json` (one document, `giqa.video/1`), `csv` or `parquet` (a row a frame,
            `giqa.frame/1`).
        bundle: name and version of the weights.
        engine: runtime and precision.

    Yields:
        The writer.

    Raises:
        StorageFullError: no space is left.
        OSError: the file cannot be written.
    """
    if kind != "json":
        with open_writer(path, kind, FRAMES) as rows:
            yield _Rows(rows)
        return
    with whole_file(path) as file:
        writer = _Json(file, bundle, engine)
        try:
            yield writer
        finally:
            writer.close()


def write_srt(path: Path, result: VideoResult) -> None:
    """Write scores as SubRip subtitles: each the mean of at least half a second.

    Args:
        path: the file.
        result: a video.

    Raises:
        StorageFullError: no space is left.
        OSError: the file cannot be written.
    """
    with whole_file(path) as file:
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
