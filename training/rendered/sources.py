"""Clean photographs of a recipe: found, checked, and none that is held out."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from giqa.errors import NotFoundError, TooManyPixelsError, UnreadableError, UsageError
from training.data.table import read_csv, read_table
from training.data.unlabelled import list_images
from training.rendered.recipe import Recipe, Source

SMALLEST_SIDE = 96
"""Shorter photographs are refused: half of them is still rendered, and coded by video codecs."""

_COLUMNS = ("source", "path", "bytes", "mos")


@dataclass(frozen=True)
class Photo:
    """A clean photograph.

    Attributes:
        path: the file.
        bytes: its size.
        mos: its opinion score, 0..100; None if nobody gave one.
    """

    path: Path
    bytes: int
    mos: float | None


@dataclass(frozen=True)
class Pool:
    """The photographs of one source.

    Attributes:
        share: how often it is drawn from, beside the others.
        photos: at least one.
    """

    share: float
    photos: tuple[Photo, ...]


@dataclass(frozen=True)
class Found:
    """What a recipe's sources have.

    Attributes:
        pools: one a source, in the recipe's order.
        held_out: how many photographs were left out for being held out.
        named: how many the recipe's lists name.
    """

    pools: tuple[Pool, ...]
    held_out: int
    named: int

    def listing(self) -> str:
        """All photographs as CSV: the same sources give the same text."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for number, pool in enumerate(self.pools):
            for photo in pool.photos:
                mos = "" if photo.mos is None else repr(photo.mos)
                writer.writerow((number, photo.path, photo.bytes, mos))
        return text.getvalue()


def find(recipe: Recipe) -> Found:
    """Find a recipe's photographs. Headers are read, so that a wrong file is told at once.

    Raises:
        NotFoundError: a folder, table, list or photograph is missing; it is named.
        UnreadableError: a photograph's header cannot be read.
        TooManyPixelsError: it announces more than Pillow decodes.
        TableInvalidError: a table cannot be used.
        UsageError: a source has no photograph left, or one is too small.
    """
    names = _names(recipe.held_out)
    pools, left_out = [], 0
    for source in recipe.sources:
        photos = _photos(source)
        kept = [photo for photo in photos if not _is_named(photo[0], names)]
        left_out += len(photos) - len(kept)
        if not kept:
            raise UsageError(
                "no photograph is left of this source",
                item=str(source.photographs),
                remedy="lower least, or drop the source",
            )
        pools.append(Pool(source.share, tuple(_checked(path, mos) for path, mos in kept)))
    return Found(tuple(pools), left_out, len(names))


def check_same(then: str, now: Found) -> None:
    """Refuse to go on where sources differ from those that were begun with.

    Args:
        then: the listing that was written then.
        now: what there is.

    Raises:
        NotFoundError: a photograph has vanished.
        UsageError: something else is different.
    """
    if then == now.listing():
        return
    there = {str(photo.path) for pool in now.pools for photo in pool.photos}
    for row in csv.DictReader(io.StringIO(then)):
        if row["path"] not in there:
            raise NotFoundError(
                "was a source when rendering began, and is no longer one",
                item=row["path"],
                remedy="bring it back, or render into another folder",
            )
    raise UsageError(
        "photographs came or changed since rendering began", remedy="give another --out"
    )


def _photos(source: Source) -> list[tuple[Path, float | None]]:
    if not source.is_table:
        return [(path, source.mos) for path in list_images(source.photographs)]
    try:
        samples = read_table(
            source.photographs,
            low=source.low,
            high=source.high,
            higher_is_better=source.higher_is_better,
        )
    except FileNotFoundError as e:
        raise NotFoundError("no such table", item=str(source.photographs)) from e
    return [
        (sample.path, sample.mos)
        for sample in samples
        if sample.mos >= source.least and sample.split in ("", "train")
    ]


def _checked(path: Path, mos: float | None) -> Photo:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                size = image.size
        length = path.stat().st_size
    except FileNotFoundError as e:
        raise NotFoundError("no such photograph", item=str(path)) from e
    except Image.DecompressionBombError as e:
        raise TooManyPixelsError(str(e), item=str(path)) from e
    except OSError as e:
        raise UnreadableError(str(e), item=str(path)) from e
    if min(size) < SMALLEST_SIDE:
        raise UsageError(
            f"a photograph of {size[0]} x {size[1]} pixels is too small",
            item=str(path),
            remedy=f"both sides must have {SMALLEST_SIDE}",
        )
    return Photo(path, length, mos)


def _names(lists: Sequence[Path]) -> set[str]:
    """What lists hold out: whole paths where they have folders, else names."""
    names: set[str] = set()
    for path in lists:
        try:
            if path.suffix.lower() == ".csv":
                found = [str(row["path"]) for row in read_csv(path, ("path",))]
                # As in tables of labels: relative to the table.
                names.update(str(path.parent / name) for name in found)
            else:
                lines = path.read_text(encoding="utf-8").splitlines()
                names.update(line.strip() for line in lines if line.strip())
        except FileNotFoundError as e:
            raise NotFoundError("no such list", item=str(path)) from e
        except (OSError, UnicodeDecodeError) as e:
            raise UnreadableError(str(e), item=str(path)) from e
    return {os.path.realpath(name) if os.sep in name else name for name in names}


def _is_named(path: Path, names: set[str]) -> bool:
    return path.name in names or os.path.realpath(path) in names
