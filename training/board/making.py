"""What makes a rendered picture of its source; workers import this alone."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from giqa import files
from training.board import native
from training.distortions.convert import Pixels
from training.distortions.groups import damaged
from training.evaluation.invariance import FORMS

CLEAN = "clean"
QUALITIES = (95, 79, 55, 37, 27, 15)
"""Of JPEG. Observers tell 79 from the lossless picture rarely, 55 at times, 27 mostly."""

FLAT_SIZES = ((512, 512), (640, 480), (1920, 1080), (4000, 3000))
PAGE_SIZES = ((800, 1100), (1240, 1754), (2480, 3508))
_LEVELS = {"black": 0, "dark grey": 40, "grey": 128, "white": 255}
FLATS = (*_LEVELS, "noise", "grey noise")
TEXT = "text"

_DARKER = 0.012
_LINES = 60
_TEXT = "quality of a picture as people see it without any reference at hand"
_WORDS = tuple(re.findall(r"\w+", _TEXT))

Options = dict[str, int]


class Job(NamedTuple):
    """A picture to be rendered.

    Attributes:
        maker: key of `MAKERS`.
        source: the photograph; None where there is none.
        number: the source's in its set; also the seed of its damage.
        kind: type of damage.
        level: strength, or JPEG's quality.
        out: the file.
        options: of the maker.
    """

    maker: str
    source: Path | None
    number: int
    kind: str
    level: int
    out: Path
    options: Options

    @property
    def reference(self) -> str:
        """What the picture was made from, by its number."""
        return f"{self.number:02d}"


def file_of(folder: Path, number: int, kind: str, level: int) -> Path:
    """Where a picture lies."""
    end = "jpg" if kind in ("jpeg", "exif") and folder.name in ("jpeg", "forms") else "png"
    stem = f"{number:02d}-{kind}" if kind == CLEAN else f"{number:02d}-{kind}-{level}"
    return folder / f"{stem.replace(' ', '_')}.{end}"


def write(jobs: Sequence[Job]) -> int:
    """Render pictures of one source; each file appears whole.

    Returns:
        How many.

    Raises:
        StorageFullError: no room.
        OSError: the source cannot be read.
    """
    cv2.setNumThreads(1)  # there is a process a CPU
    for job in jobs:
        files.write(job.out, MAKERS[job.maker](job))
    return len(jobs)


@lru_cache(1)
def _photo(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def _source(job: Job) -> Image.Image:
    assert job.source is not None
    return _photo(job.source)


def _png(pixels: Pixels | Image.Image) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _native(job: Job) -> bytes:
    image = _source(job)
    if job.number % job.options["whole"]:
        image = middle(image, job.options["pixels"])
    pixels = np.asarray(image)
    if job.kind != CLEAN:
        pixels = native.damaged(pixels, job.kind, job.level, job.number)
    return _png(pixels)


def middle(image: Image.Image, pixels: int) -> Image.Image:
    """The middle of a picture, in its shape, of at most so many native pixels."""
    width, height = image.size
    share = min(1.0, (pixels / (width * height)) ** 0.5)
    w, h = int(width * share), int(height * share)
    x, y = (width - w) // 2, (height - h) // 2
    return image.crop((x, y, x + w, y + h))


def _types(job: Job) -> bytes:
    image, side = _source(job), job.options["side"]
    if side and max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    kind = None if job.kind == CLEAN else job.kind
    return damaged(np.asarray(image), kind, job.level, job.number)


def _jpeg(job: Job) -> bytes:
    if job.kind == CLEAN:
        return _png(_source(job))
    out = io.BytesIO()
    _source(job).save(out, "JPEG", quality=job.level)
    return out.getvalue()


def _forms(job: Job) -> bytes:
    return _png(_source(job)) if job.kind == CLEAN else FORMS[job.kind](_source(job))


def flat_jobs(folder: Path) -> list[Job]:
    """Flat pictures, noise and pages of text, of several sizes."""
    kinds = [(kind, i) for kind in FLATS for i in range(len(FLAT_SIZES))]
    kinds += [(TEXT, i) for i in range(len(PAGE_SIZES))]
    return [Job("flats", None, i, kind, 0, file_of(folder, i, kind, 0), {}) for kind, i in kinds]


def _flats(job: Job) -> bytes:
    if job.source is not None:
        return _png((np.asarray(_source(job)) * _DARKER).astype(np.uint8))
    if job.kind == TEXT:
        return _png(_page(*PAGE_SIZES[job.number]))
    width, height = FLAT_SIZES[job.number]
    rng = np.random.default_rng([job.number, FLATS.index(job.kind)])
    if job.kind == "noise":
        return _png(rng.integers(0, 256, (height, width, 3), np.uint8))
    if job.kind == "grey noise":
        grey = rng.normal(128, 50, (height, width, 1)).clip(0, 255).astype(np.uint8)
        return _png(grey.repeat(3, 2))
    return _png(np.full((height, width, 3), _LEVELS[job.kind], np.uint8))


def _page(width: int, height: int) -> Image.Image:
    page = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(width // _LINES)
    for line in range(_LINES):
        words = " ".join(_WORDS[k % len(_WORDS)] for k in range(line, line + len(_WORDS) - 1))
        at = width // 10, height // 12 + line * height // 72
        draw.text(at, words, fill="black", font=font)
    return page


MAKERS: Mapping[str, Callable[[Job], bytes]] = {
    "native": _native,
    "types": _types,
    "jpeg": _jpeg,
    "forms": _forms,
    "flats": _flats,
}
