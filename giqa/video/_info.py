"""What a video's header says, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, fields

from giqa import checks

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
REFUSED = {8: "linear", 9: "log100", 10: "log316", 17: "smpte428"}
"""FFmpeg's names of the colour transfers, by number (ITU-T H.273)."""


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

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for one in fields(self):
            if (value := getattr(self, one.name)) is not None or one.name != "max_bytes":
                checks.whole(one.name, value)


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
