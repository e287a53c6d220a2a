"""HEIC files made by code: a frame that FFmpeg's x265 encoded, in boxes written here."""

import struct
from fractions import Fraction

import av
import numpy as np


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, *parts: bytes, version: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]), *parts)


PARAMETERS = (32, 33, 34)
"""Kinds of H.265's units that go into the header: VPS, SPS, PPS."""


def units(stream: bytes) -> list[bytes]:
    """The NAL units of a byte stream."""
    return [part.rstrip(b"\0") for part in stream.split(b"\0\0\1")[1:]]


def coded(planes: np.ndarray, bits: int) -> tuple[bytes, bytes]:
    """The hvcC box and the one sample of (3, H, W) samples of 4:4:4.

    Out of H.265's byte stream: FFmpeg's MP4 refuses x265's headers now and then.
    """
    pixels = "yuvj444p" if bits == 8 else f"yuv444p{bits}le"
    encoder = av.CodecContext.create("libx265", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = planes.shape[1:]
    encoder.pix_fmt, encoder.time_base = pixels, Fraction(1, 25)
    encoder.options = {"crf": "0", "preset": "ultrafast", "x265-params": "log-level=none"}
    frame = av.VideoFrame(encoder.width, encoder.height, pixels)
    frame.color_range, frame.pts = 2, 0
    for plane, values in zip(frame.planes, planes, strict=True):
        kind = np.uint8 if bits == 8 else np.uint16
        rows = np.zeros((plane.height, plane.line_size // kind().itemsize), kind)
        rows[:, : plane.width] = values
        plane.update(rows.tobytes())
    found = units(b"".join(bytes(p) for p in [*encoder.encode(frame), *encoder.encode()]))
    sets = {k: [unit for unit in found if unit[0] >> 1 & 63 == k] for k in PARAMETERS}
    assert all(sets.values())
    # Profile, tier and level: 12 bytes behind the SPS' own header and its first byte.
    profile = sets[33][0].replace(b"\0\0\3", b"\0\0")[3:15]
    arrays = (
        bytes([0x80 | k]) + struct.pack(">H", len(some)) + b"".join(sized(u, ">H") for u in some)
        for k, some in sets.items()
    )
    depth = 0xF8 | (bits - 8)
    config = box(
        b"hvcC",
        b"\1" + profile + b"\xf0\0\xfc" + bytes([0xFC | 3, depth, depth, 0, 0, 0x0F, len(sets)]),
        *arrays,
    )
    rest = [unit for unit in found if unit[0] >> 1 & 63 not in PARAMETERS]
    return config, b"".join(sized(unit, ">I") for unit in rest)


def sized(unit: bytes, width: str) -> bytes:
    return struct.pack(width, len(unit)) + unit


def heic(
    picture: np.ndarray, *, bits: int = 8, signal: tuple[int, int] = (1, 13), extra: bytes = b""
) -> bytes:
    """A HEIC file of a picture.

    Args:
        picture: (H, W, 3), R'G'B' of 0..1.
        bits: of a sample, 8 or 10.
        signal: primaries and transfer that its `colr` names; the matrix is that of BT.2020 for
            primaries 9, of BT.709 otherwise.
        extra: more properties, in the order in which they are to be applied.
    """
    red, blue = (0.2627, 0.0593) if signal[0] == 9 else (0.2126, 0.0722)
    luma = picture @ np.array([red, 1 - red - blue, blue])
    cb = (picture[..., 2] - luma) / (2 - 2 * blue) + 0.5
    cr = (picture[..., 0] - luma) / (2 - 2 * red) + 0.5
    top = (1 << bits) - 1
    planes = np.clip(np.round(np.stack([luma, cb, cr]) * top), 0, top)
    config, sample = coded(planes, bits)
    height, width = picture.shape[:2]
    matrix = 9 if signal[0] == 9 else 1
    ispe = full(b"ispe", struct.pack(">II", width, height))
    colr = box(b"colr", b"nclx", struct.pack(">HHHB", *signal, matrix, 0x80))
    pixi = full(b"pixi", bytes([3, bits, bits, bits]))
    own = [config, ispe, colr, pixi]
    count, at = len(own), 0
    while at < len(extra):
        count, at = count + 1, at + int.from_bytes(extra[at : at + 4], "big")
    links = bytes([0x80 | (i + 1) for i in range(count)])
    ipma = full(b"ipma", struct.pack(">IHB", 1, 1, count), links)
    infe = full(b"infe", struct.pack(">HH", 1, 0), b"hvc1", b"\0", version=2)

    def meta(offset: int) -> bytes:
        place = struct.pack(">HHHHHII", 0x4400, 1, 1, 0, 1, offset, len(sample))
        return full(
            b"meta",
            full(b"hdlr", bytes(4), b"pict", bytes(13)),
            full(b"pitm", struct.pack(">H", 1)),
            full(b"iinf", struct.pack(">H", 1), infe),
            full(b"iloc", place),
            box(b"iprp", box(b"ipco", *own, extra), ipma),
        )

    head = box(b"ftyp", b"heix" if bits > 8 else b"heic", bytes(4), b"mif1heicheix")
    start = len(head) + len(meta(0)) + 8
    return head + meta(start) + box(b"mdat", sample)
