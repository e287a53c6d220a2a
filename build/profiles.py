"""Optimisation profiles: the shapes that an engine is built for."""

from __future__ import annotations

from dataclasses import dataclass

from giqa.bundle import Bundle
from giqa.manifest import Tensors
from giqa.tensors import inputs_of, most_views, shape_with, tensor_shapes

_NUMPY = {"UINT8": "uint8", "FP32": "float32", "FP16": "float16"}


@dataclass(frozen=True)
class Input:
    """One input of an engine.

    Attributes:
        name: the binding's name, the contract's tensor name.
        dtype: NumPy name of the type: `uint8`, `float32` or `float16`.
        minimum: smallest shape, batch and V first.
        optimum: the shape that it is tuned for.
        maximum: largest shape.
    """

    name: str
    dtype: str
    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]


def bundle_profile(
    bundle: Bundle, name: str, *, max_batch: int, opt_batch: int | None = None
) -> list[Input]:
    """Make the profile of a bundle's graph, see `profile_of`."""
    found = bundle.manifest
    return profile_of(
        name, found.tensors, max_batch=max_batch, opt_batch=opt_batch, tiles=found.tiles
    )


def profile_of(
    name: str, sizes: Tensors, *, max_batch: int, opt_batch: int | None = None, tiles: int = 0
) -> list[Input]:
    """Make the profile of a graph: batches of 1 to `max_batch`, V of 1 to 9, and T tiles more.

    Args:
        name: `global_branch`, `local_branch` or `fusion`.
        sizes: the manifest's sizes.
        max_batch: largest batch.
        opt_batch: the batch that it is tuned for, with V = 1 and all tiles: that is the dearest
            picture of profile `fast`; `max_batch` unless given.
        tiles: the manifest's T.

    Returns:
        Its inputs in order.
    """
    optimum = max_batch if opt_batch is None else opt_batch
    found = []
    for tensor in inputs_of(name):
        dtype, (_, *rest) = tensor_shapes(sizes)[tensor]
        found.append(
            Input(
                tensor,
                _NUMPY[dtype],
                (1, 1, *rest),
                (optimum, *shape_with(tensor, sizes, 1, tiles)),
                (max_batch, most_views(tensor, tiles), *rest),
            )
        )
    return found
