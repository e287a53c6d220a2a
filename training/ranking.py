"""What rendered damage teaches: order and distance within a group, and what is worth nothing.

A group is a clean picture and damaged versions of it, each with the share of the opinion scale
that it lost (`training.rendered`). Its scores are compared with each other alone: how opinions of
another data set would place them on this one's scale, nobody knows.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from giqa.contract import SCORE_MAX
from giqa.errors import NotFoundError, TableInvalidError
from training import losses
from training.data.samples import Sample
from training.recipe import Rendered
from training.sources import CachedSource, Inputs, Rows

_STREAM = 11  # of the random numbers, apart from those of other draws
_WORST = 5.0  # what is left of a picture that lost the whole scale
_SAME = 0.5  # weight of pictures that nobody tells apart


def read_rendered(table: Path) -> list[Sample]:
    """Read the table of rendered pictures.

    Args:
        table: CSV with the columns `path` (relative to the table's folder, or absolute), `group`
            (empty: a picture with a label of its own), `loss` (0..1), `mos` (0..100 or empty: of
            the group's clean picture, or the label) and `kind`.

    Returns:
        One sample a row: `reference` is the group, `lost` the loss, `subset` the kind.

    Raises:
        NotFoundError: the table or a picture is missing.
        TableInvalidError: a row cannot be read.
    """
    if not table.is_file():
        raise NotFoundError(
            "no such table", item=str(table), remedy="write it: python -m training rendered"
        )
    samples = []
    with table.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                if None in row.values():
                    raise KeyError("a column")
                lost = float(row["loss"] or 0)
                mos = float(row["mos"] or "nan")
                sample = Sample(
                    table.parent / row["path"],
                    mos,
                    subset=row["kind"],
                    reference=row["group"],
                    lost=lost,
                )
            except (KeyError, TypeError, ValueError) as e:
                raise TableInvalidError(f"line {number}: {e!r}", item=str(table)) from e
            if not 0 <= lost <= 1 or not (math.isnan(mos) or 0 <= mos <= SCORE_MAX):
                raise TableInvalidError(f"line {number}: loss or mos out of range", item=str(table))
            if not sample.reference and math.isnan(mos):
                raise TableInvalidError(f"line {number}: neither group nor mos", item=str(table))
            samples.append(sample)
    if missing := [s.path for s in samples if not s.path.is_file()]:
        raise NotFoundError(
            f"{len(missing)} of {len(samples)} pictures are missing, first {missing[0].name}",
            item=str(table),
            remedy="render again: what is there is kept",
        )
    return samples


def targets(samples: Sequence[Sample], options: Rendered) -> npt.NDArray[np.float32]:
    """Scores (n,) float32 on 0..100 that rendered pictures should have among their group.

    Args:
        samples: `mos` is the clean picture's, NaN if it has none, and `lost` what it has lost.
        options: the recipe's section.
    """
    clean = np.array([options.clean if np.isnan(s.mos) else s.mos for s in samples])
    lost = np.array([s.lost or 0.0 for s in samples])
    return (clean - lost * (clean - _WORST)).astype(np.float32)


class Ranker:
    """The groups and anchors that join each step, and their loss.

    Args:
        source: cached features of the pictures; a sample's `reference` is its group, and one
            without is an anchor, whose `mos` is its label.
        options: the recipe's section.
        seed: of the draws; each micro-batch has its own.
        shares: processes and micro-batches, into which what a step draws is divided.

    Attributes:
        groups: (G, size) rows of each group, the last again where it is smaller.
        anchors: (A,) rows.
        targets: (n,) scores, see `targets`.

    Raises:
        ValueError: groups or anchors are fewer than a step's, or do not divide.
    """

    def __init__(self, source: CachedSource, options: Rendered, seed: int, shares: int = 1) -> None:
        self.source, self.options, self._seed = source, options, seed
        self.targets = torch.from_numpy(targets(source.samples, options))
        members: dict[str, list[int]] = {}
        for row, sample in enumerate(source.samples):
            members.setdefault(sample.reference, []).append(row)
        self.anchors = np.array(members.pop("", []), np.int64)
        found = [rows for rows in members.values() if len(rows) > 1]
        self.size = max((len(rows) for rows in found), default=0)
        # All of one size, for processes share them equally: the last again, which costs nothing.
        self.groups = np.array([r + r[-1:] * (self.size - len(r)) for r in found], np.int64)
        for what, there, wanted in (
            ("groups", len(self.groups), options.groups),
            ("anchors", len(self.anchors), options.anchors),
        ):
            if there < wanted:
                raise ValueError(f"rendered: {there} {what} are fewer than the {wanted} of a step")
            if wanted % shares:
                raise ValueError(
                    f"rendered: {wanted} {what} do not divide into {shares} micro-batches"
                )

    def draw(self, number: int, pieces: int = 1) -> Rows:
        """Rows of a micro-batch: its groups, one after the other, each with its share of anchors.

        Args:
            number: which draw; the same number gives the same rows.
            pieces: micro-batches of a step.
        """
        rng = np.random.default_rng([self._seed, number, _STREAM])
        groups = self.groups[
            rng.choice(len(self.groups), self.options.groups // pieces, replace=False)
        ]
        anchors = self.anchors[
            rng.choice(len(self.anchors), self.options.anchors // pieces, replace=False)
        ]
        if not len(anchors):
            return groups.ravel()
        # Equal shares of both: processes part what is drawn in the middle.
        shares = np.gcd(len(groups), len(anchors))
        parts = zip(np.split(groups, shares), np.split(anchors, shares), strict=True)
        return np.concatenate([np.concatenate([g.ravel(), a]) for g, a in parts])

    def batch(self, rows: Rows, epoch: int) -> Inputs:
        """The two arguments of `Trainee.forward`."""
        return self.source.batch(rows, epoch)

    def loss(self, score: Tensor, rows: Rows) -> Tensor:
        """The weighted loss of the scores (n,) of what `draw` gave, a scalar."""
        names = [self.source.samples[row].reference for row in rows]
        known = {name: i for i, name in enumerate(sorted(set(names)))}
        group = torch.tensor([known[name] if name else -1 for name in names], device=score.device)
        target = self.targets[torch.from_numpy(rows)].to(score.device)
        loss = self.options.weight * within(score, target, group)
        anchors = group < 0
        if anchors.any():
            gap = F.smooth_l1_loss(
                score[anchors] / SCORE_MAX, target[anchors] / SCORE_MAX, beta=0.05
            )
            loss = loss + self.options.anchor_weight * gap
        return loss


def within(score: Tensor, target: Tensor, group: Tensor) -> Tensor:
    """Order within groups, and nearness of what is equal; all (n,); groups below 0 do not count."""
    pairs = (group[:, None] == group[None]) & (group[:, None] >= 0)
    loss = losses.ordered(score, target, pairs)
    same = pairs & (target[:, None] == target[None])
    same = same & torch.ones_like(same).triu(1)
    if same.any():
        gap = (score[:, None] - score[None])[same] / SCORE_MAX
        loss = loss + _SAME * F.smooth_l1_loss(gap, torch.zeros_like(gap), beta=0.05)
    return loss
