"""Encoded images to views with DALI on the CPU; one that it cannot decode costs only itself."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from giqa.contract import IMAGE
from giqa.decode._pipeline import TILE_BOX, VIEW_BOX, Regions, build_pipeline
from giqa.errors import CorruptError, GiqaError
from giqa.types import BoxArray, UInt8Array, Views


def has_dali() -> bool:
    """Whether DALI is installed; one that is and does not import is an error when it is used."""
    try:
        return find_spec("nvidia.dali") is not None
    except (ModuleNotFoundError, ValueError):  # no package `nvidia`; or forbidden, as tests do
        return False


class _Kind(NamedTuple):
    """What a pipeline is for."""

    regions: Regions
    views: int
    tiles: int
    cut: bool


class Preprocessor:
    """Runs the pipeline on batches and isolates what cannot be decoded.

    Not thread-safe: one caller at a time.

    Args:
        global_side: side of the global view in pixels.
        local_side: side of the local view in pixels.
        batch: most images a run; larger inputs are split.
        threads: CPU threads for decoding and resizing.
    """

    def __init__(
        self, *, global_side: int, local_side: int, batch: int = 8, threads: int = 1
    ) -> None:
        self.global_side = global_side
        self.local_side = local_side
        self.batch = batch
        self.threads = threads
        self._pipelines: dict[_Kind, Any] = {}

    def __call__(
        self,
        images: Sequence[UInt8Array],
        boxes: Sequence[npt.NDArray[Any]] | None = None,
        tiles: Sequence[BoxArray] | None = None,
    ) -> list[Views | GiqaError]:
        """Decode and resize; an undecodable image costs only itself.

        Args:
            images: encoded files, each (n,) uint8.
            boxes: regions per image, (V, 4): x0, y0, x1, y1 in pixels of the upright picture;
                None looks at the whole frame.
            tiles: squares per image, (T, 4) as `tile_boxes` gives them, that follow its views in
                the local view; None: none.

        Returns:
            Per image its views, or the `CorruptError` that stands in their place.
        """
        results: list[Views | GiqaError | None] = [None] * len(images)
        groups: dict[_Kind, list[int]] = {}
        for i in range(len(images)):
            kind = self._kind(
                None if boxes is None else boxes[i], None if tiles is None else tiles[i]
            )
            groups.setdefault(kind, []).append(i)
        for kind, members in groups.items():
            for start in range(0, len(members), self.batch):
                chunk = members[start : start + self.batch]
                inputs = {IMAGE: [images[i] for i in chunk]}
                if boxes is not None:
                    inputs[VIEW_BOX] = [np.ascontiguousarray(boxes[i], np.float32) for i in chunk]
                if tiles is not None and kind.tiles:
                    inputs[TILE_BOX] = [np.ascontiguousarray(tiles[i], np.int32) for i in chunk]
                for i, result in zip(chunk, self._run(kind, inputs), strict=True):
                    results[i] = result
        return [r for r in results if r is not None]

    def _kind(self, boxes: npt.NDArray[Any] | None, tiles: BoxArray | None) -> _Kind:
        count = 0 if tiles is None else len(tiles)
        cut = bool(count) and tiles is not None and tiles[0, 2] - tiles[0, 0] == self.local_side
        return _Kind(*(("frame", 1) if boxes is None else ("input", len(boxes))), count, cut)

    def _run(
        self, kind: _Kind, inputs: dict[str, list[npt.NDArray[Any]]]
    ) -> list[Views | GiqaError]:
        pipeline = self._pipelines.get(kind)
        if pipeline is None:
            pipeline = self._pipelines[kind] = build_pipeline(
                **kind._asdict(),
                global_side=self.global_side,
                local_side=self.local_side,
                batch=self.batch,
                threads=self.threads,
            )
        count = len(inputs[IMAGE])
        try:
            for name, arrays in inputs.items():
                pipeline.feed_input(name, arrays)
            coarse, fine = pipeline.run()
        except RuntimeError:
            del self._pipelines[kind]  # DALI does not run a pipeline again after an error
            if count == 1:
                return [CorruptError("cannot be decoded")]
            return [
                self._run(kind, {name: [arrays[i]] for name, arrays in inputs.items()})[0]
                for i in range(count)
            ]
        return [
            Views(np.array(coarse.at(i)), np.array(fine.at(i)))  # DALI owns and reuses its buffers
            for i in range(count)
        ]
