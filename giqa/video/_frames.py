"""Frames of a video by presentation time."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import NoneType
from typing import Any

from giqa import checks, forks
from giqa.closing import Closing
from giqa.decode import HDR
from giqa.errors import CorruptError, GiqaError, NoFramesError, TooManyFramesError
from giqa.forks import Origin
from giqa.video._colour import Converter, has_alpha, is_combed
from giqa.video._frame import Frame
from giqa.video._info import VideoLimits
from giqa.video._packets import Packets
from giqa.video._sampling import Sampling
from giqa.video._scenes import CutDetector
from giqa.video._stream import VideoStream
from giqa.video._timeline import Bookmark

_SILENT = 32
"""Packets without a picture behind which another codec may have begun; fewer at the end."""


class FrameReader(Closing):
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
        mark: Bookmark | None = None,
    ) -> None:
        checks.path("path", path)
        check_reading(sampling, limits)
        self._sampling, self._limits = sampling or Sampling(), limits or VideoLimits()
        self._cuts = cuts
        self._stream = VideoStream(path, self._limits)
        if mark is not None and not self._stream.go_to(mark):
            self._stream.close()
            self._stream, mark = VideoStream(path, self._limits), None
        self._packets = Packets(self._stream, mark)
        self.info = self._stream.info()
        self.notes: list[str] = []
        self.end_s: float | None = None
        self._decode = self._stream.decoder(keyframes=self._sampling.keyframes)
        self._converter = Converter()
        self._latest: int | None = None
        self._damaged = 0
        self._missed = 0
        self._spoilt = False
        self._torn_at: set[int | None] = set()
        # In transport streams, what is whole but glued together counts as corrupt, too.
        self._glued = self._stream.container.format.name == "mpegts"
        self._silent_at: int | None = None
        self._silent = False
        self._count = 0
        self._size: tuple[int, int] | None = None
        self._origin = Origin(self._stream.name, "was opened", "read it anew in the child")
        self._frames = self._read()
        forks.keep(self)

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
            UsageError: it is continued in a forked child.
        """
        self._origin.check()
        return next(self._frames)

    def close(self) -> None:
        """Close the file; in a forked child it does nothing."""
        if self._origin.is_here:
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
            self._decode.close()
            self._stream.close()
        if failure:
            raise failure[0]
        if not count:
            raise NoFramesError("no frame in the chosen range", item=self._stream.name)

    def _chosen(self, failure: list[GiqaError]) -> Iterator[Frame]:
        """Choose: a frame's turn comes when the next one's time is known."""
        held: tuple[Any, int, Fraction] | None = None
        end: Fraction | None = None
        for picture, index, pts in self._shown(failure):
            if held is not None and (frame := self._frame(*held, pts)) is not None:
                yield frame
            held = None
            if picture is None:
                end = pts
                if (frame := self._frame(None, index, pts, pts)) is not None:
                    yield frame
                continue
            if self._sampling.ends_before(pts):
                return
            held = picture, index, pts
        if held is not None:
            picture, _, pts = held
            end = pts + self._length(picture)
            if (frame := self._frame(*held, end)) is not None:
                yield frame
        if end is not None:
            self.end_s = float(end)
            # What a file says of itself is that of its sound, too: it may be longer.
            told = ((self.info.duration_s, 1.0), (self._stream.own_duration_s, 0.2))
            early = any((s or 0) - self.end_s > max(least, (s or 0) / 20) for s, least in told)
            early = early and not self._packets.jumped
            self._note("ends_early", early or self._stream.cut)

    def _frame(self, picture: Any, index: int, pts: Fraction, following: Fraction) -> Frame | None:
        # What is predicted from a damaged picture shows its damage: until the next whole one.
        whole = picture is not None and not self._is_damaged(picture)
        self._spoilt = not whole or (self._spoilt and not picture.key_frame)
        if picture is None:
            error = CorruptError("the frame cannot be decoded", item=self._stream.name)
            if not self._sampling.takes(index, pts, following):
                return None
            return Frame(index, float(pts), self.info, error)
        if not self._sampling.takes(index, pts, following):
            return None
        self._remark(picture)
        return Frame(index, float(pts), self.info, None, self._spoilt, picture, self._converter)

    def _is_damaged(self, picture: Any) -> bool:
        """Whether its decoder or its packet says so."""
        return bool(picture.is_corrupt or picture.pts in self._torn_at)

    def _shown(self, failure: list[GiqaError]) -> Iterator[tuple[Any, int, Fraction]]:
        """All decoded pictures with index and time; None for a damaged one."""
        for picture in self._decoded(failure):
            if picture is None:
                # Which frame it was, its time tells later (`_lost`): what is decoded comes in
                # another order than what is shown.
                self._damaged += 1
                continue
            if self._count == 0:
                self.info = self._stream.info(picture)
            self._count += 1
            stamp = picture.pts
            if stamp is None or (self._latest is not None and stamp <= self._latest):
                # Each frame has its own index and a later time, whatever the file says.
                origin, step = self._packets.origin, self._packets.step
                stamp = origin if self._latest is None else self._latest + step
            yield from self._lost(stamp)
            index, self._latest = self._packets.ranks.number(stamp)
            pts = self._packets.seconds(self._latest)
            # One frame beyond the end: whether it is a cut, the next stretch cannot tell.
            if self._cuts is not None and pts >= (self._sampling.start_s or 0):
                self._cuts.see(picture, pts)
            yield picture, index, pts
        # What a decoder passes over now and then without an error are frames to be dropped; these
        # are too many for that.
        yield from self._lost(None)
        few = 0 if self._packets.torn else max(4, self._count // 20)
        self._note("damaged", self._stream.damaged or self._missed > few)
        if self._silent_at is not None and (self._silent or self._missed > few):
            self._note("codec_changed", self._stream.codec_at(self._silent_at) != self.info.codec)

    def _decoded(self, failure: list[GiqaError]) -> Iterator[Any]:
        silent: list[int] = []
        try:
            packets = self._packets.read(self._sampling.start_s)
            self._note("starts_late", self._packets.late)
            for packet in packets:
                # A packet to be skipped would wait for the thread that decodes the last keyframe.
                if not self._sampling.keyframes or packet.is_keyframe:
                    if packet.pos is not None and len(silent) < _SILENT:
                        silent.append(packet.pos)
                    if len(silent) == _SILENT:
                        self._silent_at = silent[-1]
                    if packet.is_corrupt and not self._glued:
                        self._torn_at.add(packet.pts)
                    for picture in self._decode(packet):
                        silent.clear()
                        yield picture
        except GiqaError as e:
            failure.append(e)
        kept = 0  # what a decoder kept back, more of it where there are more threads
        for picture in self._decode(None):
            kept += picture is not None
            yield picture
        if len(silent) - kept >= _SILENT // 4:
            self._silent_at, self._silent = silent[len(silent) // 2], True

    def _lost(self, pts: int | None) -> Iterator[tuple[Any, int, Fraction]]:
        """Frames that were to be shown before `pts`, as many as decoding failed for."""
        for index, missed, key in self._packets.ranks.before(pts):
            if not key and self._sampling.keyframes:
                continue
            if self._damaged:
                self._damaged -= 1
                yield None, index, self._packets.seconds(missed)
            else:
                self._missed += 1

    def _length(self, picture: Any) -> Fraction:
        ticks = picture.duration
        return ticks * self._stream.time_base if ticks else 1 / self._stream.rate

    def _remark(self, picture: Any) -> None:
        size = picture.width, picture.height
        self._note("resolution_changed", self._size not in (None, size))
        self._size = size
        self._note("timestamps_jumped", self._packets.jumped)
        self._note("deinterlaced", is_combed(picture))
        self._note("alpha_flattened", has_alpha(picture))
        self._note("hdr_mapped", int(picture.color_trc) in HDR)
        self._note("damaged", self._is_damaged(picture))

    def _note(self, note: str, holds: bool) -> None:
        if holds and note not in self.notes:
            self.notes.append(note)


def check_reading(sampling: object, limits: object) -> None:
    """Refuse what says neither which frames nor how many.

    Raises:
        UsageError: it does not.
    """
    checks.instance("sampling", sampling, Sampling, NoneType)
    checks.instance("limits", limits, VideoLimits, NoneType)


def read_frames(
    path: str | Path,
    sampling: Sampling | None = None,
    *,
    limits: VideoLimits | None = None,
    cuts: CutDetector | None = None,
    mark: Bookmark | None = None,
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

        mark: where to begin reading instead of at the file's beginning, at or before the range; see
            `giqa.video.stretches`. If the keyframe is not there, all is read.

    Returns:
        An iterator with `info` (`StreamInfo`), `close` and `notes`: `alpha_flattened`,
        `codec_changed` (what follows is of another codec, and not decoded), `damaged` (parts of
        frames, or many frames, are missing), `deinterlaced`, `ends_early` (before the end
        that the header announces), `hdr_mapped`, `resolution_changed`, `starts_late` (not with a
        keyframe), `timestamps_jumped`.

    Raises:
        InputError: the file cannot be opened as a video, see `VideoStream`.
        MissingExtraError: PyAV is not installed.

    Example:
        >>> from giqa.video import Sampling, read_frames
        >>> with read_frames("clip.mp4", Sampling(fps=1)) as frames:  # doctest: +SKIP
        ...     for frame in frames:
        ...         print(frame.index, frame.pts_s, frame.image.shape)
    """
    return FrameReader(path, sampling, limits=limits, cuts=cuts, mark=mark)
