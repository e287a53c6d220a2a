"""BIQ2021: 12,000 images of 512x512 with MOS in 0..1, official split 10,000 / 2,000.

Layout as distributed: `Images/`, `Train (Images and MOS).csv`, `Test (Images and MOS).csv`.
Subsets by file name: ss01 camera gallery, ss02 deliberate camera faults, ss03 Unsplash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from training.data import layout
from training.data.checks import Row, check
from training.data.info import DataSetInfo
from training.data.samples import Sample
from training.data.table import read_csv

INFO = DataSetInfo(
    "biq2021", "BIQ2021", 0, 1, True, "authentic", 12000, ("train", "test"),
    "no licence stated; the authors call it freely available for use and benchmarking",
)  # fmt: skip
_TABLES = {"train": "Train (Images and MOS).csv", "test": "Test (Images and MOS).csv"}


def load(root: Path, split: Literal["train", "test"]) -> list[Sample]:
    """Read one official split.

    Args:
        root: the data set's folder.
        split: `train` (10,000) or `test` (2,000).

    Returns:
        Samples in the table's order, MOS scaled to 0..100.

    Raises:
        FileNotFoundError: the table or the folder of images is missing (it is named).
        TableInvalidError: (a ValueError) a row is wrong, see `training.data.checks.check`.
    """
    table = layout.find(INFO.title, root, _TABLES[split])
    # One file's extension differs in case between table and folder.
    pictures = layout.Pictures(layout.find(INFO.title, root, "Images"))
    rows = []
    for number, record in enumerate(read_csv(table, ("Image Name", "MOS")), 1):
        name = str(record["Image Name"] or "")
        rows.append(Row(number, name, pictures[name], name.lower(), record["MOS"], name[:4]))
    return check(table, rows, INFO.scale)
