"""Photographs to measure and calibrate with, as views; opinion scores where there are any."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from giqa.decode import Decoder
from giqa.errors import NotFoundError, TableInvalidError
from giqa.inputs import find
from giqa.manifest import Manifest
from giqa.types import Item, Views

LABELS = "mos.csv"
IMAGES = "images"

_BATCH = 8
_T = TypeVar("_T")


def read_images(folder: Path, limit: int | None = None) -> list[Path]:
    """List a folder's images, sorted by name.

    Args:
        folder: with images directly in it.
        limit: of many, that many evenly spread ones.

    Raises:
        NotFoundError: no such folder, or no image in it.
    """
    found = []
    for item in find([str(folder)]):
        if item.error is not None or item.path is None or item.path == folder:
            raise NotFoundError(
                "no folder of images", item=str(folder), remedy="give a folder of photographs"
            )
        found.append(item.path)
    return _spread(found, limit)


def read_labelled(folder: Path, limit: int | None = None) -> tuple[list[Path], list[float]]:
    """Read validation images: `mos.csv` with the columns `image` and `mos`, files in `images`.

    Args:
        folder: the data.
        limit: of many, that many evenly spread ones.

    Returns:
        Paths, and an opinion score each, on any scale.

    Raises:
        NotFoundError: no such table.
        TableInvalidError: a column is missing, or a score is no number.
    """
    path = folder / LABELS
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        pairs = [(folder / IMAGES / row["image"], float(row["mos"])) for row in rows]
    except OSError as e:
        raise NotFoundError(
            f"cannot be read: {e.strerror}", item=str(path), remedy="see `--help`"
        ) from e
    except (KeyError, TypeError, ValueError, csv.Error) as e:
        raise TableInvalidError(
            f"not a table of `image` and `mos`: {e}", item=str(path), remedy="correct it"
        ) from e
    if len(pairs) < 2:
        raise TableInvalidError("holds fewer than two images", item=str(path))
    chosen = _spread(pairs, limit)
    return [image for image, _ in chosen], [mos for _, mos in chosen]


def decode(paths: Sequence[Path], manifest: Manifest, threads: int) -> list[Views]:
    """Decode images to the views of profile `fast`.

    Args:
        paths: the files.
        manifest: the bundle's.
        threads: CPU threads.

    Returns:
        Views, V = 1 and maybe tiles, an image each.

    Raises:
        GiqaError: an image cannot be scored: what is measured must not depend on what failed.
    """
    decoder = Decoder(manifest, batch=_BATCH, threads=threads)
    found = []
    source = iter(paths)
    while chunk := list(islice(source, _BATCH)):
        for one in decoder([Item.of(path) for path in chunk], "fast"):
            if one.error is not None:
                raise one.error
            assert one.views is not None
            found.append(one.views)
    return found


def _spread(things: Sequence[_T], limit: int | None) -> list[_T]:
    if limit is None or limit >= len(things):
        return list(things)
    return [things[i * len(things) // limit] for i in range(limit)]
