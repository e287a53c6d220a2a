"""Moments of the frozen CNN over tiles of native pixels, where a model sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from giqa.decode import Decoder
from giqa.manifest import Manifest
from giqa.types import Item
from training import cache
from training.data.samples import Sample
from training.features import BATCH, Runner, runner
from training.model import Giqa
from training.model.backbones import weights_digest

_PICTURES = 2  # a call, whose tiles are a batch


class _Moments(nn.Module):
    """LOCAL_VIEW (B, 1, H, W, 3) uint8 to the CNN's moments (B, F)."""

    def __init__(self, model: Giqa) -> None:
        super().__init__()
        self.local_branch = model.local_branch

    def forward(self, local_view: Tensor) -> Tensor:
        return self.local_branch.pool(self.local_branch.stages(local_view))


def features(
    folder: Path,
    model: Giqa,
    samples: Sequence[Sample],
    manifest: Manifest,
    frames: npt.NDArray[np.float32],
    *,
    amp: bool,
) -> npt.NDArray[np.float32]:
    """Mean over a picture's tiles; of the whole frame where a picture has none.

    Args:
        folder: the cache; an interrupted one is gone on with.
        model: with its pretrained backbones.
        samples: the pictures.
        manifest: says which pictures have tiles.
        frames: (n, F), the CNN's moments of whole frames.
        amp: run in bfloat16.

    Returns:
        (n, F) float32.

    Raises:
        ValueError: the folder holds something else.
        GiqaError: a picture cannot be decoded (it is named), or the disk is full.
    """
    decode = Decoder(manifest, batch=_PICTURES, threads=torch.get_num_threads())
    run: list[Runner] = []

    def compute(start: int, end: int) -> list[npt.NDArray[Any]]:
        if not run:  # a finished cache needs none
            run.append(runner(_Moments(model), [manifest.tensors.local_side], amp=amp))
        found = []
        for i, one in enumerate(decode([Item.of(s.path) for s in samples[start:end]], "fast")):
            if one.views is None:
                assert one.error is not None
                raise one.error
            views, seen = one.views.counts
            if seen == views:
                found.append(np.asarray(frames[start + i], np.float32))
                continue
            native = one.views.local_view[views:]
            parts = [
                run[0](torch.from_numpy(native[j : j + BATCH])[:, None])[0]
                for j in range(0, len(native), BATCH)
            ]
            found.append(np.concatenate(parts).mean(0))
        return [np.stack(found)]

    fast = manifest.profiles["fast"]
    identity = {
        "preset": model.preset.name,
        "weights": weights_digest(model.local_branch.backbone.state_dict().items()),
        "samples": cache.fingerprint(samples),
        "tiles": [fast.tiles, fast.tile_pixels],
        "amp": amp,
    }
    cache.fill(folder, identity, len(samples), _PICTURES, compute, what="features of tiles")
    return np.asarray(cache.read(folder)[0][0], np.float32)
