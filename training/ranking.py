"""Ranking without labels: of a picture damaged at rising levels, each must score below the last.

RankIQA (Liu, van de Weijer, Bagdanov, ICCV 2017) learns so.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training import losses
from training.distortions import ranked
from training.distortions.groups import LEVELS
from training.recipe import Ranking
from training.sources import CachedSource, Inputs, Rows

_STREAM = 11  # of the random numbers, apart from those of other draws


class Ranker:
    """The groups that join each step, and their loss.

    Args:
        source: cached features of the pictures that `groups` gave, one variant each.
        options: the recipe's section.
        seed: of the draws; each micro-batch has its own.
    """

    def __init__(self, source: CachedSource, options: Ranking, seed: int) -> None:
        self.source, self.options, self._seed = source, options, seed
        means = ranked.opinions()
        self._opinion = torch.tensor([means[s.subset][s.level or 0] for s in source.samples])

    def draw(self, number: int, groups: int) -> Rows:
        """Rows of some groups, one group after the other, (groups * levels,).

        Args:
            number: which draw; the same number gives the same rows.
            groups: how many, at most as many as there are.
        """
        rng = np.random.default_rng([self._seed, number, _STREAM])
        there = len(self.source.samples) // len(LEVELS)
        first = rng.choice(there, groups, replace=False) * len(LEVELS)
        return (first[:, None] + np.arange(len(LEVELS))).ravel()

    def batch(self, rows: Rows) -> Inputs:
        """The two arguments of `Trainee.forward`."""
        return self.source.batch(rows, 0)

    def loss(self, score: Tensor, rows: Rows) -> Tensor:
        """The weighted loss of the scores (groups * levels,) of whole groups, a scalar."""
        shape = (-1, len(LEVELS))
        opinion = self._opinion[torch.from_numpy(rows)].to(score.device)
        return self.options.weight * losses.order(score.view(shape), opinion.view(shape))
