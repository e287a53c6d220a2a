"""Where a step's batches come from: cached features, or views made anew."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from giqa.contract import GRID, TILES, Profile
from giqa.decode import Preprocessor, view_boxes
from training.data.table import Sample
from training.features import FeatureCache
from training.model.presets import Preset
from training.recipe import Images
from training.views import Boxes, crop_box, jitter_box, make_views

Rows = npt.NDArray[np.int64]
Inputs = tuple[list[Tensor], list[Tensor]]


class Source(ABC):
    """Images with opinion scores, as inputs of a `Trainee`.

    Args:
        samples: the images.

    Attributes:
        samples: the images.
        all_mos: their opinion scores (n,) float32 on 0..100.
        uniform: whether any samples fit into one batch of `whole`.
    """

    uniform = True

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = list(samples)
        self.all_mos = np.array([s.mos for s in self.samples], np.float32)

    @abstractmethod
    def plan(self, rng: np.random.Generator) -> Rows:
        """Rows of one epoch, every sample once, shuffled."""

    @abstractmethod
    def mos(self, rows: Rows) -> Tensor:
        """Opinion scores (B,) on 0..100, float32."""

    @abstractmethod
    def batch(self, rows: Rows, epoch: int) -> Inputs:
        """The two arguments of `Trainee.forward`, augmented."""

    @abstractmethod
    def whole(self, start: int, end: int) -> Inputs:
        """The same for samples start .. end - 1, not augmented."""


class CachedSource(Source):
    """Samples whose features are cached; row = sample * variants + variant.

    Args:
        samples: the images.
        cache: their features.
        mirror: mirror half of the rows, others in each epoch. Features of a mirrored picture are
            nearly the picture's, mirrored: the backbones have seen both.
        seed: of that choice.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        cache: FeatureCache,
        *,
        mirror: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(samples)
        self.cache, self.variants = cache, cache.variants
        self._mirror, self._seed = mirror, seed

    def plan(self, rng: np.random.Generator) -> Rows:
        """Every sample once, in one of its variants."""
        order = rng.permutation(len(self.samples))
        return order * self.variants + rng.integers(self.variants, size=len(order))

    def mos(self, rows: Rows) -> Tensor:
        """Opinion scores (B,) on 0..100."""
        return torch.from_numpy(self.all_mos[rows // self.variants])

    def batch(self, rows: Rows, epoch: int) -> Inputs:
        """Read features; they are the same in every epoch, but for being mirrored."""
        inputs = self.cache.batch(rows)
        if not self._mirror:
            return inputs
        drawn = [np.random.default_rng([self._seed, epoch, int(row)]).random() for row in rows]
        return mirrored(inputs, torch.tensor(drawn) < 0.5)

    def whole(self, start: int, end: int) -> Inputs:
        """Features of the whole frames."""
        return self.cache.batch(np.arange(start, end) * self.variants)


def mirrored(inputs: Inputs, which: Tensor) -> Inputs:
    """Cached features, left and right exchanged in some rows.

    Args:
        inputs: (B, ...) each.
        which: (B,) bool.
    """

    def turned(x: Tensor, axis: int) -> Tensor:
        if x.ndim == 4:
            return x[which].flip(3)  # a feature map
        # Class and register tokens come before the grid's.
        head, grid = x[which].split([x.shape[axis] - GRID**2, GRID**2], axis)
        grid = grid.unflatten(axis, (GRID, GRID)).flip(axis + 1).flatten(axis, axis + 1)
        return torch.cat([head, grid], axis)

    state, stages = inputs
    for x in state:
        x[which] = turned(x, 1)
    for x in stages:
        # The four tiles' pooled features have no grid.
        x[which] = x[which][:, [1, 0, 3, 2]] if x.shape[1] == TILES else turned(x, 2)
    return state, stages


class ImageSource(Source):
    """Samples whose views are made when they are needed; row = sample.

    Args:
        samples: the images.
        preset: the model as data.
        options: augmentation.
        seed: seed of the augmentation.
    """

    def __init__(
        self, samples: Sequence[Sample], preset: Preset, options: Images, seed: int
    ) -> None:
        super().__init__(samples)
        self._options, self._seed = options, seed
        self.uniform = options.views == "frame"
        self._side = preset.local_branch.view
        self._preprocess = Preprocessor(
            global_side=preset.global_branch.view, local_side=self._side, batch=8, threads=2
        )

    def plan(self, rng: np.random.Generator) -> Rows:
        """Every sample once."""
        return rng.permutation(len(self.samples))

    def mos(self, rows: Rows) -> Tensor:
        """Opinion scores (B,) on 0..100."""
        return torch.from_numpy(self.all_mos[rows])

    def batch(self, rows: Rows, epoch: int) -> Inputs:
        """Augmented views, one an image; each (epoch, row) draws from its own stream."""
        boxes: list[Callable[[int, int], Boxes]] = []
        mirror = []
        for row in rows:
            rng = np.random.default_rng([self._seed, epoch, int(row)])
            mirror.append(bool(rng.random() < self._options.mirror))
            if self._options.views == "crops":
                boxes.append(partial(crop_box, rng=rng, side=self._side))
            else:
                area, ratio = self._options.area, self._options.ratio
                boxes.append(partial(jitter_box, rng=rng, area=area, ratio=ratio))
        paths = [self.samples[row].path for row in rows]
        coarse, fine = make_views(self._preprocess, paths, boxes, mirror)
        return [coarse], [fine]

    def whole(self, start: int, end: int) -> Inputs:
        """Views of profile `fast` or, after training on crops, `precise`.

        With crops all samples asked for must be of one size.
        """
        profile: Profile = "fast" if self.uniform else "precise"
        paths = [s.path for s in self.samples[start:end]]

        def choose(width: int, height: int) -> Boxes:
            return view_boxes(width, height, profile, self._side).astype(np.float32)

        coarse, fine = make_views(
            self._preprocess, paths, [choose] * len(paths), [False] * len(paths)
        )
        return [coarse], [fine]
