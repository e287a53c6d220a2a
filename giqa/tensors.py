"""Models and ensembles of a repository: their names, tensors, shapes and largest batches.

Two sizes vary: V, the views of an image, and with the local branch V + T, its views and then its
tiles (`giqa.decode.tile_boxes`). T is 0 or the manifest's number, whatever V.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from giqa import checks
from giqa.contract import (
    ENSEMBLES,
    FUSION,
    GIQA,
    GIQA_ISOLATED,
    GIQA_MAP,
    GIQA_PRECISE,
    GIQA_VIEWS,
    GLOBAL_BRANCH,
    GLOBAL_TOKENS,
    GLOBAL_VIEW,
    GRAPHS,
    IMAGE,
    LOCAL_BRANCH,
    LOCAL_TOKENS,
    LOCAL_VIEW,
    MAX_VIEWS,
    PREPROCESS_ISOLATED,
    PREPROCESSES,
    QUALITY_MAP,
    SCORE,
)
from giqa.errors import ShapeMismatchError
from giqa.manifest import Manifest, Tensors
from giqa.precision import BOUNDS, Precision
from giqa.types import Views

Device = Literal["cpu", "gpu"]
DEVICES: tuple[Device, ...] = ("cpu", "gpu")

_WITH_MAP = (GIQA_MAP, GIQA_PRECISE, GIQA_VIEWS)
_WITH_TILES = (LOCAL_VIEW, LOCAL_TOKENS)


def composing_models(device: Device) -> tuple[str, ...]:
    """Names of the models that ensembles are made of."""
    return (*(PREPROCESSES if device == "cpu" else PREPROCESSES[:-1]), *GRAPHS)


def ensembles(device: Device) -> tuple[str, ...]:
    """Names of the ensembles of a device."""
    return ENSEMBLES if device == "cpu" else ENSEMBLES[:-1]


def tensor_shapes(sizes: Tensors) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Datatype (KServe's name) and shape without the batch of the contract's tensors.

    Args:
        sizes: the manifest's sizes.

    Returns:
        By tensor name; -1 where a size varies (V, V + T, or an image's bytes).
    """
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        IMAGE: ("UINT8", (-1,)),
        GLOBAL_VIEW: ("UINT8", (-1, sizes.global_side, sizes.global_side, 3)),
        LOCAL_VIEW: ("UINT8", (-1, sizes.local_side, sizes.local_side, 3)),
        GLOBAL_TOKENS: (sizes.token_dtype, (-1, sizes.stages, sizes.tokens, sizes.dim)),
        LOCAL_TOKENS: (sizes.token_dtype, (-1, sizes.tokens, sizes.dim)),
        SCORE: ("FP32", (1,)),
    }
    if sizes.quality_map:
        shapes[QUALITY_MAP] = ("FP32", (-1, sizes.grid, sizes.grid))
    return shapes


def engine_tensors(sizes: Tensors, precision: Precision) -> Tensors:
    """Sizes as TensorRT engines exchange tensors: tokens are halves where the graphs' are.

    Args:
        sizes: the manifest's sizes.
        precision: of the engines.
    """
    half = BOUNDS[precision].rest == "f16"
    return sizes.model_copy(update={"token_dtype": "FP16"}) if half else sizes


def outputs_of(name: str, sizes: Tensors) -> tuple[str, ...]:
    """Outputs of a model or ensemble, in order."""
    if name in PREPROCESSES:
        return GLOBAL_VIEW, LOCAL_VIEW
    if name in (GLOBAL_BRANCH, LOCAL_BRANCH):
        return (GLOBAL_TOKENS if name == GLOBAL_BRANCH else LOCAL_TOKENS,)
    with_map = sizes.quality_map and name in (*_WITH_MAP, FUSION)
    return (SCORE, QUALITY_MAP) if with_map else (SCORE,)


def inputs_of(name: str) -> tuple[str, ...]:
    """Inputs of a model or ensemble, in order."""
    if name == FUSION:
        return GLOBAL_TOKENS, LOCAL_TOKENS
    if name == GIQA_VIEWS:
        return GLOBAL_VIEW, LOCAL_VIEW
    return ({GLOBAL_BRANCH: GLOBAL_VIEW, LOCAL_BRANCH: LOCAL_VIEW}.get(name, IMAGE),)


def max_batch_of(name: str, max_batch: int) -> int:
    """Largest batch a model or ensemble takes.

    Ensembles of encoded images take one: images differ in length, Triton gathers them itself,
    and its cache, whose key ignores shapes, cannot mistake one request for another.
    """
    single = (GIQA, GIQA_MAP, GIQA_PRECISE, GIQA_ISOLATED, PREPROCESS_ISOLATED)
    return 1 if name in single else max_batch


def shape_with(name: str, sizes: Tensors, views: int, tiles: int) -> tuple[int, ...]:
    """Shape of a tensor of one image, without the batch.

    Args:
        name: the tensor's.
        sizes: the manifest's sizes.
        views: V.
        tiles: T.

    Returns:
        The shape; -1 for an image's bytes.
    """
    _, (first, *rest) = tensor_shapes(sizes)[name]
    if first == -1 and rest:
        first = views + (tiles if name in _WITH_TILES else 0)
    return (first, *rest)


def shapes_of_one_view(model: str, manifest: Manifest) -> list[dict[str, tuple[int, ...]]]:
    """Shapes, without the batch, of a graph's inputs for a picture of one view.

    Args:
        model: a branch or the fusion model.
        manifest: for the tensors' sizes and the number of tiles.

    Returns:
        By input: those of a small picture, then those of one with tiles, where they differ.
    """
    found: list[dict[str, tuple[int, ...]]] = []
    for tiles in (0, manifest.tiles):
        shapes = {n: shape_with(n, manifest.tensors, 1, tiles) for n in inputs_of(model)}
        if shapes not in found:
            found.append(shapes)
    return found


def most_views(name: str, tiles: int) -> int:
    """Largest V, or V + T, that a tensor may have; `tiles` is the manifest's T."""
    return MAX_VIEWS + (tiles if name in _WITH_TILES else 0)


def counts_fit(views: int, local: int, tiles: int) -> bool:
    """Whether an image has so many views, and so many with its tiles.

    Args:
        views: of the global branch: V, at most `MAX_VIEWS`.
        local: of the local branch: V, or V + T.
        tiles: the manifest's T.
    """
    return 1 <= views <= MAX_VIEWS and local - views in (0, tiles)


def check_views(views: Views, manifest: Manifest) -> None:
    """Compare ready-made views with what the bundle's graphs take.

    Args:
        views: what came in.
        manifest: the bundle's.

    Raises:
        ShapeMismatchError: another dtype or shape than the manifest's, or other numbers of them.
    """
    checks.instance("views", views, Views)
    for name, array in ((GLOBAL_VIEW, views.global_view), (LOCAL_VIEW, views.local_view)):
        _, *rest = shape_with(name, manifest.tensors, 1, 0)
        if array.dtype != np.uint8 or array.shape != (len(array), *rest):
            sides = ", ".join(map(str, rest))
            raise ShapeMismatchError(
                f"{array.dtype} {array.shape} instead of uint8 (V, {sides})", item=name
            )
    count, local = views.counts
    if not counts_fit(count, local, manifest.tiles):
        tiles = f", or {manifest.tiles} more" if manifest.tiles else ""
        raise ShapeMismatchError(
            f"{local} beside {count} of {GLOBAL_VIEW}: 1 to {MAX_VIEWS}, and as many{tiles}",
            item=LOCAL_VIEW,
        )
