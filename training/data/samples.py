"""Labelled images: one record type for all data sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One image with its opinion score.

    Attributes:
        path: the image file.
        mos: mean opinion score on 0..100, higher is better.
        subset: the part of the data set or the type of distortion; empty if there are none.
        reference: the content that it shows, unique within its data set: pictures made from one
            original have the same; empty if unknown.
        level: strength of the distortion, 1 is the weakest of its type; None if unknown.
        split: `train`, `validation` or `test` where its table says so.
        lost: of a rendered picture, the share of the opinion scale that it lost, 0..1; its `mos` is
            then the clean picture's, NaN if that has none.
    """

    path: Path
    mos: float
    subset: str = ""
    reference: str = ""
    level: int | None = None
    split: str = ""
    lost: float | None = None
