"""A picture of what scores look like: photographs made worse step by step, with score and band."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from giqa.contract import band
from giqa.scorer import Scorer

_TILE = 300
_CAPTION = 26


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


def _noise(image: Image.Image, sigma: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, sigma, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


STEPS: Sequence[tuple[str, Sequence[float], Callable[[Image.Image, float], Image.Image]]] = (
    ("blur, sigma", (0, 1, 2, 4, 8), lambda i, x: i.filter(ImageFilter.GaussianBlur(x))),
    ("JPEG, quality", (90, 30, 15, 8, 3), lambda i, x: _jpeg(i, int(x))),
    ("noise, sigma", (0, 10, 25, 50, 100), lambda i, x: _noise(i, x)),
)
"""Degradations: name, parameters from harmless to severe, what does it."""


def bands(scorer: Scorer, photographs: Sequence[Image.Image]) -> Image.Image:
    """Degrade photographs, score them, and lay them out with captions.

    Args:
        scorer: any scorer.
        photographs: RGB, one a row; row i is degraded by `STEPS[i]`, cyclically.

    Returns:
        An RGB picture, a row a photograph.

    Raises:
        GiqaError: a picture cannot be scored.
    """
    font = ImageFont.load_default(15)
    columns = len(STEPS[0][1])
    sheet = Image.new(
        "RGB", (columns * _TILE, len(photographs) * (_TILE + _CAPTION)), (255, 255, 255)
    )
    draw = ImageDraw.Draw(sheet)
    for row, photograph in enumerate(photographs):
        name, parameters, degrade = STEPS[row % len(STEPS)]
        made = [degrade(photograph, value) for value in parameters]
        for column, (image, value, result) in enumerate(
            zip(made, parameters, scorer.score(map(_png, made)), strict=True)
        ):
            if result.error is not None:
                raise result.error
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            tile = image.crop((left, top, left + side, top + side)).resize((_TILE - 6, _TILE - 6))
            x, y = column * _TILE + 3, row * (_TILE + _CAPTION)
            sheet.paste(tile, (x, y + _CAPTION))
            assert result.score is not None
            text = f"{name} {value:g}: {result.score:.0f}, {band(result.score)}"
            draw.text((x, y + 4), text, (0, 0, 0), font)
    return sheet


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()
