"""Odd files, each standing for a kind: the same picture as PNG, or a code."""

import io
import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from tests.makers import chunk, png_header, pnm, save
from tests.photos import scene

RGB = scene(192, 144)
GREY = np.asarray(Image.fromarray(RGB).convert("L"))
WIDE = RGB.astype(np.uint16) * 257
LIGHT = np.where(RGB <= 10, RGB / 255 / 12.92, ((RGB / 255 + 0.055) / 1.055) ** 2.4)


def tiff(values: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, values, **options)
    return out.getvalue()


def pages(*parts: tuple[np.ndarray, dict]) -> bytes:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        for values, options in parts:
            writer.write(values, **options)
    return out.getvalue()


def dng(preview: int) -> bytes:
    """A camera's RAW file: thumbnail, sensor data, and a preview of that share of its size."""
    thumbnail = np.asarray(Image.fromarray(RGB).resize((48, 36)))
    version = (50706, 1, 4, b"\1\4\0\0", True)
    below = 2 if preview else 1
    parts = [(thumbnail, {"subfiletype": 1, "subifds": below, "extratags": [version]})]
    pattern = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True)]
    sensor = GREY.astype(np.uint16) * 16
    parts.append((sensor, {"photometric": 32803, "extratags": pattern}))
    if preview:
        size = (192 * preview // 100, 144 * preview // 100)
        shown = np.asarray(Image.fromarray(RGB).resize(size))
        parts.append((shown, {"photometric": "rgb", "subfiletype": 1}))
    return pages(*parts)


def jpeg(**options: object) -> bytes:
    return save(Image.fromarray(RGB), "JPEG", quality=95, subsampling=0, **options)


def segment(payload: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


def exif(value: int, kind: int = 3, order: str = "<") -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    number = struct.pack(order + ("H" if kind == 3 else "I"), value).ljust(4, b"\0")
    entry = struct.pack(order + "HHHI", 1, 0x0112, kind, 1) + number
    return b"Exif\0\0" + head + struct.pack(order + "I", 8) + entry + bytes(4)


def stored(orientation: int, *segments: bytes) -> bytes:
    """A JPEG that is the picture after that orientation."""
    back = {1: None, 6: Image.Transpose.ROTATE_90}[orientation]
    picture = Image.fromarray(RGB)
    picture = picture if back is None else picture.transpose(back)
    data = save(picture, "JPEG", quality=95, subsampling=0)
    return data[:2] + b"".join(map(segment, segments)) + data[2:]


XMP = (
    b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
    b'"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:tiff='
    b'"http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def pq(values: np.ndarray) -> np.ndarray:
    """sRGB to BT.2020 with PQ, white at 203 cd/m2; 0..1."""
    v = values / 255
    light = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    to_2020 = np.array(
        [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    )
    y = (light @ to_2020.T * 203 / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def pq_png() -> bytes:
    rows = b"".join(b"\0" + r.astype(">u2").tobytes() for r in np.round(pq(RGB) * 65535))
    signal = chunk(b"cICP", bytes([9, 16, 0, 1]))
    return png_header(192, 144, 16) + signal + chunk(b"IDAT", zlib.compress(rows)) + END


END = chunk(b"IEND", b"")


def pq_avif() -> bytes:
    values = np.round(pq(RGB) * 1023).astype(np.uint16)
    options = {"bitspersample": 10, "primaries": 9, "transfer": 16, "matrix": 9}
    return imagecodecs.avif_encode(values, level=98, speed=8, pixelformat="444", **options)


def cropped_avif() -> bytes:
    """The picture within a frame, which a clean aperture takes away."""
    framed = np.zeros((176, 224, 3), np.uint8)
    framed[16:160, 16:208] = RGB
    data = save(Image.fromarray(framed), "AVIF", quality=100, subsampling="4:4:4")
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", 192, 1, 144, 1, 0, 1, 0, 1)
    return with_property(data, clap)


def with_property(data: bytes, box: bytes) -> bytes:
    """A file whose first item has one more property; lengths and offsets are moved."""
    raw = bytearray(data)

    def grow(kind: bytes, by: int) -> int:
        at = raw.index(kind) - 4
        length = struct.unpack_from(">I", raw, at)[0]
        struct.pack_into(">I", raw, at, length + by)
        return at + length

    count, at = 0, raw.index(b"ipco") + 4
    end = raw.index(b"ipco") - 4 + struct.unpack_from(">I", raw, raw.index(b"ipco") - 4)[0]
    while at < end:
        count += 1
        at += struct.unpack_from(">I", raw, at)[0]
    more = len(box) + 1
    grow(b"meta", more)
    grow(b"iprp", more)
    end = grow(b"ipco", len(box))
    raw[end:end] = box
    entry = raw.index(b"ipma") + 4 + 8
    grow(b"ipma", 1)
    number = raw[entry + 2]
    raw[entry + 2] = number + 1
    raw[entry + 3 + number : entry + 3 + number] = bytes([0x80 | (count + 1)])
    # The one extent of the one item: its offset is the last but one number of iloc.
    end = raw.index(b"iloc") - 4 + struct.unpack_from(">I", raw, raw.index(b"iloc") - 4)[0]
    (offset,) = struct.unpack_from(">I", raw, end - 8)
    struct.pack_into(">I", raw, end - 8, offset + more)
    return bytes(raw)


def palette() -> bytes:
    colours = np.array(Image.fromarray(RGB).quantize(256).getpalette("RGB")).reshape(-1, 3)
    index = np.asarray(Image.fromarray(RGB).quantize(256))
    return tiff(index, photometric="palette", colormap=colours.T.astype(np.uint16) * 257)


def thumbnail_first() -> bytes:
    small = np.asarray(Image.fromarray(RGB).resize((48, 36)))
    rgb = {"photometric": "rgb"}
    return pages((small, {**rgb, "subfiletype": 1}), (RGB, {**rgb, "subfiletype": 0}))


def bmp32() -> bytes:
    pixels = np.dstack([RGB[..., ::-1], np.zeros_like(GREY)])[::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", 40, 192, 144, 1, 32, 0, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + header + pixels


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def scans(count: int) -> bytes:
    """A progressive JPEG with its first scans alone, and no end."""
    data, at = jpeg(progressive=True), 0
    for _ in range(count + 1):
        at = data.index(b"\xff\xda", at + 1)
    tables = data.rindex(b"\xff\xc4", 0, at)
    return data[: tables if data[tables + 2 : at] else at]


TRAILER = b"\0\0\xa1\x0a\x08\0\0\0Image_UTC_Data1500000000000" + bytes(range(256)) * 9 + b"SEFT"
AS_RGB: dict[str, Callable[[], bytes]] = {
    "16-bit planar": lambda: tiff(
        np.moveaxis(WIDE, 2, 0), photometric="rgb", planarconfig="separate"
    ),
    "8-bit planar": lambda: tiff(
        np.moveaxis(RGB, 2, 0), photometric="rgb", planarconfig="separate"
    ),
    "bigtiff": lambda: tiff(RGB, photometric="rgb", bigtiff=True, compression="zlib"),
    "float": lambda: tiff((RGB / 255).astype(np.float32), photometric="rgb"),
    "half float": lambda: tiff((RGB / 255).astype(np.float16), photometric="rgb"),
    "predictor": lambda: tiff(WIDE, photometric="rgb", compression="lzw", predictor=True),
    "tiles, big endian": lambda: tiff(WIDE, photometric="rgb", tile=(64, 64), byteorder=">"),
    "32 bits": lambda: tiff(RGB.astype(np.uint32) * 16843009, photometric="rgb"),
    "zstd": lambda: tiff(WIDE, photometric="rgb", compression="zstd"),
    "thumbnail first": thumbnail_first,
    "raw with a preview": lambda: dng(100),
    "JPEG XL": lambda: imagecodecs.jpegxl_encode(RGB, lossless=True),
    "JPEG XL, 16 bits of linear light": lambda: imagecodecs.jpegxl_encode(
        np.round(LIGHT * 65535).astype(np.uint16), lossless=True
    ),
    "10-bit PPM": lambda: pnm("P6", RGB, 1023),
    "PPM of 200": lambda: pnm("P6", RGB, 200),
    "32-bit BMP": bmp32,
    "PQ in PNG": pq_png,
    "PQ in AVIF": pq_avif,
    "clean aperture": cropped_avif,
    "lossless JPEG": lambda: imagecodecs.jpeg8_encode(RGB, lossless=True),
    "12-bit JPEG": lambda: imagecodecs.jpeg8_encode(
        RGB.astype(np.uint16) * 16 + RGB // 16, level=98, bitspersample=12, subsampling="444"
    ),
    "no end": lambda: jpeg()[:-2],
    "no end, progressive": lambda: jpeg(progressive=True)[:-2],
    "a phone's trailer for an end": lambda: jpeg()[:-2] + TRAILER,
    "XMP alone": lambda: stored(1, XMP),
    "two EXIF segments": lambda: stored(1, exif(1), exif(6)),
    "two EXIF segments, turned": lambda: stored(6, exif(6), exif(1)),
    "EXIF of LONG": lambda: stored(6, exif(6, 4, ">")),
    "EXIF of LONG, little endian": lambda: stored(6, exif(6, 4)),
    "EXIF of 0": lambda: stored(1, exif(0)),
}
LOSSY = ("12-bit JPEG", "PQ in AVIF", "clean", "no end", "a phone", "XMP", "two EXIF", "EXIF")
AS_GREY: dict[str, Callable[[], bytes]] = {
    "float, grey": lambda: tiff((GREY / 255).astype(np.float32)),
    "double, grey": lambda: tiff(GREY / 255),
    "32 bits, grey": lambda: tiff(GREY.astype(np.uint32) * 16843009),
    "MINISWHITE, 8 bits": lambda: tiff(255 - GREY, photometric="miniswhite"),
    "MINISWHITE, 16 bits": lambda: tiff(
        65535 - GREY.astype(np.uint16) * 257, photometric="miniswhite"
    ),
    "float of a range": lambda: tiff(
        GREY.astype(np.float32), extratags=[(340, 11, 1, 0.0, True), (341, 11, 1, 255.0, True)]
    ),
    "signed of a range": lambda: tiff(
        GREY.astype(np.int16), extratags=[(340, 8, 1, 0, True), (341, 8, 1, 255, True)]
    ),
    "PGM of 1000": lambda: pnm("P5", GREY, 1000),
    "PGM of 16 bits": lambda: pnm("P5", GREY, 65535),
    "JPEG XL, grey": lambda: imagecodecs.jpegxl_encode(GREY, lossless=True),
}
"""All of these show the picture; see `NOTES` for what they have to say."""

QUANTISED = (1, 3, 15, 100, 200, 254, 256, 1000, 1023, 4095, 65535)
"""Maxvals of PNM; of few values the picture is another one, which `quantised` makes."""


def quantised(values: np.ndarray, white: int) -> np.ndarray:
    """What is left of a picture in a PNM of that maxval."""
    scaled = (values.astype(int) * white + 127) // 255
    return np.round(scaled * 255 / white).astype(np.uint8)


NOTES: dict[str, str] = {
    "raw with a preview": "raw_preview",
    "PQ in PNG": "hdr_mapped",
    "PQ in AVIF": "hdr_mapped",
    "no end": "damaged",
    "no end, progressive": "damaged",
    "a phone's trailer for an end": "damaged",
}
"""Notes that are told of these, and of no others."""

HALVES: dict[str, Callable[[], bytes]] = {
    "half, with an end": lambda: half(jpeg()) + b"\xff\xd9",
    "half, progressive, with an end": lambda: half(jpeg(progressive=True)) + b"\xff\xd9",
    "scans missing, with an end": lambda: scans(5) + b"\xff\xd9",
    "half, zeros, an end": lambda: half(jpeg()) + bytes(len(half(jpeg()))) + b"\xff\xd9",
}
"""Something of the picture is there: a score, and the note `damaged`."""

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "raw without a preview": (lambda: dng(0), "DNG"),
    "raw with a small preview": (lambda: dng(50), "DNG"),
    "signed": (lambda: tiff(GREY.astype(np.int16) * 100), "signed"),
    "float of no range": (lambda: tiff(RGB.astype(np.float32), photometric="rgb"), "float"),
    "not a number": (lambda: tiff(np.full((144, 192), np.nan, np.float32)), "float"),
    "Apple's PNG": (
        lambda: b"\x89PNG\r\n\x1a\n" + chunk(b"CgBI", b"\x50\0\x20\2") + png_header(9, 9)[8:] + END,
        "CgBI",
    ),
    "LERC in TIFF": (lambda: tiff(RGB, photometric="rgb", compression="lerc"), "LERC"),
    "PSD": (lambda: b"8BPS\0\1" + bytes(99), "PSD"),
    "EXR": (lambda: b"v/1\x01\2\0\0\0" + bytes(99), "EXR"),
    "CR3": (lambda: b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(99), "CR3"),
    "RAF": (lambda: b"FUJIFILMCCD-RAW 0201" + bytes(99), "RAF"),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>' + bytes(9), "SVG"),
    "PAM": (lambda: b"P7\nWIDTH 1\n" + bytes(99), "PAM"),
    "video": (lambda: b"\x1aE\xdf\xa3" + bytes(99), "video"),
}
