"""Pages of text and screens, drawn: sharp edges, few colours, empty areas, and nothing wrong.

Photographs alone would teach that such a picture is damaged. The words are none, the font is the
one inside Pillow.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.distortions.convert import Pixels

_SIZES = (
    *((640, 480), (800, 600), (1024, 768), (1280, 800), (1366, 768), (1600, 900), (1920, 1080)),
    *((600, 800), (900, 1200), (1240, 1754)),
)
_SYLLABLES = (
    *(consonant + vowel for consonant in "bdfghklmnprstvw" for vowel in "aeiou"),
    *("ing", "tion", "ment", "er", "st", "nd"),
)
_DARK = 0.3  # share of dark themes
_SCREENS = 0.5  # share of screens, the others are pages

Colour = tuple[int, int, int]


class _Theme(NamedTuple):
    paper: Colour
    ink: Colour
    panel: Colour
    accent: Colour


def draw(rng: np.random.Generator) -> Pixels:
    """Draw a page or a screen.

    Args:
        rng: what is on it.

    Returns:
        (H, W, 3) uint8; sides of 480 to 1920.
    """
    width, height = _SIZES[rng.integers(len(_SIZES))]
    theme = _theme(rng)
    image = Image.new("RGB", (width, height), theme.paper)
    canvas = ImageDraw.Draw(image)
    if rng.uniform() < _SCREENS:
        _screen(canvas, (width, height), theme, rng)
    else:
        _page(canvas, (width, height), theme, rng)
    return np.asarray(image)


def _theme(rng: np.random.Generator) -> _Theme:
    dark = rng.uniform() < _DARK
    paper = rng.integers(10, 45) if dark else rng.integers(225, 256)
    ink = rng.integers(190, 250) if dark else rng.integers(0, 70)
    panel = paper + rng.integers(12, 30) * (1 if dark else -1)
    tint = rng.integers(-6, 1, 3) * (0 if rng.uniform() < 0.5 else 1)

    def tinted(level: int) -> Colour:
        r, g, b = (level + tint).clip(0, 255).tolist()
        return r, g, b

    red, green, blue = rng.integers(30, 226, 3).tolist()
    return _Theme(tinted(paper), tinted(ink), tinted(panel), (red, green, blue))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _words(rng: np.random.Generator, count: int) -> str:
    words = [
        "".join(_SYLLABLES[i] for i in rng.integers(len(_SYLLABLES), size=rng.integers(1, 5)))
        for _ in range(count)
    ]
    return " ".join([words[0].capitalize(), *words[1:]])


def _column(
    canvas: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    ink: Colour,
    size: int,
    rng: np.random.Generator,
) -> None:
    """Fill a box (left, top, right, bottom) with paragraphs."""
    left, top, right, bottom = box
    font, step = _font(size), round(size * 1.4)
    per_line = max(1, round((right - left) / (size * 3.6)))
    until = top + (bottom - top) * rng.uniform(0.5, 1)  # pages end somewhere
    while top + step < until:
        for _ in range(rng.integers(2, 9)):
            if top + step >= bottom:
                return
            canvas.text((left, top), _words(rng, per_line), ink, font)
            top += step
        top += step // 2


def _page(
    canvas: ImageDraw.ImageDraw, size: tuple[int, int], theme: _Theme, rng: np.random.Generator
) -> None:
    width, height = size
    margin = round(width * rng.uniform(0.04, 0.12))
    letters = int(rng.integers(11, 27))
    top = margin
    if rng.uniform() < 0.7:
        colour = theme.accent if rng.uniform() < 0.4 else theme.ink
        canvas.text((margin, top), _words(rng, 3), colour, _font(letters * 2))
        top += letters * 3
    columns = int(rng.integers(1, 1 + max(1, min(3, width // (letters * 22)))))
    gap = margin // 2
    wide = (width - 2 * margin + gap) // columns
    for number in range(columns):
        left = margin + number * wide
        right = left + wide - gap
        # Lines are cut at the column's edge by the next one's paper.
        canvas.rectangle((left - gap, top, width, height), theme.paper)
        _column(canvas, (left, top, right, height - margin), theme.ink, letters, rng)
    canvas.rectangle((width - margin, 0, width, height), theme.paper)


def _screen(
    canvas: ImageDraw.ImageDraw, size: tuple[int, int], theme: _Theme, rng: np.random.Generator
) -> None:
    width, height = size
    letters = int(rng.integers(11, 18))
    bar = letters * 2 + 6
    side = round(width * rng.uniform(0.12, 0.28))
    _column(canvas, (side + 20, bar + 20, width - 20, height - 20), theme.ink, letters, rng)
    if rng.uniform() < 0.5:  # a table
        top = round(height * rng.uniform(0.4, 0.6))
        canvas.rectangle((side, top, width, height), theme.paper)
        rows, columns = rng.integers(4, 12), rng.integers(3, 7)
        for row in range(rows):
            y = top + row * (letters + 10)
            canvas.line((side + 20, y, width - 20, y), theme.panel)
            for column in range(columns):
                x = side + 24 + column * (width - side - 40) // columns
                canvas.text((x, y + 4), str(rng.integers(10_000)), theme.ink, _font(letters))
    canvas.rectangle((0, 0, side, height), theme.panel)
    for row in range(rng.integers(3, 15)):
        canvas.text((10, bar + 12 + row * bar), _words(rng, 1), theme.ink, _font(letters))
    canvas.rectangle((0, 0, width, bar), theme.accent if rng.uniform() < 0.5 else theme.panel)
    canvas.text((10, 5), _words(rng, 2), theme.ink, _font(letters))
    for number in range(rng.integers(1, 5)):
        right, top = width - 30 - number * 110, height - 50
        box = (right - 90, top, right, top + 30)
        canvas.rounded_rectangle(box, 5, theme.accent, theme.ink)
        canvas.text((right - 80, top + 6), _words(rng, 1)[:9], theme.paper, _font(letters))
