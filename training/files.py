"""Tensors in files that appear whole or not at all; bytes are `giqa.files`'s."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from giqa.files import replacing, storage, write

if TYPE_CHECKING:  # torch takes seconds to import, and most of what is written are bytes
    from torch import Tensor

__all__ = ["read_tensors", "replacing", "storage", "write", "write_tensors"]


def read_tensors(path: Path, about: Mapping[str, str]) -> dict[str, Tensor] | None:
    """Read what `write_tensors` wrote.

    Args:
        path: the file.
        about: the metadata it must have.

    Returns:
        The tensors; None if there is no file, or one with other metadata.
    """
    from safetensors import safe_open

    if not path.is_file():
        return None
    with safe_open(path, "pt") as f:
        if f.metadata() != about:
            return None
        return {n: f.get_tensor(n) for n in f.keys()}  # noqa: SIM118


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write a safetensors file, see `write`.

    Args:
        path: the file.
        tensors: on any device.
        about: metadata.
    """
    from safetensors.torch import save

    # Bytes, because safetensors' own writing to a file hides what went wrong.
    plain = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    write(path, save(plain, dict(about)))
