"""Pooled features of pictures: what the image-level term sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from giqa.preprocess import Preprocessor
from training import cache
from training.context import ContextOnly, Pooled
from training.data.samples import Sample
from training.features import BATCH, Frozen, Runner, runner, variant_views
from training.model import Giqa
from training.model.branches import Context

_NORM_ROWS = 1024


class Pooler:
    """Runs the backbones over whole frames and keeps only what is pooled.

    Args:
        model: with pretrained and rounded backbones.
        amp: run in bfloat16.
    """

    def __init__(self, model: Giqa, amp: bool) -> None:
        self._model, self._amp = model.eval(), amp
        self._frozen = Frozen(model, len(model.global_branch.backbone.blocks))
        self._run: Runner | None = None

    def __call__(self, paths: Sequence[Path], folder: Path) -> Pooled:
        """Compute, or go on where an interrupted run stopped, or read a finished cache.

        Args:
            paths: image files.
            folder: the cache.

        Returns:
            (n, S, 3 * width) and (n, 2 C) float16, in the order of `paths`.

        Raises:
            ValueError: the folder holds features of other pictures or weights.
            GiqaError: a picture cannot be decoded (it is named), or the disk is full.
        """
        samples = [Sample(path, 0) for path in paths]
        preset = self._model.preset
        identity = {
            "preset": preset.name,
            "weights": cache.weights_digest(self._frozen.weights()),
            "samples": cache.fingerprint(samples),
            "n": len(samples),
            "amp": self._amp,
            "runner": "cuda" if torch.cuda.is_available() else "openvino",
        }
        preprocess = Preprocessor(
            global_side=preset.global_branch.view,
            local_side=preset.local_branch.view,
            batch=BATCH,
            threads=1,
        )

        def compute(start: int, end: int) -> list[npt.NDArray[Any]]:
            if self._run is None:  # a finished cache needs none
                self._run = runner(self._frozen, self._model, self._amp)
            views = variant_views(preprocess, samples, 1, 0, start, end)
            return self._pool([torch.from_numpy(a) for a in self._run(*views)])

        cache.fill(folder, identity, len(samples), BATCH, compute, what="pooled features")
        return cache.read(folder)[0]

    @torch.inference_mode()
    def _pool(self, parts: list[Tensor]) -> list[npt.NDArray[Any]]:
        coarse, fine = self._model.global_branch, self._model.local_branch
        count = self._frozen.n_state
        # The taps stand behind the last state, which is the last tap itself.
        raw = coarse.suffix(parts[:count], self._frozen.depth)
        return [p.numpy() for p in (coarse.pool(raw.float()), fine.pool(parts[count:]))]


@torch.no_grad()
def calibrate(part: ContextOnly, features: Pooled, variants: int) -> None:
    """Set the statistics of the term's norms, as `training.norms` does, from pooled features.

    Args:
        part: the term, changed.
        features: of BIQ2021's training images.
        variants: rows an image, the whole frame first.
    """
    images = len(features[0]) // variants
    rows = np.arange(0, images, max(1, images // _NORM_ROWS)) * variants
    coarse, fine = (torch.from_numpy(a[rows]).double() for a in features)
    for context, x in zip([*part.coarse, part.fine], [*coarse.unbind(1), fine], strict=True):
        assert isinstance(context, Context)
        assert context.norm.running_mean is not None
        assert context.norm.running_var is not None
        context.norm.running_mean.copy_(x.mean(0))
        context.norm.running_var.copy_(x.var(0, correction=0).clamp(min=1e-6))
