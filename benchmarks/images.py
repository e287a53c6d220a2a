"""Images to measure with, as JPEG bytes: a folder's, or the sample photographs of `demo`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.demo import photos
from benchmarks.options import Options
from giqa.errors import UsageError

SIZES = ((512, 512), (640, 480), (768, 1024), (1280, 720), (1920, 1080))
"""Widths and heights of mixed images, in pixels."""


def sized(options: Options, width: int, height: int, n: int) -> list[bytes]:
    """Make images of one size: crops of the pictures, so that no two are the same.

    Args:
        options: whose images and seed.
        width: in pixels.
        height: in pixels.
        n: how many.

    Returns:
        JPEG files.

    Raises:
        UsageError: the folder holds no JPEG file.
    """
    rng = np.random.default_rng((options.seed, width, height))
    return [_encode(_crop(p, width, height, rng), rng) for p in islice(_pictures(options), n)]


def mixed(options: Options, n: int) -> list[bytes]:
    """Take images of mixed sizes.

    Args:
        options: whose images and seed.
        n: how many.

    Returns:
        The folder's JPEG files as they are, repeated if there are fewer; without a folder, sample
        photographs in the sizes `SIZES` in turn.

    Raises:
        UsageError: the folder holds no JPEG file.
    """
    if options.images is not None:
        files = [path.read_bytes() for path in _files(options.images)[:n]]
        return [files[i % len(files)] for i in range(n)]
    rng = np.random.default_rng((options.seed, n))
    return [
        _encode(_crop(picture, *SIZES[i % len(SIZES)], rng), rng)
        for i, picture in enumerate(islice(_pictures(options), n))
    ]


def write(images: list[bytes], folder: Path) -> list[Path]:
    """Put images into files: `0000.jpg`, ...

    Args:
        images: JPEG files.
        folder: an existing folder.

    Returns:
        The paths, in order.
    """
    paths = [folder / f"{i:04}.jpg" for i in range(len(images))]
    for path, data in zip(paths, images, strict=True):
        path.write_bytes(data)
    return paths


def _files(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise UsageError("no JPEG files", item=str(folder))
    return found


def _pictures(options: Options) -> Iterator[Image.Image]:
    """Pictures, again and again."""
    if options.images is None:
        pictures = [Image.fromarray(p) for p in photos().values()]
        for i in count():
            yield pictures[i % len(pictures)]
    else:
        files = _files(options.images)
        for i in count():
            yield Image.open(files[i % len(files)]).convert("RGB")


def _crop(picture: Image.Image, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """A part of the picture, of the wanted shape, as large as can be or down to 3/4 of it."""
    scale = min(picture.width / width, picture.height / height) * rng.uniform(0.75, 1)
    w, h = width * scale, height * scale
    x, y = rng.uniform(0, picture.width - w), rng.uniform(0, picture.height - h)
    return picture.resize((width, height), Image.Resampling.LANCZOS, (x, y, x + w, y + h))


def _encode(picture: Image.Image, rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(rng.integers(75, 96)))
    return file.getvalue()
