"""Opening a video: checks before anything is decoded, and what its header says."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from giqa.errors import (
    CorruptError,
    EmptyError,
    GiqaError,
    MissingExtraError,
    NoFramesError,
    TooManyBytesError,
    TooManyPixelsError,
    TruncatedError,
    UnreadableError,
    UnsupportedCodecError,
    UnsupportedFormatError,
)
from giqa.inputs import open_file

SDR = {
    0: "reserved",
    1: "bt709",
    2: "unspecified",
    4: "gamma22",
    5: "gamma28",
    6: "smpte170m",
    7: "smpte240m",
    11: "iec61966-2-4",
    12: "bt1361e",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
}
HDR = {16: "smpte2084", 18: "arib-std-b67"}
REFUSED = {8: "linear", 9: "log100", 10: "log316", 17: "smpte428"}
"""FFmpeg's names of the colour transfers, by number (ITU-T H.273)."""

_BUFFER = 1 << 18
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid")


@dataclass(frozen=True)
class VideoLimits:
    """Limits that hold before anything is decoded, or as soon as they are reached.

    Attributes:
        max_pixels: most pixels of a frame.
        max_frames: most frames that are scored; rows are what memory grows with, by about 300
            bytes each.
        max_bytes: largest file; None: any.
    """

    max_pixels: int = 200_000_000
    max_frames: int = 1_000_000
    max_bytes: int | None = None


@dataclass(frozen=True)
class StreamInfo:
    """What a video's header says; not all of it needs to be true.

    Attributes:
        container: FFmpeg's name of the file format.
        codec: FFmpeg's name of the decoder.
        width: width of the upright picture in pixels.
        height: height of the upright picture in pixels.
        fps: frames a second on average; None if unknown.
        duration_s: length in seconds; None if unknown.
        pixel_format: FFmpeg's name of the decoded pixels' layout.
        transfer: FFmpeg's name of the colour transfer.
        rotation: degrees by which stored pictures are turned, counterclockwise: 0, 90, 180, 270.
    """

    container: str
    codec: str
    width: int
    height: int
    fps: float | None
    duration_s: float | None
    pixel_format: str
    transfer: str
    rotation: int


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
            self.container = self._open()
            self.video = self._choose(limits)
        except BaseException:
            self._file.close()
            raise
        self.time_base = Fraction(self.video.time_base)
        self.rate = Fraction(self.video.average_rate or self.video.guessed_rate or 25)

    def info(self, picture: Any = None) -> StreamInfo:
        """What the header says; the rotation is known with a decoded picture."""
        context = self.video.codec_context
        rate = self.video.average_rate or self.video.guessed_rate
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

    def packets(self) -> Iterator[Any]:
        """The stream's packets, in file order.

        Raises:
            TruncatedError: the file ends before its last packet does.
            CorruptError: the container cannot be read further.
        """
        count = 0
        try:
            for packet in self.container.demux(self.video):
                if packet.size:
                    count += 1
                    yield packet
        except self._av.error.FFmpegError as e:
            raise self._coded(e, "ends within its data", "cannot be read further") from e
        # Past the end of an MP4 file FFmpeg says nothing; its index knows how many there were.
        if "mp4" in self.container.format.name and count < self.video.frames:
            raise TruncatedError(f"{count} of {self.video.frames} frames are there", item=self.name)

    def decode(self, packet: Any) -> list[Any] | None:
        """Decode a packet, or with None what the decoder still holds.

        Returns:
            Pictures in order of presentation; None if the packet is damaged.
        """
        try:
            return list(self.video.codec_context.decode(packet))
        except self._av.error.EOFError:
            return []
        except self._av.error.FFmpegError:
            return None

    def close(self) -> None:
        """Close the file."""
        self.container.close()
        self._file.close()

    def _open(self) -> Any:
        try:
            return self._av.open(
                self._file,
                buffer_size=_BUFFER,
                metadata_errors="ignore",
                # Playlists may name other files and hosts: nothing but this file is read.
                options={"protocol_whitelist": "file"},
            )
        except self._av.error.InvalidDataError as e:
            known = _mp4_boxes(self._file, self._size)
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

    def _choose(self, limits: VideoLimits) -> Any:
        streams = self.container.streams.video
        cover = self._av.stream.Disposition.attached_pic
        usable = [s for s in streams if not s.disposition & cover]
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

    def _duration(self) -> float | None:
        stream, whole = self.video.duration, self.container.duration
        found = stream * self.time_base if stream else Fraction(whole or 0, self._av.time_base)
        return float(found) if found > 0 else None

    def _coded(self, error: Exception, ended: str, broken: str) -> GiqaError:
        if isinstance(error, OSError) and error.errno and not isinstance(error, ValueError):
            return UnreadableError(f"cannot be read: {error.strerror}", item=self.name)
        if self._file.tell() >= self._size:
            return TruncatedError(ended, item=self.name)
        return CorruptError(broken, item=self.name)


def import_av() -> Any:
    """Import PyAV.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import av
    except ImportError as e:
        raise MissingExtraError(f"PyAV does not import: {e}", extra="video") from e
    return av


def _mp4_boxes(file: io.FileIO, size: int) -> set[bytes]:
    """Kinds of an MP4 file's outermost boxes; none if it is no such file."""
    found: set[bytes] = set()
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if kind not in _BOXES:
            break
        found.add(kind)
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            break
        at += length
    return found
