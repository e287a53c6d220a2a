"""Optimisation profiles: the shapes that an engine is built for."""

from __future__ import annotations

from dataclasses import dataclass

from giqa.bundle import Bundle
from giqa.contract import LOCAL_BRANCH, MAX_VIEWS
from giqa.manifest import Tensors
from giqa.precision import Precision
from giqa.tensors import engine_tensors, inputs_of, most_views, shape_with, tensor_shapes

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


def bundle_profiles(
    bundle: Bundle,
    name: str,
    precision: Precision,
    *,
    max_batch: int,
    opt_batch: int | None = None,
) -> list[list[Input]]:
    """Make the profiles of a bundle's graph, see `profiles_of`."""
    sizes = engine_tensors(bundle.manifest.tensors, precision)
    tiles = bundle.manifest.tiles
    return profiles_of(name, sizes, max_batch=max_batch, opt_batch=opt_batch, tiles=tiles)


def bundle_profile(bundle: Bundle, name: str, *, max_batch: int) -> list[Input]:
    """Make the one profile of a bundle's graph, see `profile_of`."""
    found = bundle.manifest
    return profile_of(name, found.tensors, max_batch=max_batch, tiles=found.tiles)


def profiles_of(
    name: str, sizes: Tensors, *, max_batch: int, opt_batch: int | None = None, tiles: int = 0
) -> list[list[Input]]:
    """Make the two profiles of a graph: one for pictures of one view, one for those of several.

    Every request fits one of them only, so Triton's choice between them, by a distance, is none.

    Args:
        name: `global_branch`, `local_branch` or `fusion`.
        sizes: of the tensors, as engines exchange them.
        max_batch: largest batch.
        opt_batch: the batch that the first is tuned for, with V = 1 and all tiles, the dearest
            picture of profile `fast`; `max_batch` unless given. The second is tuned for an eighth
            of it, with V = 9.
        tiles: the manifest's T.

    Returns:
        Inputs in order, of each profile.
    """
    optimum = max_batch if opt_batch is None else opt_batch
    several = max(1, optimum // (MAX_VIEWS - 1))
    found: list[list[Input]] = [[], []]
    for tensor in inputs_of(name):
        dtype, (_, *rest) = tensor_shapes(sizes)[tensor]
        one, most = shape_with(tensor, sizes, 1, tiles)[0], most_views(tensor, tiles)
        # The local branch is not told which of its views are tiles: it has V + T of them.
        above = one + 1 if name == LOCAL_BRANCH else 2
        for profile, shapes in zip(
            found,
            [((1, 1), (optimum, one), (max_batch, one)),
             ((1, above), (several, max(MAX_VIEWS, above)), (max_batch, most))],
            strict=True,
        ):  # fmt: skip
            profile.append(Input(tensor, _NUMPY[dtype], *((*shape, *rest) for shape in shapes)))
    return found


def profile_of(
    name: str, sizes: Tensors, *, max_batch: int, opt_batch: int | None = None, tiles: int = 0
) -> list[Input]:
    """Make one profile for everything: batches of 1 to `max_batch`, V of 1 to 9, and T tiles more.

    For torch-tensorrt, which takes one.

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
