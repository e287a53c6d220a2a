"""A teacher's answers to the training images, computed once with the runtime that serves it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from giqa.bundle import Bundle, load_bundle
from giqa.contract import (
    FUSION,
    GLOBAL_BRANCH,
    GLOBAL_TOKENS,
    GLOBAL_VIEW,
    GRID,
    LOCAL_BRANCH,
    LOCAL_TOKENS,
    LOCAL_VIEW,
    QUALITY_MAP,
    SCORE,
)
from giqa.graphs import CompiledGraph, choose_precision
from giqa.preprocess import Preprocessor
from training import cache
from training.data.table import Sample
from training.features import variant_views

_BATCH = 8


class Answers:
    """What a teacher said of every row of a feature cache.

    Args:
        folder: a folder written by `ask`.
    """

    def __init__(self, folder: Path) -> None:
        self.arrays, meta = cache.read(folder)
        self.names: list[str] = meta["tensors"]

    def batch(self, rows: npt.NDArray[np.int64], names: Sequence[str]) -> dict[str, Tensor]:
        """Read rows of some tensors: float32, by contract name.

        SCORE (B,) and QUALITY_MAP (B, grid, grid) on 0..100; where they were kept, GLOBAL_TOKENS
        (B, N, D), the last stage's, and LOCAL_TOKENS (B, N, D).
        """
        return {
            name: torch.from_numpy(array[rows]).float()
            for name, array in zip(self.names, self.arrays, strict=True)
            if name in names
        }


def ask(
    folder: Path,
    teacher: Path | str | Bundle,
    samples: Sequence[Sample],
    *,
    variants: int,
    seed: int,
    tokens: bool,
    threads: int,
) -> Answers:
    """Run a teacher on the rows of a feature cache, or go on where that was interrupted.

    Args:
        folder: where its answers go.
        teacher: a bundle, or what names one.
        samples: images, in the order of the cache's rows.
        variants: variants per sample.
        seed: seed of the augmentation, the cache's.
        tokens: keep tokens, too.
        threads: CPU threads.

    Returns:
        The answers.

    Raises:
        BundleInvalidError: `teacher` is no valid bundle.
        ValueError: the folder holds answers to something else, or the teacher has no map.
        GiqaError: an image cannot be decoded (it is named).
        StorageFullError: no room; what was saved stays.
    """
    bundle = teacher if isinstance(teacher, Bundle) else load_bundle(teacher)
    manifest = bundle.manifest
    if not manifest.tensors.quality_map:
        raise ValueError(f"{manifest.id} gives no quality map; it cannot be a teacher")
    names = [SCORE, QUALITY_MAP, *([GLOBAL_TOKENS, LOCAL_TOKENS] if tokens else [])]
    preprocess = Preprocessor(
        global_side=manifest.tensors.global_side,
        local_side=manifest.tensors.local_side,
        batch=_BATCH,
        threads=2,
    )
    precision = choose_precision(bundle, "auto")
    graphs: dict[str, CompiledGraph] = {}

    def compute(start: int, end: int) -> list[npt.NDArray[Any]]:
        if not graphs:
            for name in (GLOBAL_BRANCH, LOCAL_BRANCH, FUSION):
                graphs[name] = CompiledGraph(bundle, name, precision, threads)
        coarse, fine = variant_views(preprocess, samples, variants, seed, start, end)
        found = dict(graphs[GLOBAL_BRANCH]({GLOBAL_VIEW: coarse.numpy()}))
        found |= graphs[LOCAL_BRANCH]({LOCAL_VIEW: fine.numpy()})
        found |= graphs[FUSION](dict(found))
        kept = {
            SCORE: found[SCORE][:, 0],
            QUALITY_MAP: found[QUALITY_MAP][:, 0],
            GLOBAL_TOKENS: found[GLOBAL_TOKENS][:, 0, -1, : GRID * GRID],
            LOCAL_TOKENS: found[LOCAL_TOKENS][:, 0, : GRID * GRID],
        }
        return [kept[name] for name in names]

    identity = {
        "teacher": manifest.id,
        "files": {name: file.sha256 for name, file in sorted(manifest.files.items())},
        "precision": precision,
        "tensors": names,
        "samples": cache.fingerprint(samples),
        "variants": variants,
        "seed": seed,
    }
    cache.fill(folder, identity, len(samples) * variants, _BATCH, compute, what="answers")
    return Answers(folder)
