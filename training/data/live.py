"""LIVE image quality, release 2: 779 pictures made from 29 originals in five ways, with DMOS.

Layout as distributed, here or in `databaserelease2/`: folders `jp2k`, `jpeg`, `wn`, `gblur` and
`fastfading` with `img1.bmp` and on, `refimgs`, and the lists `refnames_all.mat` and `dmos.mat`,
which go by position through the folders in this order. `dmos_realigned.mat`, a later file of the
authors, holds scores on one scale for all types (`dmos_new`) and is taken where it is there.

DMOS is nominally 0..100, 0 for a copy of the original, but has no bounds: the realigned scores go
from -2.6 to 111.8. The 203 copies of originals among the pictures were not rated and are left out.
"""

from __future__ import annotations

from pathlib import Path

from giqa.errors import TableInvalidError
from training.data import layout, matlab
from training.data.checks import Row, check, some
from training.data.info import DataSetInfo
from training.data.samples import Sample

INFO = DataSetInfo(
    "live", "LIVE", -5, 115, False, "synthetic", 779, (),
    "free for any purpose if the University of Texas's copyright notice is kept",
)  # fmt: skip
FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
"""Types of distortion, in the order of the lists, and how many pictures each has."""


def load(root: Path) -> list[Sample]:
    """Read all rated pictures.

    Args:
        root: the data set's folder.

    Returns:
        Samples in the lists' order, -5..115 turned round and scaled to 0..100.

    Raises:
        FileNotFoundError: a list or a folder is missing (it is named).
        TableInvalidError: (a ValueError) a list is not of 982 entries, or disagrees with the
            pictures, or a score is no number, see `training.data.checks.check`.
    """
    root = layout.nested(root, "databaserelease2")
    contents = layout.find(INFO.title, root, "refnames_all.mat")
    table = layout.find(INFO.title, root, "dmos_realigned.mat", "dmos.mat")
    folders = {name: layout.Pictures(layout.find(INFO.title, root, name)) for name in FOLDERS}
    scores = matlab.numbers(table, "dmos_new", "dmos")
    copies = matlab.numbers(table, "orgs")
    references = matlab.names(contents, "refnames_all")
    layout.check_lengths(
        table, sum(FOLDERS.values()), dmos=scores, orgs=copies, refnames_all=references
    )
    if wrong := [str(value) for value in copies if value not in (0, 1)]:
        raise TableInvalidError(some("orgs are 0 or 1, not", wrong), item=str(table))
    rows, pictures = [], []
    places = [(name, f"img{i + 1}.bmp") for name, n in FOLDERS.items() for i in range(n)]
    for number, (folder, name) in enumerate(places, 1):
        if copies[number - 1]:
            continue
        full, path = f"{folder}/{name}", folders[folder][name]
        content = Path(references[number - 1]).stem.lower()
        rows.append(Row(number, full, path, full, scores[number - 1], folder, content))
    for folder, found in folders.items():
        unrated = [n for i, (f, n) in enumerate(places) if f == folder and copies[i]]
        pictures += found.without(unrated)
    layout.check_references(contents, layout.optional(root, "refimgs"), rows)
    return check(table, rows, INFO.scale, pictures)
