"""The labelled data set: its scores, and the pictures of its references."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from giqa.errors import NotFoundError, UsageError
from training.data import datasets, layout
from training.data.checks import some
from training.transfer import labels
from training.transfer.mapping import Mapping

_FOLDERS = {"kadid10k": "images", "tid2013": "reference_images"}


@dataclass(frozen=True)
class Labelled:
    """A data set as labels are transferred from it.

    Attributes:
        names: of all references of the data set, sorted, also of those that are held out.
        pictures: an image file a name.
        usable: per name, whether it is in the split, so that its scores may be taken.
        scores: of the split.
    """

    names: list[str]
    pictures: list[Path]
    usable: list[bool]
    scores: labels.Scores


def read(
    mapping: Mapping, root: Path, split: str, round: int | None, references: Path | None
) -> Labelled:
    """Read a data set.

    Args:
        mapping: of that data set.
        root: its folder.
        split: `all`, or `train` of a round: references that are held out for testing give no label.
        round: see `training.data.datasets.load`.
        references: folder of the originals, named as the data set does; where it distributes them
            unless given.

    Returns:
        The data set.

    Raises:
        UsageError: the folder of originals has to be given, or see `datasets.load`.
        NotFoundError: a table, a folder or an original is missing.
        TableInvalidError: the labels cannot be used, or lack something that is rendered.
    """
    if split == "all" and round is not None:
        raise UsageError("is for a split", item="--round", remedy="add --split train")
    try:
        everything = datasets.load(mapping.dataset, root, "all", pictures=False)
        samples = everything
        if split != "all":
            samples = datasets.load(mapping.dataset, root, split, round=round, pictures=False)
        names = sorted({sample.reference for sample in everything})
        pictures = _originals(mapping.dataset, root, references, names)
    except FileNotFoundError as e:
        raise NotFoundError(str(e), item=str(root), remedy="give the data set's folder") from e
    scores = labels.scores(samples)
    labels.check_complete(scores, mapping.targets)
    usable = {reference for reference, _, _ in scores}
    return Labelled(
        names=names,
        pictures=pictures,
        usable=[name in usable for name in names],
        scores=scores,
    )


def _originals(dataset: str, root: Path, folder: Path | None, names: list[str]) -> list[Path]:
    if folder is None:
        if dataset not in _FOLDERS:
            raise UsageError(f"{dataset} needs the folder of its originals", item="--references")
        title = datasets.info(dataset).title
        folder = layout.find(title, layout.nested(root, dataset), _FOLDERS[dataset])
    found = {path.stem.lower(): path for path in layout.Pictures(folder).paths}
    if missing := [repr(name) for name in names if name not in found]:
        raise NotFoundError(
            some("no original of", missing), item=str(folder), remedy="give --references"
        )
    return [found[name] for name in names]
