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
    """

    path: Path
    mos: float
    subset: str = ""
