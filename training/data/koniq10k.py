"""KonIQ-10k: 10,073 photographs with MOS in 1..5, official split 7,058 / 1,000 / 2,015.

Layout as distributed: `koniq10k_scores_and_distributions.csv` (`image_name`, `MOS`), here or in
the folder of that name or `metadata/`; pictures in `1024x768/` or `512x384/`, also as
`koniq10k_1024x768/` or `koniq10k_512x384/`, the larger ones first; and for the official split
`koniq10k_distributions_sets.csv` (`image_name`, `set`: training, validation or test) from the
authors' code. The `MOS` in that second table is on another scale and is not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from giqa.errors import TableInvalidError
from training.data import layout
from training.data.checks import Row, check, some
from training.data.info import DataSetInfo
from training.data.samples import Sample
from training.data.table import read_csv

INFO = DataSetInfo(
    "koniq10k", "KonIQ-10k", 1, 5, True, "authentic", 10073, ("train", "validation", "test"),
    "labels free for research; each photograph under its own Creative Commons licence",
)  # fmt: skip
_SETS = {"training": "train", "validation": "validation", "test": "test"}
_SCORES = "koniq10k_scores_and_distributions.csv"
_SPLITS = "koniq10k_distributions_sets.csv"
_SIZES = ("1024x768", "koniq10k_1024x768", "512x384", "koniq10k_512x384")


def load(root: Path, split: Literal["all", "train", "validation", "test"]) -> list[Sample]:
    """Read one official split, or all of them.

    Args:
        root: the data set's folder.
        split: `all` needs no table of the split.

    Returns:
        Samples in the table's order, MOS scaled to 0..100.

    Raises:
        FileNotFoundError: a table or the folder of pictures is missing (it is named).
        TableInvalidError: (a ValueError) a table cannot be read, the two tables are not of the
            same pictures, or they disagree with the folder, see `training.data.checks.check`.
    """
    places = (_SCORES, f"koniq10k_scores_and_distributions/{_SCORES}", f"metadata/{_SCORES}")
    table = layout.find(INFO.title, root, *places)
    pictures = layout.Pictures(layout.find(INFO.title, root, *_SIZES))
    rows = []
    for number, record in enumerate(read_csv(table, ("image_name", "MOS")), 1):
        name = str(record["image_name"] or "")
        rows.append(Row(number, name, pictures[name], name.lower(), record["MOS"]))
    sets = {} if split == "all" else _sets(root, rows)
    samples = check(table, rows, INFO.scale, pictures.paths)
    return [
        sample
        for row, sample in zip(rows, samples, strict=True)
        if split == "all" or sets[row.identity] == split
    ]


def _sets(root: Path, rows: list[Row]) -> dict[str, str]:
    """The split of each picture, by its name in small letters."""
    table = layout.find(INFO.title, root, _SPLITS, f"metadata/{_SPLITS}")
    sets: dict[str, str] = {}
    wrong = []
    for number, record in enumerate(read_csv(table, ("image_name", "set")), 1):
        name, part = str(record["image_name"] or "").lower(), str(record["set"] or "").lower()
        if part not in _SETS or sets.setdefault(name, _SETS[part]) != _SETS[part]:
            wrong.append(f"row {number} {name!r} {part!r}")
    scored = {row.identity for row in rows}
    faults = [
        some("no set of the three, or two of them:", wrong),
        some("without a score:", [repr(name) for name in sorted(sets.keys() - scored)]),
        some("without a set:", [repr(name) for name in sorted(scored - sets.keys())]),
    ]
    if any(faults):
        raise TableInvalidError("; ".join(filter(None, faults)), item=str(table))
    return sets
