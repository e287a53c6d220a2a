"""Scoring videos: decoding, resizing and inference at the same time, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

from giqa import checks
from giqa.ahead import ahead
from giqa.errors import GiqaError, ServerFailedError, ServerRefusedError, ServerUnavailableError
from giqa.manifest import Manifest
from giqa.scorer import Scorer
from giqa.types import FloatArray, Views, ViewScore
from giqa.video._frame import Frame
from giqa.video._frames import FrameReader, check_reading, read_frames
from giqa.video._info import VideoLimits
from giqa.video._result import FrameRow, VideoResult
from giqa.video._sampling import Sampling
from giqa.video._scenes import CutDetector
from giqa.video._source import Source, as_file
from giqa.video._timeline import Bookmark

OnFrame = Callable[[Frame, float, FloatArray | None], object]

_DECODED = 4
"""Decoded frames that wait for their views."""
_READY = 16
"""Views that wait for inference: two batches of it."""
_PATIENCE = 8
"""So many failures of a server in a row end a video."""


class VideoRun:
    """Scores one video while it is iterated over; `result` tells of what is done so far.

    Memory is bounded by the frames under way: 4 and those that a decoder holds, twice a batch of
    views, what the scorer reads ahead; and by `limits.max_frames` rows.

    Args:
        path: the video: a file, a URI, an open binary file such as a pipe, or numbered pictures
            (`frames/%06d.png`).
        scorer: what scores its frames.
        name: what it is called in its result; `path` unless given.
        rate: numbered pictures a second.
        mark: where to begin reading, see `read_frames`.
        sampling: which frames; all of them unless given.
        limits: what is refused.
        scenes: find cuts and pool scenes.
        window_s: length of the worst window in seconds.
        on_frame: is called for each scored frame with the frame, its score and its quality map
            ((V, grid, grid) float32 on the score's scale, None without one), in order. The frame
            can be converted there (`Frame.image`); so pictures are kept until they are scored.
    """

    def __init__(
        self,
        path: Source,
        scorer: Scorer,
        *,
        name: str | None = None,
        rate: float = 25.0,
        mark: Bookmark | None = None,
        sampling: Sampling | None = None,
        limits: VideoLimits | None = None,
        scenes: bool = True,
        window_s: float = 1.0,
        on_frame: OnFrame | None = None,
    ) -> None:
        checks.number("rate", rate, 0, above=True)
        checks.number("window_s", window_s, 0, above=True)
        checks.scorer(scorer)
        check_reading(sampling, limits)
        own = str(path) if isinstance(path, str | Path) else "-"
        self._source, self.path = path, own if name is None else name
        self._rate, self._mark = rate, mark
        self._scorer = scorer
        self._sampling, self._limits = sampling, limits
        self._cuts = CutDetector() if scenes else None
        self._window_s = window_s
        self._on_frame = on_frame
        self._reader: FrameReader | None = None
        self._rows: list[FrameRow] = []
        self._error: GiqaError | None = None
        self._done = False

    @property
    def duration_s(self) -> float | None:
        """The video's length by its header, in seconds; None if unknown."""
        return self._reader.info.duration_s if self._reader else None

    def __iter__(self) -> Iterator[FrameRow]:
        """Score.

        Yields:
            A row a chosen frame, in order of presentation.
        """
        try:
            most = self._limits.max_bytes if self._limits else None
            with (
                as_file(self._source, max_bytes=most, rate=self._rate) as file,
                read_frames(
                    file,
                    self._sampling,
                    limits=self._limits,
                    cuts=self._cuts,
                    mark=self._mark,
                ) as self._reader,
            ):
                decoded = ahead(self._reader, _DECODED)
                with closing(ahead(self._prepare(decoded, self._scorer.manifest), _READY)) as ready:
                    for row in self._score(ready):
                        self._rows.append(row)
                        yield row
        except GiqaError as e:
            e.item = self.path
            self._error = e
        self._done = True

    def result(self) -> VideoResult:
        """What is done so far, pooled."""
        reader, cuts = self._reader, self._cuts
        return VideoResult.gather(
            self.path,
            self._scorer.manifest.id,
            self._scorer.engine,
            self._rows,
            leaps=cuts.leaps if cuts else (),
            first_s=cuts.first_s if cuts else None,
            read_to_s=reader.end_s if reader else None,
            end_s=self._sampling.end_s if self._sampling else None,
            window_s=self._window_s,
            error=self._error,
            interrupted=not self._done,
            info=reader.info if reader else None,
            notes=tuple(reader.notes) if reader else (),
        )

    @property
    def leaps(self) -> tuple[float | None, list[float]]:
        """Time of the first frame that was looked at for cuts, and where they may be."""
        return (self._cuts.first_s, self._cuts.leaps) if self._cuts else (None, [])

    @property
    def read_to_s(self) -> float | None:
        """The video's end as it was read, in seconds; None if it was not reached."""
        return self._reader.end_s if self._reader else None

    def _prepare(
        self, frames: Generator[Frame], manifest: Manifest
    ) -> Generator[tuple[Frame, Views | GiqaError]]:
        try:
            for frame in frames:
                views: Views | GiqaError
                try:
                    views = frame.views(manifest)
                except GiqaError as e:
                    views = e
                yield (frame if self._on_frame else frame.without_picture()), views
        finally:
            frames.close()

    def _score(self, ready: Iterator[tuple[Frame, Views | GiqaError]]) -> Iterator[FrameRow]:
        waiting: deque[tuple[Frame, Views | GiqaError]] = deque()
        ended: list[GiqaError] = []

        def views() -> Iterator[Views]:
            try:
                for frame, one in ready:
                    waiting.append((frame, one))
                    if isinstance(one, Views):
                        yield one
            except GiqaError as e:  # not through the scorer: it would drop what it has read
                ended.append(e)

        source = views()
        again: list[Views] = []
        failures = 0
        while True:
            try:
                # A chain leaves `source` open for another try.
                for found in self._scorer.score_views(chain(again, source)):
                    yield from _bad(waiting)
                    frame, _ = waiting.popleft()
                    failures = 0
                    yield self._row(frame, found)
                    yield from _bad(waiting)
                break
            except GiqaError as e:
                # The first that waits is the one that failed; the rest is asked for again.
                failures += 1
                gone = isinstance(e, ServerUnavailableError | ServerRefusedError)
                if gone or failures == _PATIENCE or not waiting:
                    raise
                yield from _bad(waiting)
                frame, _ = waiting.popleft()
                yield FrameRow(frame.index, frame.pts_s, error=e)
                again = [one for _, one in waiting if isinstance(one, Views)]
        yield from _bad(waiting)
        if waiting:
            raise ServerFailedError("fewer answers than frames", item=self.path)
        if ended:
            raise ended[0]

    def _row(self, frame: Frame, found: ViewScore) -> FrameRow:
        if self._on_frame is not None:
            self._on_frame(frame, found.score, found.quality_map)
        return FrameRow(frame.index, frame.pts_s, found.score, damaged=frame.damaged)


def score_video(
    path: Source,
    scorer: Scorer | None = None,
    *,
    sampling: Sampling | None = None,
    limits: VideoLimits | None = None,
    scenes: bool = True,
    window_s: float = 1.0,
    on_frame: OnFrame | None = None,
    rate: float = 25.0,
) -> VideoResult:
    """Score the frames of a video and pool them.

    What is wrong with the video is in the result, with all that could be scored before.

    Args:
        path: the video: a file, a URI, an open binary file such as a pipe, or numbered pictures
            (`frames/%06d.png`).
        scorer: what scores its frames, in process or on a server; a `LocalScorer` for this call
            unless given.
        sampling: which frames; all of them unless given.
        limits: what is refused.
        scenes: find cuts and pool scenes.
        window_s: length of the worst window in seconds.
        on_frame: is called for each scored frame with the frame, its score and its quality map,
            in order; see `VideoRun`.
        rate: numbered pictures a second.

    Returns:
        The result.

    Raises:
        MissingExtraError: PyAV, PySceneDetect or what the scorer needs is not installed.

    Example:
        >>> from giqa.video import Sampling, score_video
        >>> found = score_video("clip.mp4", sampling=Sampling(fps=2))  # doctest: +SKIP
        >>> found.pooled["mean"], found.worst_window  # doctest: +SKIP
    """
    if scorer is None:
        from giqa.local import LocalScorer

        with LocalScorer() as own:
            return score_video(
                path,
                own,
                sampling=sampling,
                limits=limits,
                scenes=scenes,
                window_s=window_s,
                on_frame=on_frame,
                rate=rate,
            )
    run = VideoRun(
        path,
        scorer,
        sampling=sampling,
        limits=limits,
        scenes=scenes,
        window_s=window_s,
        on_frame=on_frame,
        rate=rate,
    )
    for _ in run:
        pass
    return run.result()


def _bad(waiting: deque[tuple[Frame, Views | GiqaError]]) -> Iterator[FrameRow]:
    """Rows of the first frames that wait, as far as they have an error."""
    while waiting and isinstance(error := waiting[0][1], GiqaError):
        frame, _ = waiting.popleft()
        yield FrameRow(frame.index, frame.pts_s, error=error)
