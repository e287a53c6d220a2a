"""Encoded images to views: the one definition, in DALI.

A view is a region of the picture resized, with antialiasing, to the local side. The global view
is derived from the local one: at half the side, every global pixel is the mean of 2x2 local
pixels (rounded: within 0.5 of it), so both see the same field and the picture is resized once.

Profile `fast`: one view, the whole frame squashed to the square.
Profile `precise`: square regions of native pixels on an even grid (see `view_boxes`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from giqa.contract import GLOBAL_VIEW, IMAGE, LOCAL_VIEW, Profile
from giqa.errors import CorruptError, GiqaError, MissingExtraError

UInt8Array = npt.NDArray[np.uint8]
BoxArray = npt.NDArray[np.int32]

VIEW_BOX = "VIEW_BOX"
_GRID_LINES = 3


@dataclass(frozen=True)
class Views:
    """One image, ready for the branches.

    Attributes:
        global_view: (V, g, g, 3) uint8, sRGB, NHWC.
        local_view: (V, l, l, 3) uint8, the same fields of view, finer.
    """

    global_view: UInt8Array
    local_view: UInt8Array


def view_boxes(width: int, height: int, profile: Profile, side: int) -> BoxArray:
    """Tell which regions of a picture a profile looks at.

    `precise` cuts squares of native pixels with side s = min(short side, `side`), spaced evenly
    so that the outermost touch the borders; per axis as many as cover it, at most 3.

    Args:
        width: width of the upright picture in pixels.
        height: height of the upright picture in pixels.
        profile: `fast` or `precise`.
        side: the local view's side in pixels.

    Returns:
        (V, 4) int32, rows (x0, y0, x1, y1) in pixels, end exclusive, in reading order.
    """
    if profile == "fast":
        return np.array([[0, 0, width, height]], np.int32)
    square = min(width, height, side)

    def starts(length: int) -> list[int]:
        lines = min(_GRID_LINES, math.ceil(length / square))
        if lines == 1:
            return [(length - square) // 2]
        return [round(i * (length - square) / (lines - 1)) for i in range(lines)]

    return np.array(
        [[x, y, x + square, y + square] for y in starts(height) for x in starts(width)], np.int32
    )


def build_pipeline(
    *,
    views: int,
    boxes: bool,
    global_side: int,
    local_side: int,
    batch: int,
    threads: int,
    device: str = "cpu",
    device_id: int | None = None,
) -> Any:
    """Build the DALI pipeline IMAGE [+ VIEW_BOX] -> GLOBAL_VIEW, LOCAL_VIEW.

    Decoding applies the EXIF orientation and gives RGB.

    Args:
        views: V, the number of views an image.
        boxes: take the regions from the input VIEW_BOX ((V, 4) float32: x0, y0, x1, y1 in pixels
            of the upright picture); else the view is the whole frame and V must be 1.
        global_side: side of the global view in pixels.
        local_side: side of the local view in pixels; equal to or twice `global_side`.
        batch: most images a run.
        threads: CPU threads.
        device: `cpu`, or `gpu` (decode "mixed", resize on the GPU).
        device_id: the GPU; None on a CPU.

    Returns:
        A built `nvidia.dali.Pipeline` with outputs GLOBAL_VIEW (V, g, g, 3) and LOCAL_VIEW
        (V, l, l, 3), uint8, per sample.

    Raises:
        MissingExtraError: DALI is not installed.
        ValueError: the sides are unequal and not 1:2, or V > 1 without boxes.
    """
    try:
        from nvidia.dali import fn, pipeline_def, types
    except ImportError as e:
        raise MissingExtraError(f"DALI does not import: {e}", extra="cpu") from e
    if local_side not in (global_side, 2 * global_side):
        raise ValueError(f"local side {local_side} is not {global_side} or twice that")
    if views > 1 and not boxes:
        raise ValueError("several views need boxes")

    @pipeline_def(
        batch_size=batch,
        num_threads=threads,
        device_id=device_id,
        prefetch_queue_depth=1,
        exec_dynamic=True,
    )
    def giqa_views() -> tuple[Any, Any]:
        encoded = fn.external_source(name=IMAGE, dtype=types.UINT8, ndim=1)
        picture = fn.decoders.image(
            encoded,
            device="mixed" if device == "gpu" else "cpu",
            output_type=types.RGB,
            jpeg_fancy_upsampling=True,
        )
        regions: list[dict[str, Any]] = [{}]
        if boxes:
            box = fn.external_source(name=VIEW_BOX, dtype=types.FLOAT, ndim=2)
            regions = [
                {
                    "roi_start": fn.stack(box[i, 1], box[i, 0]),
                    "roi_end": fn.stack(box[i, 3], box[i, 2]),
                }
                for i in range(views)
            ]
        local = [
            fn.resize(
                picture,
                size=(local_side, local_side),
                interp_type=types.INTERP_TRIANGULAR,
                antialias=True,
                **region,
            )
            for region in regions
        ]
        # Linear sampling at exactly half the side takes the mean of 2x2 pixels.
        fine = [
            view
            if global_side == local_side
            else fn.resize(
                view,
                size=(global_side, global_side),
                interp_type=types.INTERP_LINEAR,
                antialias=False,
            )
            for view in local
        ]
        return fn.stack(*fine, name=GLOBAL_VIEW), fn.stack(*local, name=LOCAL_VIEW)

    pipeline = giqa_views()
    pipeline.build()
    return pipeline


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
        self._pipelines: dict[tuple[int, bool], Any] = {}

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
        groups: dict[tuple[int, bool], list[int]] = {}
        for i in range(len(images)):
            key = (1, False) if boxes is None else (len(boxes[i]), True)
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
        key: tuple[int, bool],
        images: Sequence[UInt8Array],
        boxes: Sequence[npt.NDArray[Any]] | None,
    ) -> list[Views | GiqaError]:
        pipeline = self._pipelines.get(key)
        if pipeline is None:
            pipeline = self._pipelines[key] = build_pipeline(
                views=key[0],
                boxes=key[1],
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
