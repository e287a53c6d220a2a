"""HEIC files made by code: a frame that FFmpeg's x265 encoded, in boxes written here."""

import struct
import tempfile
from contextlib import suppress
from pathlib import Path

import av
import numpy as np


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, *parts: bytes, version: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]), *parts)


def coded(planes: np.ndarray, pixels: str) -> tuple[bytes, bytes]:
    """As `_coded`: FFmpeg's MP4 refuses x265's headers once in thirty times."""
    for _ in range(9):
        with suppress(av.FFmpegError):
            return _coded(planes, pixels)
    return _coded(planes, pixels)


def _coded(planes: np.ndarray, pixels: str) -> tuple[bytes, bytes]:
    """The hvcC box and the one sample of (3, H, W) samples of 4:4:4."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.mp4")
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx265", rate=25)
            stream.height, stream.width = planes.shape[1:]
            stream.pix_fmt = pixels
            stream.options = {"crf": "0", "preset": "ultrafast", "x265-params": "log-level=none"}
            frame = av.VideoFrame(stream.width, stream.height, pixels)
            frame.color_range, frame.pts = 2, 0
            for plane, values in zip(frame.planes, planes, strict=True):
                kind = np.uint16 if "le" in pixels else np.uint8
                rows = np.zeros((plane.height, plane.line_size // kind().itemsize), kind)
                rows[:, : plane.width] = values
                plane.update(rows.tobytes())
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        data = path.read_bytes()
        with av.open(str(path)) as container:
            sample = next(bytes(p) for p in container.demux(video=0) if p.size)
    at = data.index(b"hvcC") - 4
    return data[at : at + int.from_bytes(data[at : at + 4], "big")], sample


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
    config, sample = coded(planes, "yuvj444p" if bits == 8 else f"yuv444p{bits}le")
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
