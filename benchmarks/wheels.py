"""What a part of `make gpu` needs on a machine that has PyTorch and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

_NEEDS = {
    "gpu": ("onnx", "timm"),
    "gpu_graphs": ("onnx", "onnxruntime", "scipy"),
    "gpu_decoding": ("nvidia-dali-cuda130",),
}
"""Beside giqa's own. The other parts run where TensorRT and Triton are: in their containers."""
PARTS = tuple(_NEEDS)
_THERE = "torch"


def wheels(part: str) -> list[str]:
    """The packages of a part, in the versions that are installed here: `onnx==1.22.0`.

    Args:
        part: one of `PARTS`.

    Returns:
        All that they need, too, but for PyTorch and what came with it.
    """
    there = set(_closure(_THERE))
    found = {name for one in ("giqa", *_NEEDS[part]) for name in _closure(one)}
    return [f"{name}=={version(name)}" for name in sorted(found - there - {"giqa"})]


def _closure(name: str, seen: set[str] | None = None) -> Iterator[str]:
    """A package and what it needs, without extras and other systems'."""
    seen = set() if seen is None else seen
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in seen:
        return
    seen.add(name)
    try:
        needs = requires(name) or []
    except PackageNotFoundError:
        return  # a marker leaves it out here
    yield name
    for need in needs:
        if "extra ==" not in need.partition(";")[2]:
            yield from _closure(re.split(r"[^\w.-]", need, maxsplit=1)[0], seen)
