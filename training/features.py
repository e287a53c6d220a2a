"""Cached features of frozen backbones: what lets two CPU cores train the fusion.

A cache is a folder: `cache.json` (what it was made from) and one `.npy` array a tensor, float16,
first axis = sample * variants + variant. Variant 0 is the whole frame; the others are augmented:
a random region of another aspect ratio squashed to the square, mirrored half of the time.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from giqa.errors import GiqaError
from giqa.inputs import read
from giqa.preprocess import Preprocessor
from giqa.probe import probe
from giqa.scorer import Item
from training.data.table import Sample
from training.model import Giqa

_BATCH = 8


def jitter_box(
    width: int, height: int, rng: np.random.Generator, area: float = 0.6, ratio: float = 16 / 9
) -> npt.NDArray[np.float32]:
    """Draw a region whose aspect ratio is off by up to `ratio` and that keeps about `area` of it.

    A side that would leave the picture is cut, so a little less than `area` may remain.

    Args:
        width: picture width in pixels.
        height: picture height in pixels.
        rng: source of randomness.
        area: smallest share of the picture, before a side is cut.
        ratio: largest change of the aspect ratio, either way.

    Returns:
        (1, 4) float32: x0, y0, x1, y1 in pixels.
    """
    share = rng.uniform(area, 1.0)
    shape = math.exp(rng.uniform(-math.log(ratio), math.log(ratio)) / 2)
    w, h = min(1.0, math.sqrt(share) * shape), min(1.0, math.sqrt(share) / shape)
    x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
    box = np.array([[x * width, y * height, (x + w) * width, (y + h) * height]], np.float32)
    return np.rint(box)


def _identity(
    model: Giqa, samples: Sequence[Sample], variants: int, seed: int, amp: bool
) -> dict[str, object]:
    weights = hashlib.sha256()
    for branch in (model.global_branch, model.local_branch):
        for name, value in branch.backbone.state_dict().items():
            weights.update(name.encode() + value.numpy().tobytes())
    return {
        "global": asdict(model.preset.global_branch),
        "local": asdict(model.preset.local_branch),
        "weights": weights.hexdigest(),
        "samples": hashlib.sha256("\n".join(s.path.name for s in samples).encode()).hexdigest(),
        "n": len(samples),
        "variants": variants,
        "seed": seed,
        "amp": amp,
    }


class FeatureCache:
    """Features on disk, memory-mapped.

    Args:
        folder: a folder written by `build`.

    Attributes:
        variants: variants per sample.
        arrays: memory-mapped float16 arrays: the global tokens (n * variants, S, N, width), then
            one (n * variants, C, h, w) per CNN stage.
    """

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / "cache.json").read_text())
        self.variants: int = meta["variants"]
        self.arrays = [np.load(p, mmap_mode="r") for p in sorted(folder.glob("*.npy"))]

    def batch(self, rows: npt.NDArray[np.int64]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Read rows: raw global tokens (B, S, N, width) and the CNN's stages, float32."""
        parts = [torch.from_numpy(a[rows]).float() for a in self.arrays]
        return parts[0], parts[1:]


@torch.inference_mode()
def build(
    folder: Path,
    model: Giqa,
    samples: Sequence[Sample],
    *,
    variants: int,
    seed: int,
    amp: bool = True,
) -> FeatureCache:
    """Compute the cache, or go on where an interrupted run stopped.

    Args:
        folder: where it goes; a finished cache made from the same things is reused.
        model: its backbones are run; they must be frozen and already rounded.
        samples: images, in the order of the cache's rows.
        variants: variants per sample, at least 1.
        seed: seed of the augmentation; each row draws from its own stream.
        amp: run the backbones in bfloat16.

    Returns:
        The cache.

    Raises:
        ValueError: the folder holds a cache of something else.
        GiqaError: an image cannot be decoded (it is named).
    """
    folder.mkdir(parents=True, exist_ok=True)
    identity = _identity(model, samples, variants, seed, amp)
    meta = folder / "cache.json"
    done = 0
    if meta.is_file():
        old = json.loads(meta.read_text())
        done = old.pop("done")
        if old != json.loads(json.dumps(identity)):
            raise ValueError(f"{folder} holds features of other images or weights; delete it")
    spec_g, spec_l = model.preset.global_branch, model.preset.local_branch
    preprocess = Preprocessor(
        global_side=spec_g.view, local_side=spec_l.view, batch=_BATCH, threads=2
    )
    rows = len(samples) * variants
    arrays: list[np.memmap[Any, np.dtype[np.float16]]] = []
    bar = tqdm(total=rows, initial=done, unit="image", disable=None, file=sys.stderr, mininterval=5)
    for start in range(done, rows, _BATCH):
        global_view, local_view = _views(preprocess, samples, variants, seed, start, rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            parts = [
                model.global_branch.tokens(global_view),
                *model.local_branch.stages(local_view),
            ]
        if not arrays:
            arrays = [
                np.lib.format.open_memmap(
                    folder / f"{i}.npy",
                    mode="r+" if done else "w+",
                    dtype=np.float16,
                    shape=(rows, *p.shape[1:]),
                )
                for i, p in enumerate(parts)
            ]
        for array, part in zip(arrays, parts, strict=True):
            array[start : start + len(part)] = part.to(torch.float16).numpy()
        bar.update(len(global_view))
        end = min(start + _BATCH, rows)
        if end == rows or (start // _BATCH) % 64 == 63:
            for array in arrays:
                array.flush()
            temporary = meta.with_suffix(".tmp")
            temporary.write_text(json.dumps({**identity, "done": end}))
            temporary.replace(meta)
    bar.close()
    return FeatureCache(folder)


def _views(
    preprocess: Preprocessor,
    samples: Sequence[Sample],
    variants: int,
    seed: int,
    start: int,
    rows: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of rows start .. start + _BATCH as (B, 1, H, W, 3) uint8 tensors."""
    images, boxes, mirror = [], [], []
    for row in range(start, min(start + _BATCH, rows)):
        sample, variant = samples[row // variants], row % variants
        data = read(Item.of(sample.path))
        try:
            width, height = probe(data).upright_size
        except GiqaError as e:
            e.item = str(sample.path)
            raise
        rng = np.random.default_rng([seed, row])
        whole = np.array([[0, 0, width, height]], np.float32)
        boxes.append(jitter_box(width, height, rng) if variant else whole)
        mirror.append(bool(variant) and rng.random() < 0.5)
        images.append(data)
    views = []
    for i, (result, flip) in enumerate(zip(preprocess(images, boxes), mirror, strict=True)):
        if isinstance(result, GiqaError):
            result.item = str(samples[(start + i) // variants].path)
            raise result
        pair = (result.global_view, result.local_view)
        views.append([v[:, :, ::-1] if flip else v for v in pair])
    coarse, fine = zip(*views, strict=True)
    return torch.from_numpy(np.stack(coarse)), torch.from_numpy(np.stack(fine))
