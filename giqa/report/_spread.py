"""The distribution of any number of scores, in memory that does not grow."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from giqa.contract import BANDS, SCORE_MAX, SCORE_MIN, Band, band

_FINE: Final = 1000
"""Cells of the scale that are counted: 0.1 points each."""


class Spread:
    """Counts scores in cells of 0.1 points.

    Attributes:
        count: scores so far.
        lowest: the lowest, exactly; NaN without any.
        highest: the highest, exactly; NaN without any.
        bands: scores per band, exactly; every band has an entry, in order.
    """

    def __init__(self) -> None:
        self.count = 0
        self.lowest = self.highest = float("nan")
        self.bands: dict[Band, int] = {name: 0 for _, name in BANDS}
        self._sum = 0.0
        self._cells = np.zeros(_FINE, np.int64)

    def add(self, score: float) -> None:
        """Count a score in 0..100."""
        self._sum += score
        self.bands[band(score)] += 1
        share = (score - SCORE_MIN) / (SCORE_MAX - SCORE_MIN)
        self._cells[min(max(int(share * _FINE), 0), _FINE - 1)] += 1
        self.lowest = min(score, self.lowest) if self.count else score
        self.highest = max(score, self.highest) if self.count else score
        self.count += 1  # last: an interruption before leaves no count without its parts

    @property
    def mean(self) -> float:
        """The mean; NaN without any score."""
        return self._sum / self.count if self.count else float("nan")

    def quantile(self, share: float) -> float:
        """Give a quantile, within 0.05 points of NumPy's (linear).

        Args:
            share: 0..1.

        Returns:
            The quantile; NaN without any score.
        """
        if not self.count:
            return float("nan")
        rank = share * (self.count - 1)
        reached = np.cumsum(self._cells)
        # The cells that hold the scores of the ranks on both sides; a cell counts as its middle.
        low, high = (
            int(np.searchsorted(reached, r, side="right")) for r in (int(rank), -int(-rank // 1))
        )
        between = low + (rank - int(rank)) * (high - low)
        value = SCORE_MIN + (between + 0.5) * (SCORE_MAX - SCORE_MIN) / _FINE
        return float(np.clip(value, self.lowest, self.highest))

    def histogram(self, bins: int) -> npt.NDArray[np.int64]:
        """Count per bin of equal width over the whole scale.

        Args:
            bins: a divisor of 1000.

        Returns:
            (bins,) int64.
        """
        return np.asarray(self._cells.reshape(bins, -1).sum(1))
