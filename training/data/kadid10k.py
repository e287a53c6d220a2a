"""KADID-10k: 10,125 pictures made from 81 originals in 25 ways and five levels.

Layout as distributed, here or in `kadid10k/`: `images/` with originals and all others, and
`dmos.csv` with the columns `dist_img`, `ref_img`, `dmos` and `var`. In spite of its name `dmos` is
a degradation category rating in 1..5 of which 5 is the best.
"""

from __future__ import annotations

from pathlib import Path

from giqa.errors import TableInvalidError
from training.data import layout
from training.data.checks import check, some
from training.data.info import DataSetInfo
from training.data.samples import Sample
from training.data.table import read_csv

INFO = DataSetInfo(
    "kadid10k", "KADID-10k", 1, 5, True, "synthetic", 10125, (),
    "free for research; the originals are from Pixabay, under its licence",
)  # fmt: skip
TYPES = (
    "gaussian blur", "lens blur", "motion blur", "colour diffusion", "colour shift",
    "colour quantization", "saturation hsv", "saturation lab", "jpeg2000", "jpeg", "white noise",
    "colour noise", "impulse noise", "multiplicative noise", "denoising", "brighten", "darken",
    "mean shift", "jitter", "non-eccentricity patch", "pixelate", "quantization", "colour block",
    "high sharpen", "contrast change",
)  # fmt: skip
"""Types of distortion; the second number in a file name counts them from 1."""


def load(root: Path, *, pictures: bool = True) -> list[Sample]:
    """Read all pictures.

    Args:
        root: the data set's folder.
        pictures: False: the scores are wanted, so the distorted pictures need not be there.

    Returns:
        Samples in the table's order, 1..5 scaled to 0..100; levels are 1..5.

    Raises:
        FileNotFoundError: the table or the folder of pictures is missing (it is named).
        TableInvalidError: (a ValueError) the table cannot be read, pairs a picture with another's
            original, or disagrees with the pictures, see `training.data.checks.check`.
    """
    root = layout.nested(root, "kadid10k")
    table = layout.find(INFO.title, root, "dmos.csv")
    if pictures:
        there = layout.Pictures(layout.find(INFO.title, root, "images"))
    else:
        there = layout.Pictures(root / "images", absent=True)
    records = read_csv(table, ("dist_img", "ref_img", "dmos"))
    labels = [(str(record["dist_img"] or ""), record["dmos"]) for record in records]
    rows = layout.coded_rows(table, labels, there, TYPES)
    originals = [str(record["ref_img"] or "") for record in records]
    wrong = [
        f"row {row.number} {row.name!r} {original!r}"
        for row, original in zip(rows, originals, strict=True)
        if Path(original).stem.lower() != row.reference
    ]
    if wrong:
        raise TableInvalidError(some("not the original of the picture:", wrong), item=str(table))
    wanted = there.without(set(originals)) if pictures else ()
    return check(table, rows, INFO.scale, wanted, exist=pictures)
