"""Checkpoints: safetensors and JSON, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_STATE = "state.json"


def save(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]) -> None:
    """Write a checkpoint; an interruption leaves the previous one intact.

    The tensors go to new files named by step; `state.json`, replaced last, names them.

    Args:
        folder: the run's folder.
        tensors: groups of tensors by name (model, optimiser, ...).
        state: JSON-serialisable state; must hold `step`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {group: f"{group}-{state['step']:07d}.safetensors" for group in tensors}
    for group, values in tensors.items():
        plain = {k: v.detach().contiguous().clone() for k, v in values.items()}
        temporary = folder / f".{files[group]}.tmp"
        save_file(plain, temporary)
        _sync(temporary)
        temporary.replace(folder / files[group])
    temporary = folder / f".{_STATE}.tmp"
    temporary.write_text(json.dumps({**state, "files": files}, indent=1))
    _sync(temporary)
    temporary.replace(folder / _STATE)
    for stale in folder.glob("*.safetensors"):
        if stale.name not in files.values():
            stale.unlink()


def load(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """Read the checkpoint of a run.

    Args:
        folder: the run's folder.

    Returns:
        Tensor groups and state, or None if there is no checkpoint.
    """
    path = folder / _STATE
    if not path.is_file():
        return None
    state = json.loads(path.read_text())
    return {g: load_file(folder / f) for g, f in state.pop("files").items()}, state


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Per-parameter tensors of an optimiser as a flat mapping `index/name`."""
    return {
        f"{index}/{name}": torch.as_tensor(value)
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    """Put back what `flatten_optimizer` took."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, name = key.split("/", 1)
        entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


def _sync(path: Path) -> None:
    with path.open("rb") as f:
        os.fsync(f.fileno())
