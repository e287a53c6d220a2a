"""Batches of encoded images to views, with DALI; what cannot be decoded costs only itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from giqa.contract import IMAGE
from giqa.errors import CorruptError, GiqaError
from giqa.pipeline import VIEW_BOX, Regions, build_pipeline

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Views:
    """One image, ready for the branches.

    Attributes:
        global_view: (V, g, g, 3) uint8, sRGB, NHWC.
        local_view: (V, l, l, 3) uint8, the same fields of view, finer.
    """

    global_view: UInt8Array
    local_view: UInt8Array


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
        self._pipelines: dict[tuple[Regions, int], Any] = {}

    def __call__(
        self, images: Sequence[UInt8Array], boxes: Sequence[npt.NDArray[Any]] | None = None
    ) -> list[Views | GiqaError]:
        """Decode and resize; an undecodable image costs only itself.

        Args:
            images: encoded files, each (n,) uint8.
            boxes: regions per image, (V, 4): x0, y0, x1, y1 in pixels of the upright picture;
                None looks at the whole frame.

        Returns:
            Per image its views, or the `CorruptError` that stands in their place.
        """
        results: list[Views | GiqaError | None] = [None] * len(images)
        groups: dict[tuple[Regions, int], list[int]] = {}
        for i in range(len(images)):
            key: tuple[Regions, int]
            key = ("frame", 1) if boxes is None else ("input", len(boxes[i]))
            groups.setdefault(key, []).append(i)
        for key, members in groups.items():
            for start in range(0, len(members), self.batch):
                chunk = members[start : start + self.batch]
                part = [images[i] for i in chunk]
                part_boxes = None if boxes is None else [boxes[i] for i in chunk]
                for i, result in zip(chunk, self._run(key, part, part_boxes), strict=True):
                    results[i] = result
        return [r for r in results if r is not None]

    def _run(
        self,
        key: tuple[Regions, int],
        images: Sequence[UInt8Array],
        boxes: Sequence[npt.NDArray[Any]] | None,
    ) -> list[Views | GiqaError]:
        pipeline = self._pipelines.get(key)
        if pipeline is None:
            pipeline = self._pipelines[key] = build_pipeline(
                regions=key[0],
                views=key[1],
                global_side=self.global_side,
                local_side=self.local_side,
                batch=self.batch,
                threads=self.threads,
            )
        try:
            pipeline.feed_input(IMAGE, list(images))
            if boxes is not None:
                pipeline.feed_input(VIEW_BOX, [np.ascontiguousarray(b, np.float32) for b in boxes])
            coarse, fine = pipeline.run()
        except RuntimeError:
            del self._pipelines[key]  # DALI does not run a pipeline again after an error
            if len(images) == 1:
                return [CorruptError("cannot be decoded")]
            return [
                self._run(key, [image], None if boxes is None else [boxes[i]])[0]
                for i, image in enumerate(images)
            ]
        return [
            Views(np.array(coarse.at(i)), np.array(fine.at(i)))  # DALI owns and reuses its buffers
            for i in range(len(images))
        ]
