"""What the parts of `make gpu` share: the device, and series of one value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.record import Series
from giqa.errors import EngineMismatchError


def device_of(suite: str) -> torch.device:
    """The GPU that a suite measures on.

    Raises:
        EngineMismatchError: there is no usable GPU.
    """
    if not torch.cuda.is_available():
        raise EngineMismatchError(
            "PyTorch finds no NVIDIA GPU", item=suite, remedy="run the other suites here"
        )
    return torch.device("cuda")


def exact() -> None:
    """Let float32 be float32: convolutions on a GPU have 10 bits of mantissa unless told so."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def one(name: str, value: float, unit: str, facts: Mapping[str, Any]) -> Series:
    better = "higher" if name.endswith("SROCC") else "lower"
    return Series(name=name, unit=unit, better=better, values=(float(value),), facts=dict(facts))  # type: ignore[arg-type]
