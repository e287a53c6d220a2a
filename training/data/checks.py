"""What every table of labels must hold, and the scaling of its scores."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from giqa.errors import TableInvalidError, UsageError
from training.data.samples import Sample

_SHOWN = 5


@dataclass(frozen=True)
class Row:
    """One data row as it stands in a table.

    Attributes:
        number: 1 for the first row below the header.
        name: the image as the table calls it; None or empty if it names none.
        path: where that image must be.
        identity: equal for two rows of the same image, however they spell it.
        score: the label, a number or text.
        subset: the part of the data set.
        reference: the content, see `Sample`.
        level: strength of the distortion, see `Sample`.
        split: see `Sample`.
    """

    number: int
    name: str | None
    path: Path
    identity: str
    score: object
    subset: str = ""
    reference: str = ""
    level: int | None = None
    split: str = ""


@dataclass(frozen=True)
class Scale:
    """The range of a table's labels.

    Args:
        low: smallest label.
        high: largest label.
        higher_is_better: False for difference scores (DMOS).

    Raises:
        UsageError: low and high are not finite, or high is not above low.
    """

    low: float = 0
    high: float = 100
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        width = self.high - self.low
        # Finite ends may still be too far apart, or too close, to be divided by.
        if not (width > 0 and math.isfinite(width) and math.isfinite(100 / width)):
            raise UsageError(
                f"labels cannot range from {self.low} to {self.high}", remedy="give low < high"
            )

    def __contains__(self, score: float) -> bool:
        """Whether a label is in range, ends included."""
        return self.low <= score <= self.high

    def mos(self, score: float) -> float:
        """A label in range as MOS on 0..100, higher is better."""
        scaled = min((score - self.low) * (100 / (self.high - self.low)), 100.0)
        return scaled if self.higher_is_better else 100 - scaled


def check(
    table: Path,
    rows: Iterable[Row],
    scale: Scale,
    pictures: Collection[Path] = (),
    *,
    exist: bool = True,
) -> list[Sample]:
    """Turn rows into samples; all of them or none.

    Args:
        table: the file, for messages.
        rows: its data rows.
        scale: the range of its labels.
        pictures: image files that must all have a row.
        exist: whether all image files must be there.

    Returns:
        One sample a row, in the rows' order, MOS on 0..100.

    Raises:
        TableInvalidError: fewer than two rows; a row without an image; a score that is no finite
            number or out of range; two rows of one image; an image file that is missing; a picture
            without a row. All kinds are told at once, with the first five of each kind and how
            many there are.
    """
    rows = list(rows)
    if len(rows) < 2:
        found = "no data row" if not rows else "only one data row"
        raise TableInvalidError(f"{found}, two are the least", item=str(table))
    scores = [_number(row.score) for row in rows]
    pairs = list(zip(rows, scores, strict=True))
    named = [row for row in rows if row.name]
    faults = [
        some("no image is named in row", [str(row.number) for row in rows if not row.name]),
        some(
            "not a finite number:",
            [_told(row) for row, score in pairs if not math.isfinite(score)],
        ),
        some(
            f"outside {scale.low:g}..{scale.high:g}:",
            [_told(row) for row, score in pairs if math.isfinite(score) and score not in scale],
        ),
        some("two rows of one image:", _repeated(named)),
        some(
            "no such image file:",
            [f"row {r.number} {r.name!r}" for r in named if exist and not os.path.isfile(r.path)],
        ),
        some("pictures without a label:", _unlabelled(rows, pictures)),
    ]
    if any(faults):
        raise TableInvalidError("; ".join(filter(None, faults)), item=str(table))
    return [
        Sample(row.path, scale.mos(score), row.subset, row.reference, row.level, row.split)
        for row, score in pairs
    ]


def identity(path: Path) -> str:
    """The file that a path leads to, by whatever spelling or link."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # a loop of links, a NUL byte: it will be missing anyway
        return str(path)


def check_columns(table: Path, columns: Sequence[str], needed: Sequence[str]) -> None:
    """Check a header.

    Raises:
        TableInvalidError: a needed column is missing, or a column that is read stands there twice.
    """
    if missing := [c for c in needed if c not in columns]:
        raise TableInvalidError(
            f"no column {' and no column '.join(map(repr, missing))}; it has {list(columns)}",
            item=str(table),
        )
    if twice := sorted({c for c in columns if c and columns.count(c) > 1}):
        raise TableInvalidError(f"column {twice[0]!r} stands there twice", item=str(table))


def _number(score: object) -> float:
    """The score, or NaN if it is none."""
    if isinstance(score, bool) or (isinstance(score, str) and "_" in score):
        return math.nan  # Python would take True and 1_0 for numbers
    if not isinstance(score, (str, int, float, Decimal)):
        return math.nan
    try:
        return float(score)
    except (ValueError, OverflowError):
        return math.nan


def _told(row: Row) -> str:
    return f"row {row.number} {row.score!r}"


def _repeated(rows: Iterable[Row]) -> list[str]:
    first: dict[str, Row] = {}
    found = []
    for row in rows:
        if (other := first.setdefault(row.identity, row)) is not row:
            names = dict.fromkeys([repr(other.name), repr(row.name)])
            found.append(f"rows {other.number} and {row.number} ({', '.join(names)})")
    return found


def _unlabelled(rows: Iterable[Row], pictures: Collection[Path]) -> list[str]:
    labelled = {row.path for row in rows}
    return [repr(path.name) for path in pictures if path not in labelled]


def some(what: str, items: Sequence[str]) -> str:
    """Tell the first five of some faults, and how many there are; empty if there are none."""
    if not items:
        return ""
    rest = f" and {len(items) - _SHOWN} more, {len(items)} in all" if len(items) > _SHOWN else ""
    return f"{what} {', '.join(items[:_SHOWN])}{rest}"
