"""The pictures of README and site, drawn by giqa itself: `python -m build pictures`.

Of two photographs that ship with scikit-image and that their photographers gave to everyone (CC0):
chelsea by Stefan van der Walt, coffee by Rachel Michetti.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from build.docs import PAGES
from giqa import Limits, LocalScorer
from giqa.errors import MissingExtraError
from giqa.files import write
from giqa.report import MapFolder

if TYPE_CHECKING:
    from giqa import ImageResult

WIDTH = 360
"""Of one picture on a sheet; the text above it takes `_LINE` more."""
_LINE = 26
_QUALITY = 82


def _photo(name: str) -> Image.Image:
    try:
        from skimage import data
    except ImportError as e:
        raise MissingExtraError("the photographs are scikit-image's", extra="demo") from e
    return Image.fromarray(getattr(data, name)())


def _jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _blurred(picture: Image.Image, sigma: float) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(sigma))


def _noisy(picture: Image.Image, sigma: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, sigma, (picture.height, picture.width, 3))
    return Image.fromarray(np.clip(np.rint(np.asarray(picture) + noise), 0, 255).astype(np.uint8))


def _half(picture: Image.Image) -> Image.Image:
    half = (picture.width // 2, 0, picture.width, picture.height)
    mixed = picture.copy()
    mixed.paste(_blurred(picture, 5).crop(half), half)
    return mixed


def _stripes() -> Image.Image:
    drawn = np.full((400, 600, 3), 255, np.uint8)
    drawn[::20] = 0
    return Image.fromarray(drawn)


def damage() -> Iterator[tuple[str, Image.Image]]:
    """What scores are for: the same photograph, the more damaged the lower."""
    coffee, chelsea = _photo("coffee"), _photo("chelsea")
    yield "as it is", coffee
    yield "JPEG, quality 12", _jpeg(coffee, 12)
    yield "JPEG, quality 3", _jpeg(coffee, 3)
    yield "as it is", chelsea
    yield "blurred, sigma 2", _blurred(chelsea, 2)
    yield "blurred, sigma 6", _blurred(chelsea, 6)
    yield "as it is", coffee
    yield "noise, sigma 10", _noisy(coffee, 10)
    yield "noise, sigma 40", _noisy(coffee, 40)


def failures() -> Iterator[tuple[str, Image.Image]]:
    """What scores get wrong."""
    coffee, chelsea = _photo("coffee"), _photo("chelsea")
    big = (chelsea.width * 8, chelsea.height * 8)
    yield "never compressed", chelsea
    yield "JPEG, quality 75", _jpeg(chelsea, 75)
    yield "enlarged 8 times, 3608x2400", chelsea.resize(big, Image.Resampling.BICUBIC)
    yield "blurred, sigma 9", _blurred(chelsea, 9)
    yield "blurred, sigma 30", _blurred(chelsea, 30)
    yield "half of it blurred", _half(chelsea)
    yield "nearly black", coffee.point(lambda value: value * 0.06)
    yield "without colour", coffee.convert("L").convert("RGB")
    yield "no photograph", _stripes()


def _encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def sheet(
    scorer: LocalScorer, pictures: Iterable[tuple[str, Image.Image]], columns: int = 3
) -> Image.Image:
    """Draw pictures in a grid, each under what was done to it, its score and band."""
    named = list(pictures)
    results = scorer.score([_encoded(picture) for _, picture in named])
    tiles = [
        _tile(f"{name}: {result.score:.0f}, {result.band}", picture)
        for (name, picture), result in zip(named, results, strict=True)
    ]
    height = max(tile.height for tile in tiles)
    rows = -(-len(tiles) // columns)
    drawn = Image.new("RGB", (columns * WIDTH, rows * height), "white")
    for i, tile in enumerate(tiles):
        drawn.paste(tile, (i % columns * WIDTH, i // columns * height))
    return drawn


def _tile(text: str, picture: Image.Image) -> Image.Image:
    inner = WIDTH - 6
    shown = picture.resize((inner, round(picture.height * inner / picture.width)))
    tile = Image.new("RGB", (WIDTH, shown.height + _LINE + 6), "white")
    tile.paste(shown, (3, _LINE))
    font: Any = ImageFont.load_default(16)
    ImageDraw.Draw(tile).text((3, 3), text, "black", font)
    return tile


def with_map(scorer: LocalScorer, name: str, folder: Path) -> Image.Image:
    """Draw a photograph and, beside it, its quality map as `giqa score --map` writes it."""
    path = folder / f"{name}.png"
    _photo(name).save(path)
    (result,) = scorer.score([path], quality_map=True)
    tiles = [_tile(f"{result.score:.0f}, {result.band}", Image.open(path))]
    tiles.append(_tile("its quality map: blue good, red bad", _map(result, folder)))
    drawn = Image.new("RGB", (2 * WIDTH, tiles[0].height), "white")
    for i, tile in enumerate(tiles):
        drawn.paste(tile, (i * WIDTH, 0))
    return drawn


def _map(result: ImageResult, folder: Path) -> Image.Image:
    writer = MapFolder(folder / "maps", limits=Limits())
    writer.write(result)
    writer.close()
    (path,) = (folder / "maps").glob("*.png")
    return Image.open(path).convert("RGB")


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=PAGES / "pictures",
    help="Where they go.  [default: the site's]",
)
def pictures(out: Path) -> None:
    """Draw the pictures of README and site; do so again when the default bundle changes.

    Example: python -m build pictures
    """
    from tempfile import TemporaryDirectory

    with LocalScorer() as scorer, TemporaryDirectory() as folder:
        drawn = {
            "map.jpg": with_map(scorer, "chelsea", Path(folder)),
            "damage.jpg": sheet(scorer, damage()),
            "failures.jpg": sheet(scorer, failures()),
        }
    out.mkdir(parents=True, exist_ok=True)
    for name, picture in drawn.items():
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
        write(out / name, file.getvalue())
        click.echo(out / name)
