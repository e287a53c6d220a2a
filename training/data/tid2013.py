"""TID2013: 3,000 pictures made from 25 originals in 24 ways and five levels, with MOS in 0..9.

Layout as distributed, here or in `tid2013/`: `reference_images/`, `distorted_images/` and
`mos_with_names.txt` (score and file name). Names differ in case between list and folders.
"""

from __future__ import annotations

from pathlib import Path

from training.data import layout
from training.data.checks import check
from training.data.info import DataSetInfo
from training.data.samples import Sample

INFO = DataSetInfo(
    "tid2013", "TID2013", 0, 9, True, "synthetic", 3000, (),
    "free for research; the authors ask to be cited",
)  # fmt: skip
TYPES = (
    "gaussian noise", "colour noise", "spatially correlated noise", "masked noise",
    "high frequency noise", "impulse noise", "quantization noise", "gaussian blur",
    "denoising", "jpeg", "jpeg2000", "jpeg transmission errors", "jpeg2000 transmission errors",
    "non-eccentricity pattern noise", "local blocks", "mean shift", "contrast change",
    "saturation change", "multiplicative noise", "comfort noise", "compressed noise",
    "colour quantization with dither", "chromatic aberration", "sparse sampling",
)  # fmt: skip
"""Types of distortion; the second number in a file name counts them from 1."""


def load(root: Path, *, pictures: bool = True) -> list[Sample]:
    """Read all pictures.

    Args:
        root: the data set's folder.
        pictures: False: the scores are wanted, so the distorted pictures need not be there.

    Returns:
        Samples in the list's order, MOS scaled to 0..100; levels are 1..5.

    Raises:
        FileNotFoundError: the list or the folder of pictures is missing (it is named).
        TableInvalidError: (a ValueError) the list cannot be read, or disagrees with the pictures,
            see `training.data.checks.check`.
    """
    root = layout.nested(root, "tid2013")
    table = layout.find(INFO.title, root, "mos_with_names.txt")
    if pictures:
        there = layout.Pictures(layout.find(INFO.title, root, "distorted_images"))
    else:
        there = layout.Pictures(root / "distorted_images", absent=True)
    labels = [(name, score) for score, name in layout.read_words(table, 2)]
    rows = layout.coded_rows(table, labels, there, TYPES)
    layout.check_references(table, layout.optional(root, "reference_images"), rows)
    wanted = there.paths if pictures else ()
    return check(table, rows, INFO.scale, wanted, exist=pictures)
