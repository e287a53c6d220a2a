"""Pictures of labels, one at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from giqa import inputs
from giqa.decode import decode_picture, probe
from giqa.errors import GiqaError, TableInvalidError
from giqa.types import Item
from training.distortions import apply, by_name
from training.transfer import calibrate
from training.transfer.labels import Label

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Rendered:
    """A rendered picture.

    Attributes:
        pixels: (height, width, 3) uint8, sRGB.
        value: of the type's parameter, the label's or the one that was found.
    """

    pixels: Pixels
    value: float


def render_one(label: Label, photos: Path) -> Pixels:
    """Render one label's picture, such as while training.

    Args:
        label: see `labels.read_group`.
        photos: the folder of photographs.

    Returns:
        (height, width, 3) uint8, sRGB; the same bytes every time.

    Raises:
        TableInvalidError: the photograph is another than was labelled.
        InputError: it cannot be read.
        UsageError: the type's value is out of range, or the label's PSNR cannot be reached.
    """
    return render(label, photos).pixels


def render(label: Label, photos: Path) -> Rendered:
    """As `render_one`, with the parameter's value."""
    # Labels of one photograph stand together: it is decoded once.
    image = _photo(photos / label.photo, label.sha256, label.width, label.height)
    kind = by_name(label.type)
    if label.value is not None:
        return Rendered(apply(image, kind, label.value, label.seed), label.value)
    assert label.psnr is not None
    try:
        value, pixels = calibrate.find(image, kind, label.psnr, label.seed)
    except GiqaError as e:
        e.item = f"{label.photo}: {e.item}"
        raise
    return Rendered(pixels, value)


def fit(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scale a picture until it covers a size, and cut its middle out, as KADIS-700k's were made.

    Args:
        picture: RGB.
        width: in pixels.
        height: in pixels.

    Returns:
        RGB of that size; the picture itself if it has it already.
    """
    if picture.size == (width, height):
        return picture
    scale = min(picture.width / width, picture.height / height)
    w, h = width * scale, height * scale
    x, y = (picture.width - w) / 2, (picture.height - h) / 2
    box = (max(x, 0), max(y, 0), min(x + w, picture.width), min(y + h, picture.height))
    return picture.resize((width, height), Image.Resampling.LANCZOS, box=box)


@lru_cache(maxsize=1)
def _photo(path: Path, sha256: str, width: int, height: int) -> Pixels:
    data = inputs.read(Item.of(path))
    if hashlib.sha256(data.tobytes()).hexdigest() != sha256:
        raise TableInvalidError(
            "is another file than was labelled", item=str(path), remedy="run transfer again"
        )
    try:
        whole = decode_picture(data, probe(data))
    except GiqaError as e:
        e.item = e.item or str(path)
        raise
    pixels = np.array(fit(whole, width, height))
    pixels.flags.writeable = False  # it is kept for the next label
    return pixels
