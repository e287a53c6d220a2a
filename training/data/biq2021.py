"""BIQ2021: 12,000 images of 512x512 with MOS in 0..1, official split 10,000 / 2,000.

Layout as distributed: `Images/`, `Train (Images and MOS).csv`, `Test (Images and MOS).csv`.
Subsets by file name: ss01 camera gallery, ss02 deliberate camera faults, ss03 Unsplash.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Literal

from training.data.table import Sample

_TABLES = {"train": "Train (Images and MOS).csv", "test": "Test (Images and MOS).csv"}


def load(root: Path, split: Literal["train", "test"]) -> list[Sample]:
    """Read one official split.

    Args:
        root: the data set's folder.
        split: `train` (10,000) or `test` (2,000).

    Returns:
        Samples in the table's order, MOS scaled to 0..100.

    Raises:
        FileNotFoundError: the table or an image is missing (it is named).
        ValueError: a row lacks a column, or its score is no number in 0..1.
    """
    table = root / _TABLES[split]
    if not table.is_file():
        raise FileNotFoundError(f"BIQ2021: {table} is missing")
    # One file's extension differs in case between table and folder.
    on_disk = {p.name.lower(): p for p in (root / "Images").iterdir()}
    samples = []
    with table.open(newline="", encoding="utf-8") as f:
        for row in csv.DictReader(f):
            name, text = row.get("Image Name"), row.get("MOS")
            if not name or text is None:
                raise ValueError(f"BIQ2021: {table.name}: row without Image Name or MOS: {row}")
            path = on_disk.get(name.lower())
            if path is None:
                raise FileNotFoundError(f"BIQ2021: Images/{name} is missing")
            try:
                mos = float(text)
            except ValueError:
                mos = math.nan
            if not 0 <= mos <= 1:  # NaN, too
                raise ValueError(f"BIQ2021: {name} has MOS {text!r}, outside 0..1")
            samples.append(Sample(path, 100 * mos, name[:4]))
    return samples
