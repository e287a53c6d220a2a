"""The public data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from giqa.errors import UsageError
from training.data import biq2021, csiq, kadid10k, koniq10k, live, live_wild, spaq, tid2013
from training.data.info import DataSetInfo
from training.data.rounds import round_of
from training.data.samples import Sample

_INFOS = (
    biq2021.INFO, csiq.INFO, kadid10k.INFO, koniq10k.INFO, live.INFO, live_wild.INFO, spaq.INFO,
    tid2013.INFO,
)  # fmt: skip
_BY_NAME = {one.name: one for one in _INFOS}
_WHOLE: dict[str, Callable[[Path], list[Sample]]] = {
    "csiq": csiq.load,
    "kadid10k": kadid10k.load,
    "live": live.load,
    "live-wild": live_wild.load,
    "spaq": spaq.load,
    "tid2013": tid2013.load,
}

WITHOUT_PICTURES: dict[str, Callable[..., list[Sample]]] = {
    "kadid10k": kadid10k.load,
    "tid2013": tid2013.load,
}
"""Data sets whose scores can be read where their distorted pictures are not."""

NAMES = tuple(_BY_NAME)
"""Names of all data sets."""


def info(name: str) -> DataSetInfo:
    """What is known of a data set.

    Raises:
        UsageError: no data set of that name.
    """
    if name not in _BY_NAME:
        raise UsageError(f"no data set {name!r}; there are {', '.join(NAMES)}", remedy="")
    return _BY_NAME[name]


def load(
    name: str, root: Path, split: str, *, round: int | None = None, pictures: bool = True
) -> list[Sample]:
    """Read a split of a data set.

    Args:
        name: one of `NAMES`.
        root: its folder, in the layout of its authors (see its module).
        split: `all`; an official split (`info(name).splits`); where there are none, `train` or
            `test` of a seeded round, 80 / 20 by content.
        round: 1..10, only for data sets without official splits; 1 unless given.
        pictures: False: only scores are wanted; of some data sets (`WITHOUT_PICTURES`) the
            pictures need not be there, then.

    Returns:
        Samples in the order of the data set's table, MOS scaled to 0..100, higher is better.

    Raises:
        UsageError: no such data set or split, or a round of one that has none.
        FileNotFoundError: a table or folder is missing (it is named).
        TableInvalidError: (a ValueError) the labels cannot be used.
        ValueError: no such round, or too few contents for one.
    """
    about = info(name)
    splits = about.splits or ("train", "test")
    if split not in ("all", *splits):
        raise UsageError(f"{about.title} has no split {split!r}; it has {', '.join(splits)}")
    if round is not None and about.splits:
        raise UsageError(f"{about.title} has an official split, no rounds")
    if name == "biq2021":
        parts = about.splits if split == "all" else (split,)
        return [s for part in parts for s in biq2021.load(root, part)]  # type: ignore[arg-type]
    if name == "koniq10k":
        return koniq10k.load(root, split)  # type: ignore[arg-type]
    if pictures or name not in WITHOUT_PICTURES:
        samples = _WHOLE[name](root)
    else:
        samples = WITHOUT_PICTURES[name](root, pictures=False)
    if split == "all":
        return samples
    train, test = round_of(samples, 1 if round is None else round)
    return train if split == "train" else test
