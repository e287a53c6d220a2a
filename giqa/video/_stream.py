"""Opening a video: checks before anything is decoded, and what its header says."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from giqa import forks
from giqa.decode import HDR
from giqa.errors import (
    CorruptError,
    EmptyError,
    GiqaError,
    NoFramesError,
    TooManyBytesError,
    TooManyPixelsError,
    TruncatedError,
    UnreadableError,
    UnsupportedCodecError,
    UnsupportedFormatError,
)
from giqa.extras import importing
from giqa.uris import open_file
from giqa.video._containers import Part, is_cut_short, is_torn, mp4_boxes
from giqa.video._decoder import PictureDecoder
from giqa.video._info import REFUSED, SDR, StreamInfo, VideoLimits
from giqa.video._timeline import Bookmark

_FASTEST = 1000
"""Frames a second; what is more are ticks of a clock."""

_BUFFER = 1 << 18
_BACK_S = (0, 3)
"""By how much before a keyframe it is looked for: seeking is rough in some containers."""
_CLOCK = re.compile(r"\d+:\d\d:\d\d(\.\d+)?")
_RETRIES = 3
"""How often in a row reading goes on behind what cannot be read: containers find what follows."""


class VideoStream:
    """An open video file and the one stream that is looked at: the first that is no cover art.

    Args:
        path: the file.
        limits: `max_pixels` is checked here, and by the decoder at each change of size.

    Raises:
        NotFoundError: no such file.
        PermissionDeniedError: not readable for this user.
        UnreadableError: not a regular file.
        EmptyError: no bytes.
        UnsupportedFormatError: no container that FFmpeg knows.
        TruncatedError: an MP4 file ends before its index.
        CorruptError: the container cannot be read.
        NoFramesError: there is no video stream.
        UnsupportedCodecError: there is no decoder, or the colour transfer is neither SDR nor HDR.
        TooManyBytesError: the file is larger than the limit.
        TooManyPixelsError: frames are larger than the limit.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, path: str | Path, limits: VideoLimits) -> None:
        self.name = str(path)
        self._av = import_av()
        self._file = open_file(Path(path), self.name)
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            if not self._size:
                raise EmptyError("no bytes", item=self.name)
            if limits.max_bytes is not None and self._size > limits.max_bytes:
                raise TooManyBytesError(
                    f"{self._size} bytes, the limit is {limits.max_bytes}", item=self.name
                )
            self.container = self._open(self._file)
            self.cut = is_cut_short(self._file, self._size)
            self.video = self._choose(self.container, limits)
        except BaseException:
            self._file.close()
            raise
        self._limits = limits
        forks.keep(self)
        self.damaged = False
        self._others: list[Any] = []
        self._demux: Any = None
        self._first: Any = None
        self._before = 0
        self.time_base = Fraction(self.video.time_base)
        self.rate = self._rate() or Fraction(25)

    def _rate(self) -> Fraction | None:
        """Frames a second; None where FFmpeg tells ticks instead, not having met a header."""
        rates = (self.video.average_rate, self.video.guessed_rate)
        return next((Fraction(rate) for rate in rates if rate and rate <= _FASTEST), None)

    def info(self, picture: Any = None) -> StreamInfo:
        """What the header says; the rotation is known with a decoded picture."""
        context = self.video.codec_context
        rate = self._rate()
        rotation = round((picture.rotation if picture is not None else 0) / 90) * 90 % 360
        width, height = context.width, context.height
        if rotation in (90, 270):
            width, height = height, width
        return StreamInfo(
            container=self.container.format.name,
            codec=context.name,
            width=width,
            height=height,
            fps=float(rate) if rate else None,
            duration_s=self._duration(),
            pixel_format=context.pix_fmt or "unknown",
            transfer=(SDR | HDR | REFUSED).get(int(context.color_trc), "unknown"),
            rotation=rotation,
        )

    def go_to(self, mark: Bookmark) -> bool:
        """Begin `packets` at a keyframe, if it is found where it is said to be.

        Args:
            mark: the keyframe.

        Returns:
            Whether it was found; if not, this stream is good for nothing more.
        """
        target = mark.pts if mark.dts is None else mark.dts
        for back_s in _BACK_S:
            try:
                self.container.seek(target - round(back_s / self.time_base), stream=self.video)
                packets = self.container.demux(self.video)
                for packet in packets:
                    if not packet.is_keyframe or packet.pts is None or packet.pts < mark.pts:
                        continue
                    if (packet.pts, packet.size) != (mark.pts, mark.size):
                        break
                    self._demux, self._first, self._before = packets, packet, mark.packets
                    return True
            except self._av.error.FFmpegError:
                continue
        return False

    def packets(self) -> Iterator[Any]:
        """The stream's packets, in file order.

        Raises:
            TruncatedError: the file ends before its last packet does.
            CorruptError: the container cannot be read further.
        """
        count, first = self._before, self._first
        failed = 0
        if first is not None:
            count += 1
            yield first
        while True:
            try:
                for packet in self._demux or self.container.demux(self.video):
                    if packet.size:
                        count, failed = count + 1, 0
                        yield packet
                break
            except (self._av.error.FFmpegError, OSError) as e:
                failed += 1
                if failed > _RETRIES or not isinstance(e, self._av.error.InvalidDataError):
                    raise self._coded(e, "ends within its data", "cannot be read further") from e
                self._demux, self.damaged = None, True
        if "matroska" in self.container.format.name:
            self.damaged |= is_torn(self._file, self._size)
        # Past the end of a file FFmpeg says nothing; the index of some knows how many there were.
        if count >= self.video.frames:
            return
        if "mp4" in self.container.format.name:
            raise TruncatedError(f"{count} of {self.video.frames} frames are there", item=self.name)
        self.cut |= self.container.format.name == "ivf"  # AVI counts empty ones, too

    def codec_at(self, position: int) -> str:
        """The codec that the file would have if it began at a position; the same if none is told.

        Files of different codecs may be glued together; FFmpeg keeps to the first one's.
        """
        own = str(self.video.codec_context.name)
        with (
            suppress(self._av.error.FFmpegError, OSError),
            open_file(Path(self.name), self.name) as file,
            self._av.open(Part(file, position)) as container,
        ):
            streams = container.streams.video
            return str(streams[0].codec_context.name) if streams else own
        return own

    def decoder(self, *, keyframes: bool) -> PictureDecoder:
        """What decodes its packets."""
        return PictureDecoder(self._context(self.video), self._again, keyframes=keyframes)

    def _again(self) -> Any:
        """A decoder with one thread, by the same header."""
        file = open_file(Path(self.name), self.name)
        self._others.append(file)
        container = self._open(file)
        self._others.append(container)
        video = self._choose(container, self._limits)
        context = self._context(video)
        context.thread_type, context.thread_count = "NONE", 1
        return context

    def _context(self, video: Any) -> Any:
        """A stream's decoder; FFmpeg's own one for VP9 drops transparency."""
        context = video.codec_context
        if context.name == "vp9" and video.metadata.get("alpha_mode") == "1":
            with suppress(self._av.error.FFmpegError, ValueError):
                other = self._av.CodecContext.create("libvpx-vp9", "r")
                other.extradata, other.options = context.extradata, context.options
                return other
        return context

    def close(self) -> None:
        """Close the file."""
        self.container.close()
        self._file.close()
        for other in reversed(self._others):
            other.close()

    def _open(self, file: io.FileIO) -> Any:
        try:
            return self._av.open(
                Part(file),
                buffer_size=_BUFFER,
                metadata_errors="ignore",
                # Playlists may name other files and hosts: nothing but this file is read.
                options={"protocol_whitelist": "file"},
            )
        except self._av.error.InvalidDataError as e:
            known = mp4_boxes(file, self._size)
            if known and b"moov" not in known:
                raise TruncatedError("an MP4 file without its index", item=self.name) from e
            if known:
                raise CorruptError("its index cannot be read", item=self.name) from e
            raise UnsupportedFormatError(
                "not a video of a known format",
                item=self.name,
                remedy="convert it to MP4, Matroska or another format that FFmpeg reads",
            ) from e
        except (self._av.error.FFmpegError, OSError) as e:
            raise self._coded(e, "ends within its header", "cannot be opened") from e

    def _choose(self, container: Any, limits: VideoLimits) -> Any:
        streams = container.streams.video
        cover = self._av.stream.Disposition.attached_pic
        usable = [s for s in streams if not s.disposition & cover]
        if not usable and self.cut:
            raise TruncatedError("ends within its header", item=self.name)
        if not usable:
            raise NoFramesError("there is no video stream", item=self.name)
        video = usable[0]
        context = video.codec_context
        if context is None:
            raise UnsupportedCodecError("there is no decoder for its codec", item=self.name)
        if context.width * context.height > limits.max_pixels:
            raise TooManyPixelsError(
                f"{context.width}x{context.height} pixels, the limit is {limits.max_pixels}",
                item=self.name,
            )
        if (transfer := int(context.color_trc)) in REFUSED:
            raise UnsupportedCodecError(
                f"colour transfer {REFUSED[transfer]}", item=self.name, remedy="convert it to SDR"
            )
        context.options = {"max_pixels": str(limits.max_pixels)}
        video.thread_type = "AUTO"
        return video

    @property
    def own_duration_s(self) -> float | None:
        """How long this stream is, where a Matroska file says it; not the sound beside it."""
        told = self.video.metadata.get("DURATION", "")
        if not _CLOCK.fullmatch(told):
            return None
        hours, minutes, seconds = map(float, told.split(":"))
        return 3600 * hours + 60 * minutes + seconds

    def _duration(self) -> float | None:
        stream, whole = self.video.duration, self.container.duration
        found = stream * self.time_base if stream else Fraction(whole or 0, self._av.time_base)
        return float(found) if found > 0 else None

    def _coded(self, error: Exception, ended: str, broken: str) -> GiqaError:
        # FFmpeg says "input/output error" of damage, too; the file's own errors are Python's.
        if isinstance(error, OSError) and not isinstance(error, self._av.error.FFmpegError):
            return UnreadableError(f"cannot be read: {error.strerror}", item=self.name)
        if self._file.tell() >= self._size:
            return TruncatedError(ended, item=self.name)
        return CorruptError(broken, item=self.name)


def import_av() -> Any:
    """Import PyAV.

    Raises:
        MissingExtraError: it is not installed.
    """
    with importing("PyAV", "video"):
        import av
    return av
