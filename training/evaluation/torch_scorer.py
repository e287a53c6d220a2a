"""TorchScorer: the model in PyTorch behind giqa's Scorer protocol, to measure before an export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import groupby, islice
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from giqa.closing import Closing
from giqa.contract import GLOBAL_BRANCH, GRAPHS, LOCAL_BRANCH, MAX_VIEWS, Profile
from giqa.decode import Decoder
from giqa.errors import BundleInvalidError, UsageError
from giqa.manifest import Manifest
from giqa.openvino import cpu_count
from giqa.results import ImageResult
from giqa.sources import items as items_of
from giqa.tensors import check_views
from giqa.types import Limits, Source, Views, ViewScore
from training.graphs import sizes_of
from training.model import PRESETS, Giqa, Preset, create

_T = TypeVar("_T")


class TorchScorer(Closing):
    """Scores images with PyTorch in float32 on the CPU; decoding and rows are giqa's own.

    Args:
        model: the model; is put into evaluation mode.
        threads: CPU threads that decode; all that the process may use unless given. Those that
            infer are PyTorch's, see `torch.set_num_threads`.
        batch: images decoded, and views of one V inferred, at once.
        limits: limits on what is decoded.

    Raises:
        MissingExtraError: DALI is not installed.
    """

    engine = "torch-f32"
    """Runtime and precision."""

    def __init__(
        self,
        model: Giqa,
        *,
        threads: int | None = None,
        batch: int = 8,
        limits: Limits | None = None,
    ) -> None:
        self._model = model.eval().float()
        self._batch = batch
        self.manifest = _manifest(model.preset)
        self._decoder = Decoder(
            self.manifest, limits=limits, batch=batch, threads=threads or cpu_count()
        )

    @classmethod
    def load(
        cls,
        weights: Path,
        preset: str,
        *,
        threads: int | None = None,
        batch: int = 8,
        limits: Limits | None = None,
    ) -> Self:
        """Make a scorer of a run's final weights.

        Args:
            weights: a full state dict, safetensors.
            preset: name of the preset that was trained.
            threads: see the class.
            batch: see the class.
            limits: see the class.

        Raises:
            UsageError: no preset of that name.
            BundleInvalidError: the file is no safetensors file or does not fit the preset.
            OSError: it cannot be read.
        """
        return cls(load_model(weights, preset), threads=threads, batch=batch, limits=limits)

    def score(
        self,
        items: Source | Iterable[Source],
        *,
        profile: Profile = "fast",
        quality_map: bool = False,
    ) -> Iterator[ImageResult]:
        """Score images lazily, in order, one result each; bad items become error results.

        Args:
            items: one or many of what `giqa.score` takes; pulled as the work proceeds.
            profile: `fast` or `precise`.
            quality_map: fill in `ImageResult.quality_map` where the model has a map.

        Yields:
            One result an item.
        """
        for chunk in _chunks(items_of(items, self._decoder.limits), self._batch):
            decoded = self._decoder(chunk, profile)
            scores = self.score_views(one.views for one in decoded if one.views is not None)
            for one in decoded:
                found = next(scores) if one.views is not None else None
                yield one.row(self.manifest.id, self.engine, profile, found, mapped=quality_map)

    def score_views(self, views: Iterable[Views]) -> Iterator[ViewScore]:
        """Score ready-made views lazily, in order.

        Args:
            views: all with the preset's sizes.

        Yields:
            One score each.

        Raises:
            ShapeMismatchError: views have another dtype or shape than the preset's.
        """
        for chunk in _chunks(views, self._batch):
            for one in chunk:
                check_views(one, self.manifest)
            for (_, count), same in groupby(chunk, key=lambda one: one.counts):
                for part in _chunks(same, max(1, self._batch // count)):
                    yield from self._infer(part)

    def close(self) -> None:
        """Nothing to free."""

    def _infer(self, views: list[Views]) -> list[ViewScore]:
        with torch.inference_mode():
            found = self._model(
                torch.from_numpy(np.stack([one.global_view for one in views])),
                torch.from_numpy(np.stack([one.local_view for one in views])),
            )
        scores = found[0][:, 0].tolist()
        maps = [None] * len(views) if len(found) == 1 else list(found[1].numpy())
        return [ViewScore(*pair) for pair in zip(scores, maps, strict=True)]


def load_model(weights: Path, preset: str) -> Giqa:
    """Make a model of a run's final weights.

    Args:
        weights: a full state dict, safetensors.
        preset: name of the preset that was trained.

    Raises:
        UsageError: no preset of that name.
        BundleInvalidError: the file is no safetensors file or does not fit the preset.
        OSError: it cannot be read.
    """
    if preset not in PRESETS:
        raise UsageError(f"no such preset; there are {', '.join(PRESETS)}", item=preset)
    try:
        return create(preset, load_file(weights))
    except (SafetensorError, RuntimeError) as e:
        raise BundleInvalidError(
            f"no weights of {preset}: {str(e).splitlines()[0]}",
            item=str(weights),
            remedy="give the final weights of a run, and its preset",
        ) from e


def _manifest(preset: Preset) -> Manifest:
    """The manifest that the preset's bundle would have, without files; version 0.0.0."""
    spec_g, spec_l = preset.global_branch, preset.local_branch
    return Manifest.model_validate(
        {
            "name": preset.name,
            "version": "0.0.0",
            "preset": asdict(preset),
            "tensors": sizes_of(preset).model_dump(),
            "normalization": {
                GLOBAL_BRANCH: {"mean": spec_g.mean, "std": spec_g.std},
                LOCAL_BRANCH: {"mean": spec_l.mean, "std": spec_l.std},
            },
            "profiles": {"fast": preset.fast.model_dump(), "precise": {"max_views": MAX_VIEWS}},
            "score": {"calibration": {"method": "unknown", "parameters": {}, "fitted_on": ""}},
            "graphs": {name: f"{name}.onnx" for name in GRAPHS},
            "self_test": {"image": "none", "score": 0.0, "tolerance": {}},
            "accuracy": [],
            "training": {},
            "licences": {"code": "", "weights": "", "data": {}},
            "files": {},
        }
    )


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk
