"""SPAQ: 11,125 photographs from smartphones with MOS in 0..100.

Layout as distributed, here or in `Dataset/`: `TestImage/` and, in `Annotations/`, `MOS and Image
attribute scores.xlsx` with the columns `Image name` and `MOS`. That sheet exported to a CSV file
of the same name is read, too.
"""

from __future__ import annotations

from pathlib import Path

from training.data import layout
from training.data.checks import Row, check
from training.data.info import DataSetInfo
from training.data.samples import Sample
from training.data.workbook import read_labels

INFO = DataSetInfo(
    "spaq", "SPAQ", 0, 100, True, "authentic", 11125, (),
    "free for research; no licence text comes with it",
)  # fmt: skip
_TABLE = "MOS and Image attribute scores"


def load(root: Path) -> list[Sample]:
    """Read all pictures.

    Args:
        root: the data set's folder.

    Returns:
        Samples in the table's order, MOS 0..100.

    Raises:
        FileNotFoundError: the table or the folder of pictures is missing (it is named).
        TableInvalidError: (a ValueError) the table cannot be read, or disagrees with the pictures,
            see `training.data.checks.check`.
    """
    root = layout.nested(root, "Dataset")
    places = [
        f"{folder}{_TABLE}.{kind}" for folder in ("Annotations/", "") for kind in ("xlsx", "csv")
    ]
    table = layout.find(INFO.title, root, *places)
    pictures = layout.Pictures(layout.find(INFO.title, root, "TestImage"))
    rows = []
    for number, record in enumerate(read_labels(table, ("Image name", "MOS")), 1):
        name = str(record["Image name"] or "")
        rows.append(Row(number, name, pictures[name], name.lower(), record["MOS"]))
    return check(table, rows, INFO.scale, pictures.paths)
