"""Videos made by code, for all tests."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from tests.photos import photo

Picture = npt.NDArray[np.uint8]


def pan(
    count: int, width: int = 160, height: int = 96, *, of: Picture | None = None
) -> Iterator[Picture]:
    """A camera that pans over a photograph: (height, width, 3) uint8 each."""
    source = photo(width + 2 * count, height + count, noise=8) if of is None else of
    for i in range(count):
        yield np.ascontiguousarray(source[i : i + height, 2 * i : 2 * i + width])


@contextmanager
def _scheduled_as_before() -> Iterator[None]:
    """SVT-AV1 makes its caller a real-time thread where it may, and all that this one starts."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def write(
    path: Path,
    pictures: Iterable[Picture],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: int = 25,
    times: Iterable[int] | None = None,
    rotation: int = 0,
    bit_rate: int | None = None,
    gop: int = 8,
    **options: str,
) -> Path:
    """Encode pictures, all of the same size.

    Args:
        path: the file; its suffix chooses the container.
        pictures: RGB.
        codec: FFmpeg's name of the encoder.
        pixels: FFmpeg's name of the encoded pixels' layout.
        rate: frames a second.
        times: each frame's time in milliseconds, instead of the rate's.
        rotation: degrees counterclockwise that a player has to turn pictures by.
        bit_rate: bits a second.
        gop: most frames from one keyframe to the next.
        **options: the encoder's.

    Returns:
        The file.
    """
    stamps = None if times is None else iter(times)
    with _scheduled_as_before(), av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = gop
        fast = {"preset": "veryfast", "tune": "zerolatency"} if codec == "libx264" else {}
        stream.options = fast | options
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        if stamps is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for i, picture in enumerate(pictures):
            if i == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = next(stamps), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def sound(path: Path) -> Path:
    """A file with sound alone."""
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    return path
