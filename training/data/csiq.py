"""CSIQ: 866 pictures made from 30 originals in six ways, with DMOS in 0..1.

Layout as distributed: `src_imgs/`, `dst_imgs/` with a folder for each type of distortion, and
`csiq.DMOS.xlsx`, whose sheet `all_by_image` has the columns `image`, `dst_type`, `dst_lev` and
`dmos`. Known alternatives are read, too: that sheet exported to `csiq.DMOS.csv`, the list
`csiq_label.txt` (file name and score) that circulates, and all pictures in one folder, `dst_imgs`
or `dst_imgs_all`.
"""

from __future__ import annotations

import re
from pathlib import Path

from giqa.errors import TableInvalidError
from training.data import layout
from training.data.checks import Row, check, some
from training.data.info import DataSetInfo
from training.data.samples import Sample
from training.data.workbook import read_labels

INFO = DataSetInfo(
    "csiq", "CSIQ", 0, 1, False, "synthetic", 866, (),
    "free for research; no licence text comes with it",
)  # fmt: skip
# As the table calls them, without blanks, and as the files do.
_TYPES = {
    "noise": "awgn", "awgn": "awgn", "blur": "blur", "gblur": "blur", "contrast": "contrast",
    "fnoise": "fnoise", "jpeg": "jpeg", "jpeg2000": "jpeg2000", "jp2k": "jpeg2000",
}  # fmt: skip
_COLUMNS = ("image", "dst_type", "dst_lev", "dmos")


def load(root: Path) -> list[Sample]:
    """Read all pictures.

    Args:
        root: the data set's folder.

    Returns:
        Samples in the table's order, DMOS turned round and scaled to 0..100; levels are 1..5.

    Raises:
        FileNotFoundError: the table or the folder of pictures is missing (it is named).
        TableInvalidError: (a ValueError) the table cannot be read, names an unknown type, or
            disagrees with the pictures, see `training.data.checks.check`.
    """
    root = layout.nested(root, "CSIQ")
    table = layout.find(INFO.title, root, "csiq.DMOS.xlsx", "csiq.DMOS.csv", "csiq_label.txt")
    folder = layout.find(INFO.title, root, "dst_imgs", "dst_imgs_all")
    pictures = layout.Pictures(folder, deep=True)
    rows, wrong = [], []
    for number, (image, kind, level, score) in enumerate(_labels(table), 1):
        subset = _TYPES.get(re.sub(r"[\s_]", "", kind.lower()))
        if subset is None or not level.isdecimal():
            wrong.append(f"row {number} {image!r} {kind!r} {level!r}")
            continue
        name = f"{image}.{subset}.{level}.png"
        path = pictures[name]
        rows.append(Row(number, name, path, name.lower(), score, subset, image.lower(), int(level)))
    if wrong:
        raise TableInvalidError(some("unknown type or level:", wrong), item=str(table))
    layout.check_references(table, layout.optional(root, "src_imgs"), rows)
    return check(table, rows, INFO.scale, pictures.paths)


def _labels(table: Path) -> list[tuple[str, str, str, object]]:
    """Content, type, level and score of each row."""
    found: list[tuple[str, str, str, object]] = []
    if table.suffix.lower() == ".txt":
        for name, score in layout.read_words(table, 2):
            parts = name.rsplit(".", 3)
            if len(parts) != 4:
                raise TableInvalidError(f"not IMAGE.TYPE.LEVEL.png: {name!r}", item=str(table))
            found.append((parts[0], parts[1], parts[2], score))
        return found
    for record in read_labels(table, _COLUMNS, "all_by_image"):
        # Numbers may have got a fraction on the way: levels, and the image named 1600.
        image, kind, level = (str(record[c] or "").strip().removesuffix(".0") for c in _COLUMNS[:3])
        found.append((image, kind, level, record["dmos"]))
    return found
