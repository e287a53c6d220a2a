"""How far a score moves when the same photograph comes in another form."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from giqa.scorer import Scorer

_ORIENTATION = 0x0112
_RIGHT_TOP = 6  # the stored rows run down the right side: turn by 90 degrees clockwise to view


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _half(image: Image.Image) -> bytes:
    size = max(1, image.width // 2), max(1, image.height // 2)
    return _png(image.resize(size, Image.Resampling.LANCZOS))


def _turned(image: Image.Image) -> bytes:
    """Stored on its side, with the tag that turns it back; the least lossy JPEG there is."""
    exif = Image.Exif()
    exif[_ORIENTATION] = _RIGHT_TOP
    out = io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_90).save(
        out, "JPEG", quality=100, subsampling=0, exif=exif
    )
    return out.getvalue()


def _squashed(image: Image.Image) -> bytes:
    """As an anamorphic 16:9 picture is stored: narrower by 3/4, the height as it was."""
    size = max(1, round(image.width * 3 / 4)), image.height
    return _png(image.resize(size, Image.Resampling.LANCZOS))


FORMS: Mapping[str, Callable[[Image.Image], bytes]] = {
    "png": _png,
    "half size": _half,
    "exif": _turned,
    "squashed": _squashed,
}
"""Ways to store the same photograph again."""


@dataclass(frozen=True)
class Move:
    """How far scores moved from those of the originals, in points of 100.

    Attributes:
        form: key of `FORMS`.
        n: photographs.
        median: of |difference|.
        p95: its 95th percentile.
        bias: mean difference; below 0 the form scores lower.
    """

    form: str
    n: int
    median: float
    p95: float
    bias: float


def invariance(scorer: Scorer, photographs: Iterable[Path]) -> list[Move]:
    """Score photographs in every form.

    Args:
        scorer: any scorer.
        photographs: image files that Pillow reads.

    Returns:
        One row a form.

    Raises:
        GiqaError: a photograph cannot be scored.
        ValueError: there is none.
    """
    paths = list(photographs)
    if not paths:
        raise ValueError("no photograph to measure with")

    def score(items: Iterable[Path | bytes]) -> np.ndarray:
        values = []
        for result in scorer.score(items):
            if result.error is not None:
                raise result.error
            values.append(result.score)
        return np.array(values, np.float64)

    def stored_again(form: Callable[[Image.Image], bytes]) -> Iterable[bytes]:
        for path in paths:
            with Image.open(path) as image:
                yield form(ImageOps.exif_transpose(image).convert("RGB"))

    before = score(paths)
    rows = []
    for name, form in FORMS.items():
        rows.append(moved(name, score(stored_again(form)) - before))
    return rows


def moved(form: str, difference: npt.NDArray[np.float64]) -> Move:
    """Sum up how far scores moved.

    Args:
        form: what was done.
        difference: (n,) scores afterwards less those before.
    """
    size = np.abs(difference)
    median, p95 = float(np.median(size)), float(np.percentile(size, 95))
    return Move(form, len(size), median, p95, float(difference.mean()))
