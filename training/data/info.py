"""What is known of a public data set before it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.data.checks import Scale


@dataclass(frozen=True)
class DataSetInfo:
    """A data set as its authors describe it.

    Attributes:
        name: how recipes call it.
        title: how it is called in print.
        low: the smallest label that may occur.
        high: the largest one.
        higher_is_better: False for difference scores (DMOS).
        kind: `synthetic`: originals made worse in known ways; `authentic`: pictures as they are.
        images: how many have a label in the full data set.
        splits: names of the official splits; empty if there are none.
        terms: what its authors say of its use, in words; their own text is what counts.
    """

    name: str
    title: str
    low: float
    high: float
    higher_is_better: bool
    kind: Literal["synthetic", "authentic"]
    images: int
    splits: tuple[str, ...]
    terms: str

    @property
    def scale(self) -> Scale:
        """The range of the labels."""
        return Scale(self.low, self.high, self.higher_is_better)
