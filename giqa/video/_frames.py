"""Frames of a video by presentation time."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

from giqa.errors import CorruptError, GiqaError, NoFramesError, TooManyFramesError
from giqa.video._colour import Converter
from giqa.video._frame import Frame
from giqa.video._sampling import Sampling
from giqa.video._scenes import CutDetector
from giqa.video._stream import HDR, VideoLimits, VideoStream
from giqa.video._timeline import Clock, Ranks, from_keyframe

_FIRST = 32
"""Packets among which the first frame is looked for: more than any codec reorders."""


class FrameReader:
    """Iterates over the chosen frames of a video, in order of presentation.

    A damaged frame comes with its error. What ends the video before its time is raised after all
    frames that could be had. See `read_frames`.
    """

    def __init__(
        self,
        path: str | Path,
        sampling: Sampling | None = None,
        *,
        limits: VideoLimits | None = None,
        cuts: CutDetector | None = None,
    ) -> None:
        self._sampling, self._limits = sampling or Sampling(), limits or VideoLimits()
        self._cuts = cuts
        self._stream = VideoStream(path, self._limits)
        self.info = self._stream.info()
        self.notes: list[str] = []
        self.end_s: float | None = None
        self._clock = Clock(self._stream.time_base)
        self._ranks = Ranks()
        self._converter = Converter()
        self._origin = 0
        self._damaged = 0
        self._count = 0
        self._size: tuple[int, int] | None = None
        self._frames = self._read()

    def __iter__(self) -> Iterator[Frame]:
        """Return itself."""
        return self

    def __next__(self) -> Frame:
        """The next frame.

        Raises:
            NoFramesError: there is none in the chosen range.
            TooManyFramesError: there are more than the limit.
            TruncatedError: the file ends before its last frame.
            CorruptError: the file cannot be read further.
        """
        return next(self._frames)

    def __enter__(self) -> Self:
        """Use as a context manager: closes at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._frames.close()
        self._stream.close()

    def _read(self) -> Generator[Frame]:
        count = 0
        failure: list[GiqaError] = []
        try:
            for frame in self._chosen(failure):
                if count == self._limits.max_frames:
                    raise TooManyFramesError(
                        f"more than {count} frames to score",
                        item=self._stream.name,
                        remedy="raise the limit on frames, or choose fewer (--fps, --every)",
                    )
                count += 1
                yield frame
        finally:
            self._stream.close()
        if failure:
            raise failure[0]
        if not count:
            raise NoFramesError("no frame in the chosen range", item=self._stream.name)

    def _chosen(self, failure: list[GiqaError]) -> Iterator[Frame]:
        """Choose: a frame's turn comes when the next one's time is known."""
        held: tuple[Any, int, Fraction] | None = None
        for picture, index, pts in self._shown(failure):
            if held is not None and (frame := self._frame(*held, pts)) is not None:
                yield frame
            held = None
            if picture is None:
                if (frame := self._frame(None, index, pts, pts)) is not None:
                    yield frame
                continue
            if self._sampling.ends_before(pts):
                return
            held = picture, index, pts
        if held is not None:
            picture, _, pts = held
            end = pts + self._length(picture)
            self.end_s = float(end)
            announced = self.info.duration_s or 0.0
            self._note("ends_early", announced - self.end_s > max(1.0, announced / 20))
            if (frame := self._frame(*held, end)) is not None:
                yield frame

    def _frame(self, picture: Any, index: int, pts: Fraction, following: Fraction) -> Frame | None:
        if picture is None:
            error = CorruptError("the frame cannot be decoded", item=self._stream.name)
            if not self._sampling.takes(index, pts, following):
                return None
            return Frame(index, float(pts), self.info, error)
        if not self._sampling.takes(index, pts, following):
            return None
        self._remark(picture)
        return Frame(index, float(pts), self.info, None, picture, self._converter)

    def _shown(self, failure: list[GiqaError]) -> Iterator[tuple[Any, int, Fraction]]:
        """All decoded pictures with index and time; None for a damaged one."""
        for pictures in self._decoded(failure):
            for picture in pictures:
                if self._count == 0:
                    self.info = self._stream.info(picture)
                self._count += 1
                if picture.pts is None:  # a bare stream has no times: count
                    index = self._count - 1
                    pts = index / self._stream.rate
                else:
                    yield from self._lost(picture.pts)
                    index = self._ranks.number(picture.pts)
                    pts = self._seconds(picture.pts)
                # One frame beyond the end: whether it is a cut, the next stretch cannot tell.
                if self._cuts is not None and pts >= (self._sampling.start_s or 0):
                    self._cuts.see(picture, pts)
                yield picture, index, pts
        yield from self._lost(None)

    def _decoded(self, failure: list[GiqaError]) -> Iterator[list[Any]]:
        if self._sampling.keyframes:
            self._stream.video.codec_context.skip_frame = "NONKEY"
        try:
            for packet in self._packets():
                # A packet to be skipped would wait for the thread that decodes the last keyframe.
                if self._sampling.keyframes and not packet.is_keyframe:
                    continue
                pictures = self._stream.decode(packet)
                if pictures is None:
                    # Which frame it was, its time tells later (`_lost`): decoders with several
                    # threads report damage packets after it.
                    self._damaged += 1
                else:
                    yield pictures
        except GiqaError as e:
            failure.append(e)
        yield self._stream.decode(None) or []

    def _packets(self) -> Iterator[Any]:
        packets = self._timed()
        first = next(packets, None)  # now the origin is known
        if first is None:
            return iter(())
        packets = chain([first], packets)
        if not self._sampling.start_s:
            return packets
        start = int(Fraction(self._sampling.start_s) / self._stream.time_base)
        return from_keyframe(packets, self._origin + start, self._ranks.before)

    def _timed(self) -> Iterator[Any]:
        """The packets, on a time that goes on; they are counted on their way."""
        vp8 = self._stream.video.codec_context.name == "vp8"

        def shown(packet: Any) -> bool:
            hidden = vp8 and not memoryview(packet)[0] & 0x10
            return packet.pts is not None and not packet.is_discard and not hidden

        packets = self._clocked()
        first: list[Any] = []
        ended: list[GiqaError] = []
        try:
            first += islice(packets, _FIRST)
        except GiqaError as e:  # what was read before it is good
            ended.append(e)
        self._origin = min((packet.pts for packet in first if shown(packet)), default=0)
        for packet in chain(first, packets):
            if shown(packet):
                self._ranks.add(packet.pts, packet.is_keyframe)
            yield packet
        if ended:
            raise ended[0]

    def _clocked(self) -> Iterator[Any]:
        for packet in self._stream.packets():
            self._clock.set(packet)
            yield packet

    def _lost(self, pts: int | None) -> Iterator[tuple[Any, int, Fraction]]:
        """Frames that were to be shown before `pts`, as many as decoding failed for."""
        for index, missed, key in self._ranks.before(pts):
            if self._damaged and (key or not self._sampling.keyframes):
                self._damaged -= 1
                yield None, index, self._seconds(missed)

    def _seconds(self, pts: int) -> Fraction:
        return (pts - self._origin) * self._stream.time_base

    def _length(self, picture: Any) -> Fraction:
        ticks = picture.duration
        return ticks * self._stream.time_base if ticks else 1 / self._stream.rate

    def _remark(self, picture: Any) -> None:
        size = picture.width, picture.height
        self._note("resolution_changed", self._size not in (None, size))
        self._size = size
        self._note("timestamps_jumped", self._clock.jumped)
        self._note("deinterlaced", picture.interlaced_frame)
        self._note("hdr_mapped", int(picture.color_trc) in HDR)

    def _note(self, note: str, holds: bool) -> None:
        if holds and note not in self.notes:
            self.notes.append(note)


def read_frames(
    path: str | Path,
    sampling: Sampling | None = None,
    *,
    limits: VideoLimits | None = None,
    cuts: CutDetector | None = None,
) -> FrameReader:
    """Read the chosen frames of a video, lazily, in order of presentation.

    Frames are decoded one after the other; what was read is kept by nobody. Times go on where
    timestamps jump back; without timestamps frames are counted at the header's rate.

    A range (`sampling.start_s`) gives the same frames as the whole video would, with the same
    indices and times: the file is read, but not decoded, from its beginning to the last keyframe
    before the range.

    Args:
        path: the file, in any container and codec of PyAV's FFmpeg.
        sampling: which frames; all of them unless given.
        limits: what is refused.
        cuts: is shown every decoded frame of the range, and the one after it.

    Returns:
        An iterator with `info` (`StreamInfo`), `notes` (`resolution_changed`,
        `timestamps_jumped`, `deinterlaced`, `hdr_mapped`, and `ends_early`: long before the end
        that the header announces) and `close`.

    Raises:
        InputError: the file cannot be opened as a video, see `VideoStream`.
        MissingExtraError: PyAV is not installed.

    Example:
        >>> from giqa.video import Sampling, read_frames
        >>> with read_frames("clip.mp4", Sampling(fps=1)) as frames:  # doctest: +SKIP
        ...     for frame in frames:
        ...         print(frame.index, frame.pts_s, frame.image.shape)
    """
    return FrameReader(path, sampling, limits=limits, cuts=cuts)
