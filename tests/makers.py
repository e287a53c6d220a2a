"""Odd image files, made by code: every case a decoder meets in the wild."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from tests.photos import photo

UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What turns an upright picture into the stored one of each EXIF orientation."""


def image(width: int = 320, height: int = 240, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A made picture in a Pillow mode."""
    return Image.fromarray(photo(width, height, seed)).convert(mode)


def save(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Encode with Pillow."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def jpeg(width: int = 320, height: int = 240, seed: int = 0, **options: object) -> bytes:
    """A JPEG of quality 90."""
    return save(image(width, height, seed), "JPEG", **{"quality": 90, **options})


def png(width: int = 320, height: int = 240, seed: int = 0, **options: object) -> bytes:
    """An RGB PNG."""
    return save(image(width, height, seed), "PNG", **options)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    """PNG signature and IHDR."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)


def png_of(values: np.ndarray, bits: int) -> bytes:
    """A PNG of samples of so many bits: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA."""
    height, width = values.shape[:2]
    colour = 0 if values.ndim == 2 else {3: 2, 4: 6}[values.shape[2]]
    if bits == 16:
        rows = values.reshape(height, -1).astype(">u2").view(np.uint8)
    else:
        samples = values.reshape(height, -1).astype(np.uint8)
        spread = samples[..., None] >> np.arange(bits - 1, -1, -1) & 1
        rows = np.packbits(spread.reshape(height, -1).astype(np.uint8), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    body = chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return png_header(width, height, bits, colour) + body


def png16(width: int = 320, height: int = 240, seed: int = 0) -> bytes:
    """A 16-bit RGB PNG, which Pillow cannot write."""
    return png_of(photo(width, height, seed).astype(np.uint16) * 257, 16)


def pnm(magic: str, values: np.ndarray, white: int) -> bytes:
    """A PGM (`P5`) or PPM (`P6`) of a maxval."""
    scaled = (values.astype(int) * white + 127) // 255
    kind = ">u2" if white > 255 else "u1"
    head = f"{magic}\n{values.shape[1]} {values.shape[0]}\n{white}\n"
    return head.encode() + scaled.astype(kind).tobytes()


def oriented(orientation: int, kind: str = "PNG", seed: int = 0) -> bytes:
    """A file whose EXIF orientation makes the same upright picture of every value."""
    upright = image(448, 336, seed)
    stored = upright.transpose(UNDO[orientation]) if orientation in UNDO else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, dict[str, object]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
    }
    return save(stored, kind, exif=exif, **options.get(kind, {}))


_SRGB = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139))
_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
_ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
PRIMARIES = {"srgb": _SRGB, "p3": _P3, "adobe": _ADOBE}


def icc(name: str, gamma: float = 2.2) -> bytes:
    """A minimal matrix/TRC display profile (ICC v2): primaries adapted to D50, one gamma."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"made by a test\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78 + 1)
    entries: list[tuple[bytes, bytes]] = [
        (b"desc", described),
        (b"cprt", b"text\0\0\0\0none\0"),
        (b"wtpt", xyz((0.9642, 1.0, 0.8249))),
    ]
    for channel, primary in zip((b"r", b"g", b"b"), PRIMARIES[name], strict=True):
        entries += [(channel + b"XYZ", xyz(primary)), (channel + b"TRC", curve)]
    table, body = b"", b""
    offset = 128 + 4 + 12 * len(entries)
    for tag, data in entries:
        data += bytes(-len(data) % 4)
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += data
    content = struct.pack(">I", len(entries)) + table + body
    header = bytearray(128)
    header[0:4] = struct.pack(">I", 128 + len(content))
    header[8:24] = b"\x02\x40\0\0mntrRGB XYZ "
    header[36:40] = b"acsp"
    header[68:80] = fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    return bytes(header) + content


def with_profile(name: str, seed: int = 0, kind: str = "PNG") -> bytes:
    """The picture of `image(seed=seed)` stored in another colour space, profile embedded."""
    profile = icc(name)
    converted = ImageCms.profileToProfile(
        image(seed=seed),
        ImageCms.createProfile("sRGB"),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        outputMode="RGB",
    )
    assert converted is not None
    options = {"quality": 97, "subsampling": 0} if kind == "JPEG" else {}
    return save(converted, kind, icc_profile=profile, **options)


def cmyk(adobe: bool, seed: int = 0) -> bytes:
    """A CMYK JPEG, with or without the Adobe marker (APP14)."""
    data = save(image(seed=seed, mode="CMYK"), "JPEG", quality=92)
    at = data.find(b"\xff\xee")
    assert at > 0
    if adobe:
        return data
    (length,) = struct.unpack_from(">H", data, at + 2)
    return data[:at] + data[at + 2 + length :]


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated to `count` scans."""
    data = jpeg(64, 64, progressive=True)
    last = data.rfind(b"\xff\xda")
    scan = data[last:-2]
    return data[:last] + scan * max(1, count - data.count(b"\xff\xda") + 1) + b"\xff\xd9"


def zero_height() -> bytes:
    """A JPEG whose frame header says height 0 (to be told later by DNL)."""
    data = bytearray(jpeg())
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 7] = b"\0\0"
    return bytes(data)


def claims(width: int, height: int) -> bytes:
    """A small PNG whose header announces a huge picture."""
    return png_header(width, height) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A good PNG with a compressed text chunk that unpacks to 64 MB."""
    bomb = b"Comment\0\0" + zlib.compress(bytes(64 * 2**20), 9)
    data = png()
    return data[:33] + chunk(b"zTXt", bomb) + data[33:]


def gif_frames(count: int) -> bytes:
    """A GIF of `count` one-pixel frames."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + frame * count + b";"


def animated(kind: str, count: int = 3) -> bytes:
    """An animation or multi-page file; the first frame is `image(seed=0)`."""
    frames = [image(seed=i) for i in range(count)]
    options = {"lossless": True} if kind == "WEBP" else {}
    return save(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def rgba(kind: str = "PNG", seed: int = 0) -> bytes:
    """A picture whose transparency runs from left to right."""
    picture = image(seed=seed).convert("RGBA")
    ramp = np.tile(np.linspace(0, 255, picture.width).astype(np.uint8), (picture.height, 1))
    picture.putalpha(Image.fromarray(ramp))
    return save(picture, kind, **({"lossless": True} if kind == "WEBP" else {}))


def palette_transparent() -> bytes:
    """A palette PNG with a transparent colour (tRNS)."""
    return save(image(mode="P"), "PNG", transparency=0)


def plain_ppm() -> bytes:
    """A PPM whose samples are written as decimal numbers."""
    values = photo(64, 48)
    return b"P3\n64 48\n255\n" + " ".join(map(str, values.ravel())).encode() + b"\n"


def broken_exif() -> bytes:
    """A good JPEG whose EXIF block is noise."""
    data = jpeg()
    junk = b"Exif\0\0" + bytes(range(200))
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(junk) + 2) + junk + data[2:]


def text_chunk_png() -> bytes:
    """A PNG with ordinary text."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "a test")
    return png(pnginfo=info)


GOOD: dict[str, Callable[[], bytes]] = {
    "baseline.jpg": jpeg,
    "progressive.jpg": lambda: jpeg(progressive=True),
    "grey.jpg": lambda: save(image(mode="L"), "JPEG"),
    "subsampled.jpg": lambda: jpeg(subsampling=2),
    "restart.jpg": lambda: jpeg(restart_marker_blocks=4),
    "odd-size.jpg": lambda: jpeg(317, 211),
    "cmyk-adobe.jpg": lambda: cmyk(adobe=True),
    "cmyk-plain.jpg": lambda: cmyk(adobe=False),
    "trailing.jpg": lambda: jpeg() + b"garbage after the end" * 10,
    "broken-exif.jpg": broken_exif,
    "rgb.png": png,
    "text.png": text_chunk_png,
    "grey.png": lambda: save(image(mode="L"), "PNG"),
    "one-bit.png": lambda: save(image(mode="1"), "PNG"),
    "palette.png": lambda: save(image(mode="P"), "PNG"),
    "sixteen-bit.png": png16,
    "sixteen-bit-grey.png": lambda: save(
        Image.fromarray(photo(320, 240)[..., 0].astype(np.uint16) * 257), "PNG"
    ),
    "palette-transparent.png": palette_transparent,
    "rgba.png": rgba,
    "grey-alpha.png": lambda: save(image(mode="LA"), "PNG"),
    "trailing.png": lambda: png() + b"garbage",
    "text-bomb.png": text_bomb,
    "lossy.webp": lambda: save(image(), "WEBP", quality=90),
    "lossless.webp": lambda: save(image(), "WEBP", lossless=True),
    "exif.webp": lambda: oriented(6, "WEBP"),
    "alpha.webp": lambda: rgba("WEBP"),
    "animated.webp": lambda: animated("WEBP"),
    "animated.png": lambda: animated("PNG"),
    "rgb.bmp": lambda: save(image(), "BMP"),
    "palette.bmp": lambda: save(image(mode="P"), "BMP"),
    "rgb.tif": lambda: save(image(), "TIFF"),
    "one-bit.bmp": lambda: save(image(mode="1"), "BMP"),
    "one-bit.tif": lambda: save(image(mode="1"), "TIFF"),
    "lab.tif": lambda: save(image(mode="LAB"), "TIFF"),
    "lzw.tif": lambda: save(image(), "TIFF", compression="tiff_lzw"),
    "pages.tif": lambda: animated("TIFF"),
    "grey.pgm": lambda: save(image(mode="L"), "PPM"),
    "text.ppm": plain_ppm,
    "rgb.ppm": lambda: save(image(), "PPM"),
    "lossless.jp2": lambda: save(image(), "JPEG2000"),
    "lossy.j2k": lambda: save(
        image(), "JPEG2000", no_jp2=True, quality_mode="rates", quality_layers=[20]
    ),
    "one-frame.gif": lambda: save(image(mode="P"), "GIF"),
    "animated.gif": lambda: animated("GIF"),
    "lossy.avif": lambda: save(image(), "AVIF", quality=90),
    "p3.jpg": lambda: with_profile("p3", kind="JPEG"),
    "adobe.png": lambda: with_profile("adobe"),
    "one-pixel.png": lambda: png(1, 1),
    "thin.png": lambda: png(3, 8000),
    "wide.jpg": lambda: jpeg(8000, 3),
}
"""Files that must be scored, by name."""

BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.jpg": (lambda: b"", "empty"),
    "text.jpg": (lambda: b"This is a text, not a picture.\n" * 20, "unsupported_format"),
    "vector.svg.png": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
    "magic-only.jpg": (lambda: b"\xff\xd8\xff", "truncated"),
    "magic-only.png": (lambda: b"\x89PNG\r\n\x1a\n", "truncated"),
    "magic-only.gif": (lambda: b"GIF89a", "truncated"),
    "magic-only.bmp": (lambda: b"BM", "truncated"),
    "zero-height.jpg": (zero_height, "corrupt"),
    "claims-huge.png": (lambda: claims(60000, 60000), "too_many_pixels"),
    "claims-zero.png": (lambda: claims(0, 10), "corrupt"),
    "no-data.png": (
        lambda: png_header(64, 64) + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
        "corrupt",
    ),
    "no-frame.jpg": (lambda: b"\xff\xd8\xff\xd9", "corrupt"),
    "thousand-scans.jpg": (lambda: many_scans(1000), "corrupt"),
    "many-frames.gif": (lambda: gif_frames(10_001), "too_many_frames"),
    "cut.webp": (lambda: save(image(), "WEBP")[:-50], "truncated"),
    "cut.bmp": (lambda: save(image(), "BMP")[:40], "truncated"),
    "cut.gif": (lambda: save(image(mode="P"), "GIF")[:-2], "truncated"),
}
"""Files that must be refused, by name, with the code."""

for _tenth in range(1, 10):
    BAD[f"cut-{_tenth}.jpg"] = (
        lambda t=_tenth: jpeg()[: len(jpeg()) * t // 10],  # type: ignore[misc]
        "truncated",
    )
    BAD[f"cut-{_tenth}.png"] = (
        lambda t=_tenth: png()[: len(png()) * t // 10],  # type: ignore[misc]
        "truncated",
    )
