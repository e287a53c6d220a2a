"""Encoded images to views: the one definition, in DALI, for CPU and GPU.

A view is a region of the picture resized, with antialiasing, to the local side. The global view
is derived from the local one: at half the side, every global pixel is the mean of 2x2 local
pixels (rounded: within 0.5 of it), so both see the same field and the picture is resized once.

Profile `fast`: one view, the whole frame squashed to the square.
Profile `precise`: square regions of native pixels on an even grid (see `view_boxes`).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from giqa.contract import GLOBAL_VIEW, IMAGE, LOCAL_VIEW, MAX_VIEWS, Profile
from giqa.errors import MissingExtraError

BoxArray = npt.NDArray[np.int32]
Regions = Literal["frame", "input", "grid"]

VIEW_BOX = "VIEW_BOX"
_LINES = 3
"""Most grid lines an axis; MAX_VIEWS is its square."""
_HINT = 4096
"""Side of the picture that a GPU's decoder has its memory ready for, in pixels."""


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
        lines = min(_LINES, -(-length // square))
        return [i * (length - square) // max(lines - 1, 1) for i in range(lines)]

    return np.array(
        [[x, y, x + square, y + square] for y in starts(height) for x in starts(width)], np.int32
    )


def define_pipeline(
    *,
    regions: Regions,
    views: int = 1,
    global_side: int,
    local_side: int,
    batch: int,
    threads: int,
    device: Literal["cpu", "gpu"] = "cpu",
) -> Any:
    """Define the DALI pipeline IMAGE [+ VIEW_BOX] -> GLOBAL_VIEW, LOCAL_VIEW.

    Decoding applies the EXIF orientation and gives RGB.

    Args:
        regions: what a view shows: `frame`, the whole picture (V = 1); `input`, what the input
            VIEW_BOX says ((V, 4) float32: x0, y0, x1, y1 in pixels of the upright picture);
            `grid`, the boxes of profile `precise`, found in the graph, V per image.
        views: V for `input`.
        global_side: side of the global view in pixels.
        local_side: side of the local view in pixels; equal to or twice `global_side`.
        batch: most images a run.
        threads: CPU threads.
        device: `cpu`, or `gpu` (decode "mixed", resize on the GPU). Defining and serializing
            a GPU pipeline needs no GPU.

    Returns:
        An `nvidia.dali.Pipeline`, not built, with outputs GLOBAL_VIEW (V, g, g, 3) and
        LOCAL_VIEW (V, l, l, 3), uint8, per sample.

    Raises:
        MissingExtraError: DALI is not installed.
        ValueError: the sides are unequal and not 1:2, or `frame` is asked for several views.
    """
    try:
        from nvidia.dali import fn, pipeline_def, types
    except ImportError as e:
        raise MissingExtraError(f"DALI does not import: {e}", extra="cpu") from e
    if local_side not in (global_side, 2 * global_side):
        raise ValueError(f"local side {local_side} is not {global_side} or twice that")
    if views > 1 and regions != "input":
        raise ValueError("a number of views needs boxes for them")
    hints: dict[str, Any] = {}
    if device == "gpu":
        hints = {"preallocate_width_hint": _HINT, "preallocate_height_hint": _HINT}

    @pipeline_def(
        batch_size=batch,
        num_threads=threads,
        device_id=None,  # Triton's DALI backend places it
        prefetch_queue_depth=1,
        # On a CPU, the one that asks for memory anew in every run leaves holes in glibc's heaps:
        # 100 to 200 MB more, never twice the same.
        exec_dynamic=device == "gpu",
    )
    def giqa_views() -> tuple[Any, Any]:
        encoded = fn.external_source(name=IMAGE, dtype=types.UINT8, ndim=1)
        picture = fn.decoders.image(
            encoded,
            device="mixed" if device == "gpu" else "cpu",
            output_type=types.RGB,
            jpeg_fancy_upsampling=True,
            **hints,
        )
        count: Any = None
        if regions == "frame":
            boxes: list[dict[str, Any]] = [{}]
        elif regions == "input":
            boxes = _given(fn, types, views)
        else:
            boxes, count = _grid(fn, types, encoded, local_side)
        local = [
            fn.resize(
                picture,
                size=(local_side, local_side),
                interp_type=types.INTERP_TRIANGULAR,
                antialias=True,
                **box,
            )
            for box in boxes
        ]
        # Linear sampling at exactly half the side takes the mean of 2x2 pixels.
        coarse = [
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
        if count is None:
            return fn.stack(*coarse, name=GLOBAL_VIEW), fn.stack(*local, name=LOCAL_VIEW)
        used: dict[str, Any] = {"start": [0], "shape": count, "axes": [0]}
        return (
            fn.slice(fn.stack(*coarse), **used, name=GLOBAL_VIEW),
            fn.slice(fn.stack(*local), **used, name=LOCAL_VIEW),
        )

    return giqa_views()


def build_pipeline(**options: Any) -> Any:
    """Define a pipeline (see `define_pipeline`) and build it for the CPU.

    Returns:
        A built `nvidia.dali.Pipeline`.

    Raises:
        MissingExtraError: DALI is not installed.
        ValueError: the sides are unequal and not 1:2, or `frame` is asked for several views.
    """
    pipeline = define_pipeline(**options)
    pipeline.build()
    return pipeline


def serialize_pipeline(**options: Any) -> bytes:
    """Define a pipeline (see `define_pipeline`) and serialize it for Triton's DALI backend.

    The same options give the same bytes: where the operators were defined is left out.

    Returns:
        What goes into `model.dali`.

    Raises:
        MissingExtraError: DALI is not installed.
        ValueError: the sides are unequal and not 1:2, or `frame` is asked for several views.
    """
    try:
        from nvidia.dali._utils import dali_trace
    except ImportError as e:
        raise MissingExtraError(f"DALI does not import: {e}", extra="cpu") from e
    traced = dali_trace.is_tracing_enabled()
    dali_trace.set_tracing(enabled=False)
    try:
        return bytes(define_pipeline(**options).serialize())
    finally:
        dali_trace.set_tracing(enabled=traced)


def _given(fn: Any, types: Any, views: int) -> list[dict[str, Any]]:
    box = fn.external_source(name=VIEW_BOX, dtype=types.FLOAT, ndim=2)
    return [
        {
            "roi_start": fn.stack(box[i, 1], box[i, 0]),
            "roi_end": fn.stack(box[i, 3], box[i, 2]),
        }
        for i in range(views)
    ]


def _grid(fn: Any, types: Any, encoded: Any, side: int) -> tuple[list[dict[str, Any]], Any]:
    """`view_boxes(..., "precise", side)` inside the graph: MAX_VIEWS boxes, the first V count."""
    from nvidia.dali import math

    shape = fn.cast(fn.peek_image_shape(encoded), dtype=types.INT32)
    height, width = shape[0], shape[1]
    square = math.min(math.min(width, height), side)

    # Each expression is an operator of the graph: name what is used twice.
    columns, rows = (math.min((n + square - 1) // square, _LINES) for n in (width, height))
    spare_x, spare_y = width - square, height - square
    gaps_x, gaps_y = math.max(columns - 1, 1), math.max(rows - 1, 1)
    boxes = []
    for i in range(MAX_VIEWS):
        row = i // columns
        x = (i - row * columns) * spare_x // gaps_x
        y = math.min(row, rows - 1) * spare_y // gaps_y  # those past V repeat the last row
        start = fn.cast(fn.stack(y, x), dtype=types.FLOAT)
        boxes.append({"roi_start": start, "roi_end": start + fn.cast(square, dtype=types.FLOAT)})
    return boxes, fn.stack(columns * rows)
