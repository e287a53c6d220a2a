"""Results of videos: rows of frames, and what they pool to.

CSV and Parquet have one row a frame (`giqa.frame/1`), and one without `frame` for what ended a
video before its time. JSON has one document for all videos (`giqa.video/1`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from giqa.errors import GiqaError
from giqa.results import Table
from giqa.video._info import StreamInfo
from giqa.video._pooling import Scene, Window, pool, pool_scenes, worst_window
from giqa.video._scenes import settle

if TYPE_CHECKING:
    import pyarrow as pa

VIDEO_SCHEMA = "giqa.video/1"
FRAME_SCHEMA = "giqa.frame/1"

FRAME_COLUMNS = (
    "schema",
    "path",
    "frame",
    "pts_s",
    "score",
    "status",
    "error_code",
    "error_message",
    "bundle",
    "engine",
    "damaged",
)


@dataclass(frozen=True, slots=True)
class FrameRow:
    """The outcome for one frame: a score or a coded error.

    Attributes:
        frame: its number in the video, from 0, in order of presentation.
        pts_s: when its showing begins, in seconds since the video's first frame.
        score: 0 (bad) .. 100 (excellent); None on error.
        error: what went wrong; None if it was scored.
        damaged: whether its decoder says that parts are missing or made up, of it or of one
            before it since the last keyframe, of which its damage is.
    """

    frame: int
    pts_s: float
    score: float | None = None
    error: GiqaError | None = None
    damaged: bool = False

    @property
    def status(self) -> Literal["ok", "error"]:
        """`ok` or `error`."""
        return "ok" if self.error is None else "error"

    def to_json(self) -> dict[str, Any]:
        """The row as JSON writers give it."""
        row: dict[str, Any] = {
            "frame": self.frame,
            "pts_s": self.pts_s,
            "score": self.score,
            "status": self.status,
        }
        if self.damaged:
            row["damaged"] = True
        return row if self.error is None else row | {"error": _error(self.error)}


@dataclass(frozen=True)
class VideoResult:
    """The outcome for one video.

    Attributes:
        path: the video as it was named.
        bundle: name and version of the weights.
        engine: runtime and precision.
        error: what ended it before its time; None if it was read to its end.
        interrupted: whether the caller ended it before its time.
        info: what the video's header says; None if it was not reached.
        frames: one row a chosen frame, in order of presentation.
        pooled: see `giqa.video.pool`; None if no frame has a score.
        worst_window: see `giqa.video.worst_window`; None if no frame has a score.
        scenes: what lies between cuts; empty if they were not asked for.
        notes: `alpha_flattened`, `codec_changed`, `damaged`, `deinterlaced`, `ends_early`,
            `hdr_mapped`, `resolution_changed`, `starts_late`, `timestamps_jumped`.
    """

    path: str
    bundle: str
    engine: str
    error: GiqaError | None = None
    interrupted: bool = False
    info: StreamInfo | None = None
    frames: tuple[FrameRow, ...] = ()
    pooled: dict[str, float] | None = None
    worst_window: Window | None = None
    scenes: tuple[Scene, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def gather(
        cls,
        path: str,
        bundle: str,
        engine: str,
        frames: Sequence[FrameRow],
        *,
        leaps: Sequence[float] = (),
        first_s: float | None = None,
        read_to_s: float | None = None,
        end_s: float | None = None,
        window_s: float = 1.0,
        **about: Any,
    ) -> VideoResult:
        """Pool the rows of a video, or of its stretches put together.

        Args:
            path: the video as it was named.
            bundle: name and version of the weights.
            engine: runtime and precision.
            frames: its rows, in order.
            leaps: where cuts may be, see `CutDetector`.
            first_s: time of the first frame that was looked at for cuts; None: no scenes.
            read_to_s: the video's end as it was read; None if it was not reached.
            end_s: where the chosen range ends.
            window_s: length of the worst window in seconds.
            about: the other attributes.
        """
        scored = [(row.pts_s, row.score) for row in frames if row.score is not None]
        times, scores = [pts_s for pts_s, _ in scored], [score for _, score in scored]
        if scores:
            about["pooled"] = pool(scores)
            about["worst_window"] = worst_window(times, scores, window_s, end_s=read_to_s)
            if first_s is not None:
                cuts = settle(first_s, leaps, end_s)
                about["scenes"] = pool_scenes(times, scores, cuts, read_to_s or times[-1])
        return cls(path, bundle, engine, frames=tuple(frames), **about)

    @property
    def status(self) -> Literal["ok", "partial", "error"]:
        """`ok`: all chosen frames have a score; `partial`: some, or damaged ones; `error`: none."""
        if self.pooled is None:
            return "error"
        whole = self.error is None and not self.interrupted and "damaged" not in self.notes
        return "ok" if whole and all(row.error is None for row in self.frames) else "partial"

    def to_json(self) -> dict[str, Any]:
        """The video as the JSON writer gives it."""
        return {
            "path": self.path,
            "status": self.status,
            "error": None if self.error is None else _error(self.error),
            "stream": None if self.info is None else asdict(self.info),
            "pooled": self.pooled,
            "worst_window": None if self.worst_window is None else asdict(self.worst_window),
            "scenes": [asdict(scene) for scene in self.scenes],
            "notes": [*self.notes, *(["interrupted"] if self.interrupted else [])],
            "frames": [row.to_json() for row in self.frames],
        }

    def rows(self) -> Iterator[FlatRow]:
        """The rows that CSV and Parquet have."""
        for row in self.frames:
            yield FlatRow(self, row, row.error)
        if self.error is not None:
            yield FlatRow(self, None, self.error)


@dataclass(frozen=True)
class FlatRow:
    """A row of CSV or Parquet.

    Attributes:
        video: whose it is.
        frame: which frame's; None for the video's own error.
        error: what went wrong; None if the frame was scored.
    """

    video: VideoResult
    frame: FrameRow | None
    error: GiqaError | None

    def to_json(self) -> dict[str, Any]:
        """The same as `to_flat`."""
        return self.to_flat()

    def to_flat(self) -> dict[str, Any]:
        """The row; keys are `FRAME_COLUMNS`."""
        return {
            "schema": FRAME_SCHEMA,
            "path": self.video.path,
            "frame": None if self.frame is None else self.frame.frame,
            "pts_s": None if self.frame is None else self.frame.pts_s,
            "score": None if self.frame is None else self.frame.score,
            "status": "ok" if self.error is None else "error",
            "error_code": None if self.error is None else self.error.code,
            "error_message": None if self.error is None else self.error.message,
            "bundle": self.video.bundle,
            "engine": self.video.engine,
            "damaged": self.frame is not None and self.frame.damaged,
        }


def frame_schema() -> pa.Schema:
    """The Arrow schema of frame rows."""
    import pyarrow as pa

    kinds: dict[str, Any] = {"frame": pa.int64(), "pts_s": pa.float64(), "score": pa.float32()}
    kinds["damaged"] = pa.bool_()
    required = {"schema", "path", "status", "bundle", "engine", "damaged"}
    return pa.schema(
        [
            pa.field(name, kinds.get(name, pa.string()), nullable=name not in required)
            for name in FRAME_COLUMNS
        ]
    )


FRAMES = Table(FRAME_COLUMNS, frame_schema)


def _error(error: GiqaError) -> dict[str, str]:
    return {"code": error.code, "message": error.message, "remedy": error.remedy}
