"""What only a GPU repository has: instances by memory, the CUDA pool, CUDA graphs.

Sizes come from the manifest's tensors; what engines need inside (weights, activations) is known
only to TensorRT and not counted here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from giqa.contract import (
    GIQA_PRECISE,
    GIQA_VIEWS,
    GLOBAL_VIEW,
    IMAGE,
    LOCAL_VIEW,
    MAX_VIEWS,
    PREPROCESS,
    PREPROCESS_PRECISE,
    PREPROCESSES,
)
from giqa.errors import UsageError
from giqa.manifest import Manifest, Tensors
from giqa.tensors import (
    composing_models,
    ensembles,
    inputs_of,
    max_batch_of,
    outputs_of,
    shape_with,
    shapes_of_one_view,
    tensor_shapes,
)

_ITEM_BYTES = {"UINT8": 1, "FP16": 2, "FP32": 4}
_POOL_STEP = 64 * 2**20
_DECODERS = 2
"""Wanted instances of the main road's preprocess: JPEG is decoded on the CPU first, so one batch's
CPU half goes beside another's GPU half. The engines have one each: their batches stay whole.
Chosen, not measured."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """GPU memory of the tensors, and the instances that it is for; all in bytes.

    Attributes:
        instances: instances by composing model.
        in_flight: by ensemble, the tensors of all images that may be between two models.
        bindings: by composing model, inputs and outputs of its instances at the largest batch.
    """

    instances: dict[str, int]
    in_flight: dict[str, int]
    bindings: dict[str, int]

    @property
    def pool(self) -> int:
        """Size of Triton's CUDA memory pool: what is in flight, rounded up to 64 MiB."""
        return -(-sum(self.in_flight.values()) // _POOL_STEP) * _POOL_STEP

    @property
    def total(self) -> int:
        """Pool and bindings."""
        return self.pool + sum(self.bindings.values())

    def lines(self) -> list[str]:
        """A table for people, in MiB."""
        rows = [(f"in flight: {name}", size) for name, size in self.in_flight.items()]
        rows += [
            (f"bindings: {name} x {self.instances[name]}", size)
            for name, size in self.bindings.items()
        ]
        rows += [("CUDA memory pool", self.pool), ("in all", self.total)]
        return [f"{name:<34}{size / 2**20:>9.1f} MiB" for name, size in rows]


def plan(
    manifest: Manifest,
    *,
    max_batch: int,
    in_flight: int,
    instances: int = 0,
    limit: int | None = None,
) -> Memory:
    """Choose instances and add up what the tensors need.

    Args:
        manifest: for the tensors' sizes and the number of tiles.
        max_batch: most images a composing model takes at once.
        in_flight: most requests of an ensemble between two models.
        instances: of each composing model; 0: two of preprocess, one of each other, and of
            preprocess, too, where the limit says so.
        limit: most bytes that tensors may take; None: as many as they need.

    Returns:
        The plan. `precise` counts nine views an image, `fast` one and its tiles, and each request
        of `giqa_views` nine and tiles, whatever its batch; what does not fit into the pool goes
        through system memory.

    Raises:
        UsageError: even the fewest instances do not fit into the limit.
    """
    names = composing_models("gpu")
    sizes, tiles = manifest.tensors, manifest.tiles
    for decoders in [instances] if instances else [_DECODERS, 1]:
        counts = {n: instances or (decoders if n == PREPROCESS else 1) for n in names}
        found = Memory(
            instances=counts,
            in_flight={
                name: in_flight * _bytes(sizes, tensor_shapes(sizes), *_counts(name, tiles))
                for name in ensembles("gpu")
            },
            bindings={
                name: counts[name] * max_batch_of(name, max_batch) * _binding(name, sizes, tiles)
                for name in names
            },
        )
        if limit is None or found.total <= limit:
            return found
    allowed = (limit or 0) / 2**20
    raise UsageError(
        f"tensors need {found.total / 2**20:.0f} MiB of the GPU's memory, "
        f"{allowed:.0f} MiB are allowed",
        item="--memory-mb",
        remedy="lower --max-batch or allow more",
    )


def add_cuda_graphs(config: Any, manifest: Manifest) -> None:
    """Let TensorRT's backend capture CUDA graphs for batches of one view an image.

    A graph serves the batches from one more than the next smaller graph's up to its own. Where
    pictures may have tiles, what sees them has as many graphs again, with tiles.

    Args:
        config: the `ModelConfig` of a branch or the fusion model; changed.
        manifest: for the tensors' sizes and the number of tiles.
    """
    cuda = config.optimization.cuda
    cuda.graphs = True
    for shapes in shapes_of_one_view(config.name, manifest):
        below = 0
        for batch in _powers(config.max_batch_size):
            spec = cuda.graph_spec.add(batch_size=batch)
            spec.graph_lower_bound.batch_size = below + 1
            for name, shape in shapes.items():
                spec.input[name].dim.extend(shape)
                spec.graph_lower_bound.input[name].dim.extend(shape)
            below = batch


def _powers(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, which is always the last."""
    return [2**n for n in range(most.bit_length()) if 2**n < most] + [most]


def _counts(name: str, tiles: int) -> tuple[int, int]:
    """Most views of an image, and most tiles, that an ensemble or preprocess makes or is sent."""
    if name in (GIQA_PRECISE, PREPROCESS_PRECISE):
        return MAX_VIEWS, 0
    return (MAX_VIEWS if name == GIQA_VIEWS else 1), tiles


def _binding(name: str, sizes: Tensors, tiles: int) -> int:
    """One image of one instance: DALI makes views, engines take up to nine and tiles."""
    if name in PREPROCESSES:
        return _bytes(sizes, (GLOBAL_VIEW, LOCAL_VIEW), *_counts(name, tiles))
    return _bytes(sizes, (*inputs_of(name), *outputs_of(name, sizes)), MAX_VIEWS, tiles)


def _bytes(sizes: Tensors, names: Iterable[str], views: int, tiles: int) -> int:
    """Bytes of some tensors of one image, but for its file."""
    total = 0
    for name in names:
        if name == IMAGE:
            continue
        dtype, _ = tensor_shapes(sizes)[name]
        shape = shape_with(name, sizes, views, tiles)
        total += _ITEM_BYTES[dtype] * math.prod(shape)
    return total
