"""The pipeline from an encoded image to views: the one definition, in DALI, for CPU and GPU.

A view is a region of the picture resized, with antialiasing, to the local side. The global view
is derived from the local one: at half the side, every global pixel is the mean of 2x2 local
pixels (rounded: within 0.5 of it), so both see the same field and the picture is resized once.

Profile `fast`: one view, the whole frame squashed to the square; where tiles are asked for, they
follow it in the local view (see `tile_boxes`).
Profile `precise`: square regions of native pixels on an even grid (see `view_boxes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from giqa import forks
from giqa.contract import GLOBAL_VIEW, IMAGE, LOCAL_VIEW, MAX_VIEWS, TILES
from giqa.decode._boxes import GRID_LINES
from giqa.extras import importing

Regions = Literal["frame", "input", "grid"]

VIEW_BOX = "VIEW_BOX"
TILE_BOX = "TILE_BOX"


def define_pipeline(
    *,
    regions: Regions,
    views: int = 1,
    tiles: int = 0,
    cut: bool = False,
    tile_pixels: int | None = None,
    global_side: int,
    local_side: int,
    batch: int,
    threads: int,
    device: Literal["cpu", "gpu"] = "cpu",
    hints: Mapping[str, Any] | None = None,
    device_id: int | None = None,
) -> Any:
    """Define the DALI pipeline IMAGE [+ VIEW_BOX] [+ TILE_BOX] -> GLOBAL_VIEW, LOCAL_VIEW.

    Decoding applies the EXIF orientation and gives RGB.

    Args:
        regions: what a view shows: `frame`, the whole picture (V = 1); `input`, what the input
            VIEW_BOX says ((V, 4) float32: x0, y0, x1, y1 in pixels of the upright picture);
            `grid`, the boxes of profile `precise`, found in the graph, V per image.
        views: V for `input`.
        tiles: T, squares that the local view shows beside the views; 0 or `TILES`. The input
            TILE_BOX says which: (T, 4) int32, x0, y0, x1, y1 in pixels of the upright picture.
        cut: these have the local side, and are copied, not resized.
        tile_pixels: with it, and regions `frame`, they are found in the graph instead, and pictures
            of fewer pixels have none.
        global_side: side of the global view in pixels.
        local_side: side of the local view in pixels; equal to or twice `global_side`.
        batch: most images a run.
        threads: CPU threads.
        device: `cpu`, or `gpu` (decode "mixed", resize on the GPU). Defining and serializing
            a GPU pipeline needs no GPU.
        hints: further options of the decoder, of memory and hardware.
        device_id: the GPU that it runs on; None: Triton's DALI backend places it.

    Returns:
        An `nvidia.dali.Pipeline`, not built, with outputs GLOBAL_VIEW (V, g, g, 3) and
        LOCAL_VIEW (V + T, l, l, 3), uint8, per sample.

    Raises:
        MissingExtraError: DALI is not installed.
        ValueError: the sides are unequal and not 1:2, or views or tiles do not go with the regions.
    """
    with importing("DALI", "cpu"):
        from nvidia.dali import fn, pipeline_def, types
    if local_side not in (global_side, 2 * global_side):
        raise ValueError(f"local side {local_side} is not {global_side} or twice that")
    if tiles not in (0, TILES) or (tile_pixels is not None and regions != "frame"):
        raise ValueError(f"{tiles} tiles of {regions}")
    if views > 1 and regions != "input":
        raise ValueError("a number of views needs boxes for them")

    @pipeline_def(
        batch_size=batch,
        num_threads=threads,
        device_id=device_id,
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
            **(hints or {}),
        )
        count: Any = None
        if regions == "frame":
            boxes: list[dict[str, Any]] = [{}]
        elif regions == "input":
            boxes = _given(fn, fn.external_source(name=VIEW_BOX, dtype=types.FLOAT, ndim=2), views)
        else:
            boxes, count = _grid(fn, types, encoded, local_side)
        square: dict[str, Any] = {
            "size": (local_side, local_side),
            "interp_type": types.INTERP_TRIANGULAR,
            "antialias": True,
        }
        local = [fn.resize(picture, **square, **box) for box in boxes]
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
        if tiles and tile_pixels is not None:
            found, seen = _native(fn, types, encoded, local_side, tile_pixels)
            local += [fn.resize(picture, **square, **box) for box in found]
            return (
                fn.stack(*coarse, name=GLOBAL_VIEW),
                fn.slice(fn.stack(*local), start=[0], shape=seen, axes=[0], name=LOCAL_VIEW),
            )
        if tiles:
            box = fn.external_source(name=TILE_BOX, dtype=types.INT32, ndim=2)
            if cut:
                shape = (local_side, local_side)
                corners = [fn.stack(box[i, 1], box[i, 0]) for i in range(tiles)]
                local += [fn.slice(picture, start=c, shape=shape, axes=[0, 1]) for c in corners]
            else:
                given = _given(fn, fn.cast(box, dtype=types.FLOAT), tiles)
                local += [fn.resize(picture, **square, **one) for one in given]
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
        UsageError: this process was forked from one that used DALI.
        ValueError: the sides are unequal and not 1:2, or views or tiles do not go with the regions.
    """
    forks.use_runtime(forks.DALI)
    pipeline = forks.keep(define_pipeline(**options))
    pipeline.build()
    return pipeline


def serialize_pipeline(**options: Any) -> bytes:
    """Define a pipeline (see `define_pipeline`) and serialize it for Triton's DALI backend.

    The same options give the same bytes: where the operators were defined is left out.

    Returns:
        What goes into `model.dali`.

    Raises:
        MissingExtraError: DALI is not installed.
        ValueError: the sides are unequal and not 1:2, or views or tiles do not go with the regions.
    """
    with importing("DALI", "cpu"):
        from nvidia.dali._utils import dali_trace
    traced = dali_trace.is_tracing_enabled()
    dali_trace.set_tracing(enabled=False)
    try:
        return bytes(define_pipeline(**options).serialize())
    finally:
        dali_trace.set_tracing(enabled=traced)


def _given(fn: Any, box: Any, count: int) -> list[dict[str, Any]]:
    """Regions of the first rows x0, y0, x1, y1 of a tensor."""
    return [
        {
            "roi_start": fn.stack(box[i, 1], box[i, 0]),
            "roi_end": fn.stack(box[i, 3], box[i, 2]),
        }
        for i in range(count)
    ]


def _native(
    fn: Any, types: Any, encoded: Any, side: int, pixels: int
) -> tuple[list[dict[str, Any]], Any]:
    """`tile_boxes` inside the graph: TILES boxes, and how many local views the picture has.

    All are always made; the first T count.
    """
    from nvidia.dali import math

    shape = fn.peek_image_shape(encoded)  # int64: pixels do not overflow
    height, width = shape[0], shape[1]
    square = math.min(math.min(width, height), side)
    spare_x, spare_y = width - square, height - square
    boxes = []
    for y in (spare_y // 4, 3 * spare_y // 4):
        for x in (spare_x // 4, 3 * spare_x // 4):
            start = fn.cast(fn.stack(y, x), dtype=types.FLOAT)
            end = start + fn.cast(square, dtype=types.FLOAT)
            boxes.append({"roi_start": start, "roi_end": end})
    large = fn.cast(height * width >= pixels, dtype=types.INT32)
    return boxes, fn.stack(1 + TILES * large)


def _grid(fn: Any, types: Any, encoded: Any, side: int) -> tuple[list[dict[str, Any]], Any]:
    """`view_boxes(..., "precise", side)` inside the graph: MAX_VIEWS boxes, the first V count.

    The same boxes as on a CPU, to the pixel.
    """
    from nvidia.dali import math

    shape = fn.cast(fn.peek_image_shape(encoded), dtype=types.INT32)
    height, width = shape[0], shape[1]
    square = math.min(math.min(width, height), side)

    # Each expression is an operator of the graph: name what is used twice.
    columns, rows = (math.min((n + square - 1) // square, GRID_LINES) for n in (width, height))
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
