"""Pictures in every format and kind that is read, of one scene."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from tests.makers import icc, oriented, png_of, pnm, save
from tests.photos import photo

SIDE = 448
"""Such pictures are their own views: what is compared is not resized."""

RGB = photo(SIDE, SIDE, noise=2)
GREY = np.asarray(Image.fromarray(RGB).convert("L"))
WIDE = RGB.astype(np.uint16) * 257
_ALPHA = np.tile(np.linspace(0, 255, SIDE).round().astype(np.uint8), (SIDE, 1))
MATRICES = {"601": (6, 0.299, 0.114), "709": (1, 0.2126, 0.0722), "2020": (9, 0.2627, 0.0593)}
"""H.273's number, Kr and Kb."""


def tiff(values: np.ndarray, **options: object) -> bytes:
    """A TIFF by tifffile."""
    out = io.BytesIO()
    tifffile.imwrite(out, values, **options)
    return out.getvalue()


def _jpegs() -> Iterator[tuple[str, bytes]]:
    picture = Image.fromarray(RGB)
    for sampling, quality in itertools.product((0, 1, 2, "4:4:0", "4:1:1"), (60, 92)):
        yield (
            f"{sampling} {quality}",
            imagecodecs.jpeg8_encode(
                RGB,
                level=quality,
                subsampling={0: "444", 1: "422", 2: "420"}.get(
                    sampling, str(sampling).replace(":", "")
                ),
            ),
        )
    for options in (
        {"progressive": True},
        {"restart_marker_blocks": 7},
        {"keep_rgb": True, "subsampling": 0},
    ):
        yield str(options), save(picture, "JPEG", quality=90, **options)
    yield "grey", save(picture.convert("L"), "JPEG", quality=90)
    yield "profile", save(picture, "JPEG", quality=97, subsampling=0, icc_profile=icc("p3"))


def _pngs() -> Iterator[tuple[str, bytes]]:
    picture = Image.fromarray(RGB)
    for mode in ("1", "L", "P", "RGB"):
        yield mode, save(picture.convert(mode), "PNG")
    for colours in (2, 4, 16):
        yield f"palette of {colours}", save(picture.quantize(colours), "PNG")
    for bits in (1, 2, 4, 8, 16):
        yield f"grey {bits}", png_of((GREY.astype(int) * ((1 << bits) - 1) + 127) // 255, bits)
    yield "RGB 16", png_of(WIDE, 16)
    yield "RGBA 16", png_of(np.dstack([WIDE, _ALPHA.astype(np.uint16) * 257]), 16)
    yield "RGBA", save(Image.fromarray(np.dstack([RGB, _ALPHA])), "PNG")
    yield "LA", save(Image.fromarray(np.dstack([GREY, _ALPHA])), "PNG")
    yield "transparent colour", save(picture.quantize(64), "PNG", transparency=3)
    yield "profile", save(picture, "PNG", icc_profile=icc("adobe"))


def _tiffs() -> Iterator[tuple[str, bytes]]:
    layouts: tuple[dict[str, object], ...] = ({}, {"rowsperstrip": 50}, {"tile": (64, 80)})
    packings = (None, "lzw", "zlib", "packbits")
    for values, layout, packing in itertools.product((RGB, WIDE, GREY), layouts, packings):
        kind = "minisblack" if values.ndim == 2 else "rgb"
        name = f"{values.dtype} {kind} {layout} {packing}"
        yield name, tiff(values, photometric=kind, compression=packing, **layout)
    for values, order, large in itertools.product((RGB, WIDE), "<>", (False, True)):
        planes = {"photometric": "rgb", "planarconfig": "separate", "byteorder": order}
        yield (
            f"{values.dtype} planes {order} {large}",
            tiff(np.moveaxis(values, 2, 0), bigtiff=large, **planes),
        )
    for values in (RGB, WIDE):
        yield (
            f"{values.dtype} predictor",
            tiff(values, photometric="rgb", compression="lzw", predictor=True),
        )
    yield "MINISWHITE 8", tiff(255 - GREY, photometric="miniswhite")
    yield "MINISWHITE 16", tiff(65535 - GREY.astype(np.uint16) * 257, photometric="miniswhite")
    yield "palette", save(Image.fromarray(RGB).quantize(), "TIFF")
    yield "bits", save(Image.fromarray(RGB).convert("1"), "TIFF", compression="group4")
    yield "alpha", tiff(np.dstack([RGB, _ALPHA]), photometric="rgb", extrasamples=["unassalpha"])
    yield "JPEG", save(Image.fromarray(RGB), "TIFF", compression="jpeg", quality=95)


def _webps() -> Iterator[tuple[str, bytes]]:
    for options in ({"quality": 60}, {"quality": 95}, {"lossless": True}):
        yield str(options), save(Image.fromarray(RGB), "WEBP", **options)
        yield f"{options} A", save(Image.fromarray(np.dstack([RGB, _ALPHA])), "WEBP", **options)


def _avifs() -> Iterator[tuple[str, bytes]]:
    for bits, (name, (matrix, _, _)), pixels in itertools.product(
        (8, 10, 12), MATRICES.items(), ("420", "422", "444", "400")
    ):
        values = (GREY if pixels == "400" else RGB).astype(int) * ((1 << bits) - 1) // 255
        options = {"bitspersample": bits, "primaries": 1, "transfer": 13, "matrix": matrix}
        made = imagecodecs.avif_encode(
            values.astype(np.uint8 if bits == 8 else np.uint16),
            level=95,
            speed=9,
            pixelformat=pixels,
            **options,
        )
        yield f"{bits} {name} {pixels}", made


def _turned() -> Iterator[tuple[str, bytes]]:
    for kind, turn in itertools.product(("JPEG", "PNG", "TIFF", "WEBP"), range(1, 9)):
        yield f"{kind} {turn}", oriented(turn, kind)


def _others() -> Iterator[tuple[str, bytes]]:
    picture = Image.fromarray(RGB)
    for mode in ("1", "L", "P", "RGB"):
        yield f"{mode}.bmp", save(picture.convert(mode), "BMP")
    for white in (1, 15, 100, 255, 1023, 65535):
        yield f"{white}.ppm", pnm("P6", RGB, white)
        yield f"{white}.pgm", pnm("P5", GREY, white)
    yield "grey.jp2", save(picture.convert("L"), "JPEG2000")
    yield "lossless.jp2", save(picture, "JPEG2000")
    yield (
        "lossy.jp2",
        save(picture, "JPEG2000", quality_mode="rates", quality_layers=[10], irreversible=True),
    )
    yield "one.gif", save(picture.quantize(), "GIF")
    for values in (RGB, GREY):
        yield f"{values.ndim}.jxl", imagecodecs.jpegxl_encode(values, lossless=True)
    yield "lossy.jxl", imagecodecs.jpegxl_encode(RGB, distance=1.0)


STILLS: dict[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
    "JPEG: 4:4:4 to 4:1:1, progressive, grey, RGB, a profile": _jpegs,
    "PNG: 1 to 16 bits, grey, palettes, alpha, a profile": _pngs,
    "TIFF: 8 and 16 bits, strips, tiles, planes, LZW, ..., BigTIFF, MINISWHITE": _tiffs,
    "WebP: lossy, lossless, alpha": _webps,
    "AVIF: 8, 10, 12 bits, 4:0:0 to 4:4:4, BT.601, 709, 2020": _avifs,
    "EXIF orientations 1 to 8 of JPEG, PNG, TIFF, WebP": _turned,
    "BMP, PNM of any maxval, JPEG 2000, GIF, JPEG XL": _others,
}
"""What makes the files of each row."""
