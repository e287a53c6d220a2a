"""Sets of pictures: what each picture is, and what decides that it is the same."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from giqa.errors import TableInvalidError
from training import cache
from training.board.recipe import BoardRecipe, Opinions, Steps, missing
from training.board.render import Rendering, renderings
from training.data.checks import Row, Scale, check, identity
from training.data.samples import Sample
from training.data.table import read_csv
from training.fit import splits_of

CLEAN = "clean"


@dataclass(frozen=True)
class Picture:
    """A picture of a set.

    Attributes:
        path: the file.
        mos: opinion score on 0..100; NaN where there is none.
        subset: part of the set.
        reference: what it was made from; empty if unknown.
        kind: type of damage, `clean` for none.
        level: strength, rising.
    """

    path: Path
    mos: float = float("nan")
    subset: str = ""
    reference: str = ""
    kind: str = CLEAN
    level: int = 0


@dataclass(frozen=True)
class PictureSet:
    """A set.

    Attributes:
        name: its name on the board.
        pictures: in a fixed order.
        made: what decides rendered pictures; empty where they lie as they were distributed.
    """

    name: str
    pictures: Sequence[Picture]
    made: Mapping[str, object] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the pictures' names, sizes and order, and of what rendered ones came from."""
        about = {"made": self.made, "files": cache.fingerprint(self.samples)}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    @property
    def samples(self) -> list[Sample]:
        """The pictures as samples."""
        return [Sample(p.path, p.mos, p.subset, p.reference) for p in self.pictures]


def collect(recipe: BoardRecipe, chosen: Sequence[str]) -> dict[str, PictureSet]:
    """Find the pictures of sets.

    Args:
        recipe: where they are.
        chosen: names of sets; `left-out` stands for the training images.

    Returns:
        By name, `train` among them where `left-out` or `validation` is chosen.

    Raises:
        NotFoundError: a file is not there, or rendered pictures are missing.
        TableInvalidError: a table cannot be used.
        UsageError: rendered pictures were made from something else.
    """
    found: dict[str, PictureSet] = {}
    makers = {one.name: one for one in renderings(recipe, chosen)}
    for name in chosen:
        if name in ("validation", "left-out"):
            continue
        if name in makers:
            found[name] = _rendered(makers[name])
        elif name in recipe.opinions:
            found[name] = opinions(name, recipe.opinions[name])
        elif recipe.steps is not None:
            found[name] = steps(name, recipe.steps)
    return found


def labelled(recipe: BoardRecipe) -> tuple[PictureSet, PictureSet]:
    """The training images and the validation split of the recipe's data; never a test split.

    Raises:
        NotFoundError: the data set or one of its images is missing.
        TableInvalidError: a label is not usable.
    """
    assert recipe.data is not None
    try:
        parts = splits_of(recipe.data)
    except FileNotFoundError as e:
        raise missing("validation", str(e)) from e
    names = ("train", "validation")
    train, validation = (
        PictureSet(name, [Picture(s.path, s.mos, s.subset) for s in part])
        for name, part in zip(names, parts, strict=True)
    )
    return train, validation


def opinions(name: str, about: Opinions) -> PictureSet:
    """A set with opinion scores.

    Raises:
        NotFoundError: its table is missing, or has not the rows that there must be.
        TableInvalidError: the table cannot be used: pictures that are not where it says among it.
    """
    root = about.root or about.table.parent
    try:
        records = read_csv(about.table, (about.image, about.label))
        rows = []
        for number, record in enumerate(records, 1):
            text = str(record[about.image] or "")
            path = root / text
            where = re.search(about.reference, text) if about.reference else None
            if about.reference and where is None:
                raise TableInvalidError(f"row {number}: no reference in {text!r}")
            rows.append(
                Row(
                    number,
                    text,
                    path,
                    identity(path),
                    record[about.label],
                    str(record.get("subset") or ""),
                    where[1] if where else "",
                )
            )
        samples = check(about.table, rows, Scale(about.low, about.high, about.higher_is_better))
    except FileNotFoundError as e:
        raise missing(name, f"no table {about.table}") from e
    except TableInvalidError as e:
        raise TableInvalidError(
            f"{about.table}: {e.message}",
            item=f"set {name}",
            remedy="unpack the set whole, or mend its table or the recipe's root",
        ) from e
    if about.count is not None and len(samples) != about.count:
        raise missing(name, f"{about.table} has {len(samples)} rows, not {about.count}")
    return PictureSet(name, [Picture(s.path, s.mos, s.subset, s.reference) for s in samples])


def steps(name: str, about: Steps) -> PictureSet:
    """KonJND-1k's references and steps.

    Raises:
        NotFoundError: they are not all there.
    """
    pictures = []
    wanted = range(1, 101, about.every)
    for path in sorted(about.root.glob("*")):
        whole = re.fullmatch(r"(.+_SRC\d+)\.(?:png|bmp)", path.name)
        step = re.fullmatch(r"(.+_SRC\d+)_(JPEG|BPG)_(\d{3})\.\w+", path.name)
        if whole:
            pictures.append(Picture(path, reference=whole[1]))
        elif step and int(step[3]) in wanted:
            pictures.append(
                Picture(path, reference=step[1], kind=step[2].lower(), level=int(step[3]))
            )
    if len(pictures) != about.count:
        raise missing(name, f"{len(pictures)} pictures in {about.root}, not {about.count}")
    return PictureSet(name, pictures)


def _rendered(one: Rendering) -> PictureSet:
    one.check()
    pictures = [
        Picture(job.out, reference=job.reference, kind=job.kind, level=job.level)
        for job in one.jobs
    ]
    return PictureSet(one.name, pictures, one.about)
