"""What only a GPU repository has: instances by memory, the CUDA pool, CUDA graphs, large pictures.

Sizes come from the manifest's tensors and the limits on pictures; what engines need inside
(weights, activations) is known only to TensorRT and not counted here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from giqa.contract import (
    GIQA_PRECISE,
    GIQA_VIEWS,
    GLOBAL_TOKENS,
    GLOBAL_VIEW,
    IMAGE,
    LOCAL_TOKENS,
    LOCAL_VIEW,
    MAX_VIEWS,
    PREPROCESS,
    PREPROCESS_ISOLATED,
    PREPROCESS_PRECISE,
    PREPROCESSES,
)
from giqa.decode import LARGE
from giqa.errors import UsageError
from giqa.manifest import Manifest, Tensors
from giqa.tensors import (
    composing_models,
    inputs_of,
    max_batch_of,
    outputs_of,
    shape_with,
    shapes_of_one_view,
    tensor_shapes,
)

_ITEM_BYTES = {"UINT8": 1, "FP16": 2, "FP32": 4}
_POOL_STEP = 64 * 2**20
DECODERS = 3
"""Wanted instances of the main road's preprocess: one batch is read while another is decoded and a
third resized, and one that DALI builds again after an error is not missed. The engines have one
each: their batches stay whole, and the two branches run beside each other. From the model of the
pipeline (`benchmarks.predict`), not measured."""
SPARE = 2
"""Of the other preprocess models: Triton looks at a queue with a policy only when a request comes
in while an instance is idle, or after half a second."""
_THREADS = 4
_PIXEL_BYTES = 3
"""Of a decoded pixel; and of one on its way through nvJPEG, whose 4:2:0 coefficients are 1.5
numbers of 2 bytes a pixel."""


@dataclass(frozen=True)
class Road:
    """How pictures go through one of DALI's models.

    Attributes:
        batch: most pictures at once.
        pixels: most pixels that one may have.
        threads: CPU threads, each with a decoder's buffers.
    """

    batch: int
    pixels: int
    threads: int

    @property
    def side(self) -> int:
        """Side of a square of so many pixels: decoders have memory for it ready."""
        return math.isqrt(self.pixels - 1) + 1

    @property
    def padding(self) -> int:
        """Bytes of a thread's device buffer."""
        return self.pixels * _PIXEL_BYTES

    @property
    def bytes(self) -> int:
        """Device memory of an instance: the pictures of a batch, and the threads' buffers."""
        return (self.batch + self.threads) * self.padding


def road(name: str, *, max_batch: int, max_pixels: int, threads: int = 0) -> Road:
    """How pictures go through a preprocess model on a GPU.

    Pictures of more than `LARGE` pixels go alone: eight of 200 megapixels are 5 GB, which DALI
    keeps for ever. `giqa_isolated`, whose batch is one, takes them; clients send them there.

    Args:
        name: the model.
        max_batch: most images a composing model takes at once.
        max_pixels: most pixels of a picture.
        threads: CPU threads; 0: four.
    """
    batch = batch_on_gpu(name, max_batch)
    if name == PREPROCESS_ISOLATED:
        return Road(batch, max_pixels, 1)
    return Road(batch, min(LARGE, max_pixels), threads or _THREADS)


def decoder_hints(road: Road) -> dict[str, float | int]:
    """Options of DALI's decoder for such pictures."""
    return {
        # In part of a batch only, and a picture's pixels would depend on its neighbours: the
        # hardware's are others.
        "hw_decoder_load": 1.0,
        "preallocate_width_hint": road.side,
        "preallocate_height_hint": road.side,
        "device_memory_padding": road.padding,
    }


def batch_on_gpu(name: str, max_batch: int) -> int:
    """Largest batch of a model; precise ones have up to nine views an image, and fewer images."""
    if name == PREPROCESS_PRECISE:
        return max(1, max_batch // (MAX_VIEWS - 1))
    return max_batch_of(name, max_batch)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """GPU memory of tensors and pictures, and the instances that it is for; all in bytes.

    Attributes:
        instances: instances by composing model.
        in_flight: by ensemble, the tensors of all images that may be between two models.
        bindings: by composing model, inputs and outputs of its instances at the largest batch.
        pictures: by preprocess model, what its instances decode, at the largest sizes. DALI gets
            it as it is needed, and keeps it.
    """

    instances: dict[str, int]
    in_flight: dict[str, int]
    bindings: dict[str, int]
    pictures: dict[str, int]

    @property
    def pool(self) -> int:
        """Size of Triton's CUDA memory pool: what is in flight, rounded up to 64 MiB."""
        return -(-sum(self.in_flight.values()) // _POOL_STEP) * _POOL_STEP

    @property
    def total(self) -> int:
        """Pool, bindings and pictures."""
        return self.pool + sum(self.bindings.values()) + sum(self.pictures.values())

    def lines(self) -> list[str]:
        """A table for people, in MiB."""
        rows = [(f"in flight: {name}", size) for name, size in self.in_flight.items()]
        rows += [
            (f"{what}: {name} x {self.instances[name]}", size)
            for what, sizes in (("bindings", self.bindings), ("pictures", self.pictures))
            for name, size in sizes.items()
        ]
        rows += [("CUDA memory pool", self.pool), ("in all", self.total)]
        return [f"{name:<34}{size / 2**20:>9.1f} MiB" for name, size in rows]


def plan(
    sizes: Tensors,
    tiles: int,
    *,
    max_batch: int,
    in_flight: Mapping[str, int],
    max_pixels: int,
    threads: int = 0,
    instances: int = 0,
    limit: int | None = None,
) -> Memory:
    """Choose instances and add up what tensors and pictures need.

    Args:
        sizes: of the tensors, as engines exchange them.
        tiles: the manifest's T.
        max_batch: most images a composing model takes at once.
        in_flight: by ensemble, most requests in one of its steps.
        max_pixels: most pixels of a picture.
        threads: CPU threads of a preprocess model; 0: four.
        instances: of each composing model; 0: three of preprocess, two of those beside it, one of
            each graph, and fewer where the limit says so.
        limit: most bytes that it may be; None: as many as are needed.

    Returns:
        The plan. `precise` counts nine views an image, `fast` one and its tiles; of `giqa_views`
        tokens alone, nine and tiles: views come from the host. What does not fit into the pool
        goes through system memory.

    Raises:
        UsageError: even the fewest instances do not fit into the limit.
    """
    names = composing_models("gpu")
    roads = {
        name: road(name, max_batch=max_batch, max_pixels=max_pixels, threads=threads)
        for name in names
        if name in PREPROCESSES
    }
    wanted = [(DECODERS, SPARE), (SPARE, SPARE), (1, 1)]
    for first, others in [(instances, instances)] if instances else wanted:
        counts = dict.fromkeys(names, instances or 1)
        counts |= dict.fromkeys(roads, others) | {PREPROCESS: first}
        found = Memory(
            instances=counts,
            in_flight={
                name: count * _bytes(sizes, _between(name), *_counts(name, tiles))
                for name, count in in_flight.items()
            },
            bindings={
                name: counts[name] * batch_on_gpu(name, max_batch) * _binding(name, sizes, tiles)
                for name in names
            },
            pictures={name: counts[name] * one.bytes for name, one in roads.items()},
        )
        if limit is None or found.total <= limit:
            return found
    allowed = (limit or 0) / 2**20
    raise UsageError(
        f"tensors and pictures need {found.total / 2**20:.0f} MiB of the GPU's memory, "
        f"{allowed:.0f} MiB are allowed",
        item="--memory-mb",
        remedy="lower --max-batch, --max-queue or --max-pixels, or allow more",
    )


def add_cuda_graphs(config: Any, manifest: Manifest) -> None:
    """Let TensorRT's backend capture CUDA graphs for batches of one view an image.

    A graph serves the batches from one more than the next smaller graph's up to its own. Where
    pictures may have tiles, what sees them has as many graphs again, with tiles. The backend tries
    each with every profile, and says in the log that those of one view do not fit that of several.

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


def _between(name: str) -> tuple[str, ...]:
    """What an ensemble's models hand over on the GPU."""
    tokens = (GLOBAL_TOKENS, LOCAL_TOKENS)
    return tokens if name == GIQA_VIEWS else (GLOBAL_VIEW, LOCAL_VIEW, *tokens)


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
