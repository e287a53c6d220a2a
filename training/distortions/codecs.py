"""What codecs in use make of a picture: real encoders, intra coding, quality as their users set it.

KADID-10k's types (`training.distortions.types`) know JPEG and JPEG 2000 alone; pictures and frames
of today went through these.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from giqa.errors import UsageError
from training.distortions.convert import Pixels

_VIDEO: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "hevc": (
        "libx265",
        "hevc",
        {"preset": "fast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    ),
    "vp9": ("libvpx-vp9", "vp9", {"deadline": "good", "cpu-used": "4", "b": "0"}),
}
"""Encoder, decoder and the encoder's options by codec; `crf` is added."""

# ITU-T T.871 (JPEG's full range BT.601).
_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)
_FROM_YCC = np.linalg.inv(_TO_YCC).astype(np.float32)
_CENTRE = np.array([0, 128, 128], np.float32)


def jpeg(image: Pixels, quality: float) -> Pixels:
    """JPEG, colours at half resolution. `quality` as libjpeg's, 1..100."""
    return _still(image, "JPEG", quality=round(quality), subsampling="4:2:0")


def webp(image: Pixels, quality: float) -> Pixels:
    """WebP, lossy. `quality` as libwebp's, 0..100."""
    return _still(image, "WEBP", quality=round(quality), method=2)


def jpeg2000(image: Pixels, ratio: float) -> Pixels:
    """JPEG 2000 at 1 / `ratio` of 24 bits a pixel, irreversible wavelet."""
    return _still(
        image, "JPEG2000", quality_mode="rates", quality_layers=[ratio], irreversible=True
    )


def hevc(image: Pixels, crf: float) -> Pixels:
    """One intra frame of H.265 by x265. `crf` 0..51."""
    return _frame(image, "hevc", crf)


def av1(image: Pixels, quality: float) -> Pixels:
    """One intra frame of AV1, as AVIF. `quality` as libavif's, 0..100."""
    return _still(
        image, "AVIF", quality=round(quality), subsampling="4:2:0", speed=8, max_threads=1
    )


def vp9(image: Pixels, crf: float) -> Pixels:
    """One intra frame of VP9 by libvpx. `crf` 0..63."""
    return _frame(image, "vp9", crf)


CODECS: Mapping[str, Callable[[Pixels, float], Pixels]] = {
    f.__name__: f for f in (jpeg, webp, jpeg2000, hevc, av1, vp9)
}
"""By name: (H, W, 3) uint8 sRGB and its parameter to what is decoded, the same size."""


def coded(image: Pixels, codec: str, value: float) -> Pixels:
    """Encode a picture and decode it.

    Args:
        image: (H, W, 3) uint8, sRGB.
        codec: one of `CODECS`.
        value: quality, ratio or crf of that codec.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UsageError: no such codec.
    """
    if codec not in CODECS:
        raise UsageError(f"no such codec; one of {', '.join(CODECS)}", item=codec)
    return CODECS[codec](image, value)


def _still(image: Pixels, format_: str, **options: Any) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format_, **options)
    with Image.open(file) as decoded:
        return np.asarray(decoded.convert("RGB"))


def _frame(image: Pixels, codec: str, crf: float) -> Pixels:
    """One 4:2:0 frame, full range; odd sides are padded by their last line and cut again.

    Colours are converted here, with rounding: swscale's and Pillow's quick conversions darken by
    one to two levels, which would tell coded pictures from others.
    """
    encoder_name, decoder_name, options = _VIDEO[codec]
    height, width = image.shape[:2]
    padded = np.pad(image, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")
    rows, columns = padded.shape[:2]
    luma, *chroma = np.moveaxis(padded @ _TO_YCC.T + _CENTRE, -1, 0)
    halved = (c.reshape(rows // 2, 2, columns // 2, 2).mean((1, 3)) for c in chroma)
    frame = av.VideoFrame(columns, rows, "yuv420p")
    for plane, values in zip(frame.planes, (luma, *halved), strict=True):
        lines = np.zeros((plane.height, plane.line_size), np.uint8)
        lines[:, : plane.width] = np.rint(values.clip(0, 255))
        plane.update(lines.tobytes())
    encoder: Any = av.CodecContext.create(encoder_name, "w")
    encoder.width, encoder.height = columns, rows
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = {**options, "crf": str(round(crf))}
    frame.pts = 0
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    decoder: Any = av.CodecContext.create(decoder_name, "r")
    decoded = [f for packet in [*packets, None] for f in decoder.decode(packet)]
    back = []
    for plane in decoded[0].planes:
        lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        values = Image.fromarray(lines[:, : plane.width].astype(np.float32))
        back.append(np.asarray(values.resize((columns, rows), Image.Resampling.BILINEAR)))
    rgb = (np.stack(back, -1) - _CENTRE) @ _FROM_YCC.T
    return np.rint(rgb.clip(0, 255)).astype(np.uint8)[:height, :width]
