"""LIVE in the Wild (LIVE Challenge): 1,162 photographs from mobile cameras, with MOS in 0..100.

Layout as distributed, here or in `ChallengeDB_release/`: `Data/AllImages_release.mat` (names),
`Data/AllMOS_release.mat` (scores, by position) and `Images/`. The first seven of 1,169 were shown
to train the study's observers; they are in `Images/trainingImages/` and are left out here.
"""

from __future__ import annotations

from pathlib import Path

from training.data import layout, matlab
from training.data.checks import Row, check
from training.data.info import DataSetInfo
from training.data.samples import Sample

INFO = DataSetInfo(
    "live-wild", "LIVE in the Wild", 0, 100, True, "authentic", 1162, (),
    "free for research if the University of Texas's copyright notice is kept",
)  # fmt: skip
TRAINING = 7
"""So many entries at the start of the lists are no part of the data set."""


def load(root: Path) -> list[Sample]:
    """Read all pictures.

    Args:
        root: the data set's folder.

    Returns:
        Samples in the lists' order, MOS 0..100.

    Raises:
        FileNotFoundError: a list or the folder of pictures is missing (it is named).
        TableInvalidError: (a ValueError) the lists are not of one length, or disagree with the
            pictures, see `training.data.checks.check`.
    """
    root = layout.nested(root, "ChallengeDB_release")
    files = layout.find(INFO.title, root, "Data/AllImages_release.mat")
    table = layout.find(INFO.title, root, "Data/AllMOS_release.mat")
    pictures = layout.Pictures(layout.find(INFO.title, root, "Images"))
    names = matlab.names(files, "AllImages_release")
    scores = matlab.numbers(table, "AllMOS_release")
    layout.check_lengths(table, len(names), AllImages_release=names, AllMOS_release=scores)
    rows = [
        Row(number, name, pictures[name], name.lower(), score)
        for number, (name, score) in enumerate(zip(names, scores, strict=True), 1)
    ]
    # Some copies have the study's training images among the others.
    return check(table, rows[TRAINING:], INFO.scale, pictures.without(names[:TRAINING]))
