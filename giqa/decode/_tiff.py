"""TIFF: read by its own tags with tifffile, which knows what Pillow guesses or gets wrong.

Whatever a file's layout, samples and byte order, values become 8 bits by the range that the tags
give. A range that is told nowhere is refused: the picture's own darkest and brightest values say
nothing.
"""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from giqa.decode._ends import jpeg_frame
from giqa.decode._libtiff import FAX, LZW, unpacked
from giqa.errors import (
    CorruptError,
    GiqaError,
    TooManyFramesError,
    TruncatedError,
    UnsupportedFormatError,
)

_MODES = {0: "L", 1: "L", 2: "RGB", 3: "P", 5: "CMYK", 6: "RGB", 8: "LAB"}
"""Pillow's names of what photometric interpretations give."""
_RAW = (32803, 34892)
"""Photometric interpretations of a sensor's data: CFA, linear RAW."""
_CANON, _PHASE_ONE = b"CR", (b"II", b"MM")
"""What follows the header of cameras' own formats that begin like TIFF."""
_LOSSLESS = 0xC3
"""The mark of a JPEG's frame that is coded without loss, as Canon codes its sensors' data."""
_DNG, _MAKE, _ICC = 50706, 271, 34675
_UINT, _INT, _FLOAT = 1, 2, 3
_SHARE = 0.9
"""Least share of the announced width and height that a RAW file's preview stands for it with."""
_SAMPLES = 8
_TILE = 1 << 22
"""Pixels that a tile may have in any picture; in a larger one, as many as the picture."""
_CHUNK = 1 << 18
"""Values that are scaled at a time."""
_LEAST, _MOST = -1.0, 2.0
"""What float samples may be that are to be 0..1: a little over the edges."""

_COMPRESSIONS = (1, LZW, 6, 7, 8, 32773, 32946, 34892, 34925, 50000)
"""None, LZW, JPEG, deflate, PackBits, LZMA, Zstandard. Others (LERC, JPEG 2000, WebP, ...) have a
size of their own, which their decoders take memory for, whatever the tags say."""
_JPEG = (6, 7, 34892)
_HEAD, _MARGIN = 1 << 17, 64
"""How far a JPEG's header may reach; pixels by which its size may be rounded up."""

_EXTRA = "pip install 'giqa[formats]'"
_TELL = "convert it to unsigned samples, or say its range (SMinSampleValue, SMaxSampleValue)"

logging.getLogger("tifffile").addHandler(logging.NullHandler())


class Tiff:
    """An open TIFF and the one picture of it that is looked at.

    Args:
        raw: the whole file.
        most: most pages.

    Attributes:
        page: tifffile's page.
        frames: pages.
        preview: whether it is the preview of a camera's RAW file.

    Raises:
        CorruptError: the file's structure makes no sense.
        TooManyFramesError: more pages than that.
        TruncatedError: it points past its end.
        UnsupportedFormatError: its payload is not read; the message names it.
    """

    def __init__(self, raw: bytes, most: int) -> None:
        try:
            import tifffile
        except ImportError as e:
            raise UnsupportedFormatError("TIFF needs an extra", remedy=_EXTRA) from e
        self._raw = raw
        self._decoders: Any = tifffile.TIFF.DECOMPRESSORS
        if raw[8:10] in _PHASE_ONE:
            raise UnsupportedFormatError(
                "camera RAW (Phase One IIQ) is not read", remedy="develop it to JPEG or TIFF"
            )
        try:
            # tifffile calculates with what tags hold, whatever that is.
            with np.errstate(all="ignore"):
                self._file: Any = tifffile.TiffFile(io.BytesIO(raw))
                self.frames = self._count(most)
                self.page: Any
                self.page, self.preview = self._choose()
        except (GiqaError, MemoryError, Warning):
            raise
        except Exception as e:  # tifffile raises whatever struct and numpy do
            raise CorruptError(f"TIFF cannot be read: {str(e)[:120]}") from e
        self._check(len(raw))

    @property
    def mode(self) -> str:
        """Pillow's mode of such a picture."""
        bits = self.page.bitspersample
        mode = _MODES[int(self.page.photometric)]
        if mode == "L":
            mode = {1: "1", 16: "I;16"}.get(bits, "L")
        return {"L": "LA", "RGB": "RGBA"}.get(mode, mode) if self.has_alpha else mode

    @property
    def has_alpha(self) -> bool:
        """Whether an extra sample is said to be transparency."""
        return any(int(kind) in (1, 2) for kind in self.page.extrasamples)

    @property
    def orientation(self) -> tuple[int, bool]:
        """As `exif_orientation`; a preview is turned as the file's first page says."""
        tag = self.page.tags.get(274) or self._file.pages[0].tags.get(274)
        if tag is None:
            return 1, True
        sound = isinstance(tag.value, int) and 1 <= tag.value <= 8
        return (int(tag.value) if sound else 1), sound and int(tag.dtype) == 3

    @property
    def icc(self) -> bytes | None:
        """The embedded profile."""
        value = self.page.tags.valueof(_ICC)
        return value if isinstance(value, bytes) else None

    def picture(self) -> Image.Image:
        """Decode; 8 bits in Pillow's mode L, RGB, CMYK or LAB, with A where there is alpha.

        Raises:
            CorruptError: it cannot be decoded.
            UnsupportedFormatError: the range of its values is told nowhere.
        """
        page = self.page
        try:
            packed = int(page.compression) in (LZW, *FAX)
            values = unpacked(page, self._raw) if packed else page.asarray(maxworkers=1)
        except (MemoryError, Warning):
            raise
        except Exception as e:  # and whatever its codecs do
            if self.preview:
                raise UnsupportedFormatError("camera RAW whose preview is not read") from e
            raise CorruptError(f"cannot be decoded: {str(e)[:120]}") from e
        if int(page.planarconfig) == 2 and page.samplesperpixel > 1:
            values = np.moveaxis(values, 0, -1)
        values = values.reshape(page.imagelength, page.imagewidth, -1)
        kind = int(page.photometric)
        if kind == 3:
            colours = np.asarray(page.colormap)
            shift = 8 if colours.max(initial=0) > 255 else 0
            shown = (colours[:, values[..., 0]] >> shift).transpose(1, 2, 0)
            return Image.fromarray(np.ascontiguousarray(shown.astype(np.uint8)))
        levels = self._levels(values)
        count = {"L": 1, "RGB": 3, "CMYK": 4, "LAB": 3}[_MODES[kind]]
        colour: npt.NDArray[Any] = levels[..., :count]
        if kind == 0:
            colour = 255 - colour
        if kind == 8:
            colour = colour ^ np.array([0, 128, 128], np.uint8)  # a and b are signed
            parts = [Image.fromarray(np.ascontiguousarray(colour[..., i])) for i in range(3)]
            return Image.merge("LAB", parts)
        if self.has_alpha and count in (1, 3):
            at = next(i for i, k in enumerate(page.extrasamples) if int(k) in (1, 2))
            alpha = levels[..., count + at : count + at + 1]
            if int(page.extrasamples[at]) == 1:  # multiplied already
                part = np.maximum(alpha, 1).astype(np.uint16)
                colour = np.minimum((colour.astype(np.uint16) * 255 + part // 2) // part, 255)
            colour = np.concatenate([colour.astype(np.uint8), alpha], -1)
        colour = np.ascontiguousarray(colour[..., 0] if colour.shape[-1] == 1 else colour)
        return Image.fromarray(colour, "CMYK" if count == 4 else None)

    def _levels(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Values as 8 bits, by the range that the tags tell."""
        if values.dtype == bool:
            return values.astype(np.uint8) * np.uint8(255)
        low, high = self._range()
        if values.dtype == np.uint8 and (low, high) == (0, 255):
            return values
        if values.dtype.kind == "f":
            with np.errstate(all="ignore"):
                worst = np.abs(values - 0.5 * (low + high)).max(initial=0) / (high - low)
            if not worst <= _MOST - 0.5:  # NaN, too
                raise UnsupportedFormatError(
                    "TIFF of float samples that are not between 0 and 1",
                    remedy=_TELL,
                )

        def scaled(part: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
            shown = (part.astype(np.float64) - low) * (255 / (high - low)) + 0.5
            return np.clip(shown, 0, 255).astype(np.uint8)

        if values.dtype in (np.uint8, np.uint16):  # each value once
            table = scaled(np.arange(np.iinfo(values.dtype).max + 1))
            return np.asarray(table[values], np.uint8)
        found = np.empty(values.shape, np.uint8)
        rows = max(1, _CHUNK // max(values[0].size, 1))
        for top in range(0, len(values), rows):
            found[top : top + rows] = scaled(values[top : top + rows])
        return found

    def _range(self) -> tuple[float, float]:
        page = self.page
        told = [_number(page.tags.valueof(tag)) for tag in (340, 341)]
        if told[0] is not None and told[1] is not None and told[0] < told[1]:
            return told[0], told[1]
        kind = int(page.sampleformat)
        if kind == _UINT:
            return 0, 2**page.bitspersample - 1
        if kind == _FLOAT:
            return 0, 1
        raise UnsupportedFormatError(
            "TIFF of signed samples, whose range is told nowhere",
            remedy=_TELL,
        )

    def _count(self, most: int) -> int:
        pages = self._file.pages
        count = 0
        while count <= most:
            try:
                pages[count]
            except IndexError:
                break
            count += 1
        if count > most:
            raise TooManyFramesError(f"more than {most} frames")
        if not count:
            raise CorruptError("TIFF without a picture")
        return count

    def _choose(self) -> tuple[Any, bool]:
        """The first page; where that is a thumbnail, the picture that it is one of."""
        first = self._file.pages[0]
        tops = [self._file.pages[i] for i in range(min(self.frames, 16))]
        below = [one for page in tops for one in (page.pages or [])]
        every = [*tops, *below]
        sensors = [page for page in every if self._of_sensor(page)]
        raw = _DNG in first.tags or bool(sensors)
        raw = raw or (_reduced(first) and _area(first) < max(map(_area, below), default=0))
        inner = [one for one in below if _area(one) > _area(first)]
        if not raw and not (_reduced(first) or inner):
            return first, False
        readable = [p for p in every if p not in sensors and self._readable(p)]
        if not raw and (whole := [p for p in readable if not _reduced(p)]):
            return max(whole, key=_area), False
        best = max(readable, key=_area, default=None)
        if best is None or not all(_stands_for(best, self._size(page)) for page in every):
            make = str(first.tags.valueof(_MAKE) or "").strip()
            name = "DNG" if _DNG in first.tags else make or "unknown make"
            name = "Canon CR2" if self._raw[8:10] == _CANON else name
            raise UnsupportedFormatError(
                f"camera RAW ({name}) without a preview of the photograph's size",
                remedy="develop it to JPEG or TIFF",
            )
        return best, bool(sensors)

    def _of_sensor(self, page: Any) -> bool:
        """Whether a page is no picture yet."""
        return _kind(page) in _RAW or (
            self._raw[8:10] == _CANON and self._jpeg(page)[0] == _LOSSLESS
        )

    def _size(self, page: Any) -> tuple[int, int]:
        """Width and height; Canon's tags do not tell it, and its JPEG's columns are 2 or 4."""
        marker, _, width, height, channels = self._jpeg(page)
        if _kind(page) in _RAW or marker != _LOSSLESS:
            return page.imagewidth, page.imagelength
        return (width * channels if channels in (2, 4) else width), height

    def _jpeg(self, page: Any) -> tuple[int, int, int, int, int]:
        """The frame header of a page's first JPEG, see `jpeg_frame`."""
        if int(page.compression) not in _JPEG or not page.dataoffsets:
            return 0, 8, 0, 0, 0
        at = page.dataoffsets[0]
        return jpeg_frame(self._raw[at : at + _HEAD])

    def _readable(self, page: Any) -> bool:
        return _kind(page) in _MODES and self._unpacks(page)

    def _unpacks(self, page: Any) -> bool:
        """Whether there is a decoder that does not trust a header over the file's tags."""
        kind = int(page.compression)
        try:
            return kind in FAX or (kind in _COMPRESSIONS and kind in self._decoders)
        except Exception:  # tifffile's table imports codecs when it is asked
            return False

    def _as_announced(self, page: Any) -> bool:
        """Whether no JPEG in it is of another size than its strip or tile."""
        wide, high = page.imagewidth, page.imagelength
        if page.is_tiled:
            wide, high = page.tilewidth, page.tilelength
        for at, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            _, _, width, height, _ = jpeg_frame(self._raw[at : at + min(count, _HEAD)])
            if width > 2 * wide + _MARGIN or height > 2 * high + _MARGIN:
                return False
        return True

    def _check(self, size: int) -> None:
        page = self.page
        if _kind(page) not in _MODES:
            raise UnsupportedFormatError(f"TIFF of {_named(page.photometric)} pixels is not read")
        if _kind(page) == 6 and int(page.compression) not in (6, 7, 33003, 33004, 33005, 34712):
            raise UnsupportedFormatError("TIFF of uncompressed YCbCr pixels is not read")
        if not self._unpacks(page):
            raise UnsupportedFormatError(
                f"TIFF with {_named(page.compression)} compression is not read",
                remedy=f"{_EXTRA}, or convert it to PNG",
            )
        if page.dtype is None or page.dtype.kind not in "buif" or page.imagedepth > 1:
            raise UnsupportedFormatError("TIFF of samples that are no plain numbers is not read")
        if page.samplesperpixel > _SAMPLES:
            raise UnsupportedFormatError(f"TIFF of {page.samplesperpixel} samples a pixel")
        if _kind(page) == 8 and page.bitspersample != 8:
            raise UnsupportedFormatError(f"TIFF of {page.bitspersample}-bit Lab is not read")
        if int(page.compression) in _JPEG and not self._as_announced(page):
            raise CorruptError("TIFF whose JPEG is larger than it says")
        tile = page.tilewidth * page.tilelength
        if tile > max(_TILE, 4 * _area(page)):
            raise CorruptError(f"TIFF of tiles of {page.tilewidth}x{page.tilelength} pixels")
        pairs = zip(page.dataoffsets, page.databytecounts, strict=False)
        end = max((start + count for start, count in pairs), default=0)
        if end > size:
            raise TruncatedError(f"TIFF of {size} bytes points to data up to {end}")


def _kind(page: Any) -> int:
    return int(page.photometric)


def _named(value: Any) -> str:
    return str(getattr(value, "name", value))


def _area(page: Any) -> int:
    return int(page.imagewidth) * int(page.imagelength)


def _reduced(page: Any) -> bool:
    return bool(int(page.subfiletype) & 1)


def _stands_for(page: Any, size: tuple[int, int]) -> bool:
    width, height = size
    return bool(page.imagewidth >= _SHARE * width and page.imagelength >= _SHARE * height)


def _number(value: Any) -> float | None:
    if isinstance(value, tuple):
        value = value[0] if value and len(set(value)) == 1 else None
    return float(value) if isinstance(value, int | float) else None
