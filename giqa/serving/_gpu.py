"""What only a GPU repository has: instances by memory, the CUDA pool, CUDA graphs.

Sizes come from the manifest's tensors; what engines need inside (weights, activations) is known
only to TensorRT and not counted here.
"""

from __future__ import annotations

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
from giqa.manifest import Tensors
from giqa.tensors import (
    composing_models,
    ensembles,
    inputs_of,
    max_batch_of,
    outputs_of,
    tensor_shapes,
)

_ITEM_BYTES = {"UINT8": 1, "FP16": 2, "FP32": 4}
_POOL_STEP = 64 * 2**20
_DECODERS = 2
"""Wanted instances of the main road's preprocess: JPEG is decoded on the CPU first, so one batch's
CPU half goes beside another's GPU half. The engines have one each: their batches stay whole."""


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
    sizes: Tensors, *, max_batch: int, in_flight: int, instances: int = 0, limit: int | None = None
) -> Memory:
    """Choose instances and add up what the tensors need.

    Args:
        sizes: the manifest's sizes.
        max_batch: most images a composing model takes at once.
        in_flight: most requests of an ensemble between two models.
        instances: of each composing model; 0: two of preprocess, one of each other, and of
            preprocess, too, where the limit says so.
        limit: most bytes that tensors may take; None: as many as they need.

    Returns:
        The plan. `precise` counts nine views an image, and so does each request of `giqa_views`,
        whatever its batch; what does not fit into the pool goes through system memory.

    Raises:
        UsageError: even the fewest instances do not fit into the limit.
    """
    names = composing_models("gpu")
    for decoders in [instances] if instances else [_DECODERS, 1]:
        counts = {n: instances or (decoders if n == PREPROCESS else 1) for n in names}
        found = Memory(
            instances=counts,
            in_flight={
                name: in_flight * _views_of(name) * _bytes(sizes, tensor_shapes(sizes))
                for name in ensembles("gpu")
            },
            bindings={
                name: counts[name] * max_batch_of(name, max_batch) * _binding(name, sizes)
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


def add_cuda_graphs(config: Any, sizes: Tensors) -> None:
    """Let TensorRT's backend capture a CUDA graph for batches of one view an image.

    A graph serves the batches from one more than the next smaller graph's up to its own.

    Args:
        config: the `ModelConfig` of a branch or the fusion model; changed.
        sizes: the manifest's sizes.
    """
    cuda = config.optimization.cuda
    cuda.graphs = True
    below = 0
    for batch in _powers(config.max_batch_size):
        spec = cuda.graph_spec.add(batch_size=batch)
        spec.graph_lower_bound.batch_size = below + 1
        for name in inputs_of(config.name):
            shape = [max(n, 1) for n in tensor_shapes(sizes)[name][1]]
            spec.input[name].dim.extend(shape)
            spec.graph_lower_bound.input[name].dim.extend(shape)
        below = batch


def _powers(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, which is always the last."""
    return [2**n for n in range(most.bit_length()) if 2**n < most] + [most]


def _views_of(name: str) -> int:
    return MAX_VIEWS if name in (GIQA_PRECISE, GIQA_VIEWS, PREPROCESS_PRECISE) else 1


def _binding(name: str, sizes: Tensors) -> int:
    """One image of one instance: DALI makes views, engines take up to nine."""
    if name in PREPROCESSES:
        return _views_of(name) * _bytes(sizes, (GLOBAL_VIEW, LOCAL_VIEW))
    return MAX_VIEWS * _bytes(sizes, (*inputs_of(name), *outputs_of(name, sizes)))


def _bytes(sizes: Tensors, names: Iterable[str]) -> int:
    """Bytes of some tensors for one view."""
    total = 0
    for name in names:
        dtype, shape = tensor_shapes(sizes)[name]
        size = 0 if name == IMAGE else _ITEM_BYTES[dtype]
        for length in shape:
            size *= max(length, 1)
        total += size
    return total
