"""Models and ensembles of a repository: their names, tensors, shapes and largest batches."""

from __future__ import annotations

from typing import Literal

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
    PREPROCESS_ISOLATED,
    PREPROCESSES,
    QUALITY_MAP,
    SCORE,
)
from giqa.manifest import Tensors

Device = Literal["cpu", "gpu"]
DEVICES: tuple[Device, ...] = ("cpu", "gpu")

_WITH_MAP = (GIQA_MAP, GIQA_PRECISE, GIQA_VIEWS)


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
        By tensor name; -1 where a size varies (V, or an image's bytes).
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
