"""Checkpoints: safetensors and JSON, written whole or not at all.

A folder holds up to two of them::

    state.json      the newest: the caller's state, and per group of tensors a file's name, size
                    and SHA-256; its own digest is in it, too
    previous.json   the one before
    GROUP-STEP-DIGEST.safetensors

Names hold a digest: a new checkpoint never touches the files of an older one, even at the same
step. Everything is written and synced under temporary names before the first file is renamed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from giqa import files
from giqa.errors import StorageFullError

_STATE, _PREVIOUS = "state.json", "previous.json"
_GROUP = re.compile(r"\w[\w.]*")
_OURS = re.compile(r"\w[\w.]*-\d{7,}-[0-9a-f]{16}\.safetensors")
_FILES, _DIGEST = "files", "sha256"

_log = logging.getLogger(__name__)


class _DamagedError(ValueError):
    """A checkpoint is not what was written."""


def save(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]) -> None:
    """Write a checkpoint; whatever interrupts it, an older one stays loadable.

    The checkpoint before the newest is removed once the new one is whole, so that a folder needs
    room for three while saving.

    Args:
        folder: the run's folder; one process at a time may save there.
        tensors: groups of tensors by name (model, optimiser, ...), on any device; a group may be
            empty. A name is made of letters, digits, `_` and `.`.
        state: JSON-serialisable state; must hold `step` (an int, 0 or more) and `preset`, must
            not hold `files` or `sha256`.

    Raises:
        ValueError: the state or the name of a group breaks these rules.
        StorageFullError: no space is left; the newest checkpoint stays loadable.
        OSError: the folder cannot be written; the newest checkpoint stays loadable.
    """
    _check(tensors, state)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clean(folder)
        _write(folder, tensors, state)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError(
                f"no space left for the checkpoint of step {state['step']}; older ones are intact",
                item=str(folder),
                remedy="free space and run again: it goes on from the last checkpoint",
            ) from e
        raise
    finally:
        with suppress(OSError):  # the next call tries again, and says so
            _clean(folder)


Found = tuple[dict[str, dict[str, Tensor]], dict[str, Any]]
"""Tensor groups and state, as `save` took them."""


def load(folder: Path, preset: str | None = None) -> Found | None:
    """Read the newest checkpoint of a run or, if it is damaged, the one before, with a warning.

    Args:
        folder: the run's folder.
        preset: the preset that the checkpoint must be of; None: any.

    Returns:
        Tensor groups, on the CPU, and state as given to `save`; None if there is no checkpoint.

    Raises:
        ValueError: the checkpoint is of another preset, or none is undamaged.
    """
    names = [n for n in (_STATE, _PREVIOUS) if (folder / n).exists()]
    if not names:
        return None
    faults = [] if _STATE in names else [f"{_STATE} is missing"]
    for name in names:
        try:
            state = _manifest(folder / name)
            if preset is not None and state["preset"] != preset:
                raise ValueError(
                    f"{folder} holds a checkpoint of preset {state['preset']}, not of {preset}: "
                    "choose another output folder"
                )
            files = state.pop(_FILES)
            tensors = {g: safetensors.torch.load(_verify(folder, e)) for g, e in files.items()}
        except (_DamagedError, OSError) as e:
            faults.append(f"{name}: {e}")
            continue
        if faults:
            _log.warning(
                "%s: the newest checkpoint is damaged (%s); going on from the one before, step %s",
                *(folder, "; ".join(faults), state["step"]),
            )
        return tensors, state
    if _PREVIOUS not in names:
        faults.append(f"{_PREVIOUS} is missing")
    raise ValueError(
        f"{folder}: no checkpoint is undamaged ({'; '.join(faults)}); "
        f"delete {' and '.join(names)} to start anew"
    )


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


def _check(tensors: Mapping[str, object], state: Mapping[str, Any]) -> None:
    step = state.get("step")
    if not isinstance(step, int) or step < 0:
        raise ValueError(f"a checkpoint's state must hold step, a count: {step!r}")
    if not isinstance(state.get("preset"), str):
        raise ValueError(f"a checkpoint's state must hold preset: {sorted(state)}")
    if taken := {_FILES, _DIGEST} & set(state):
        raise ValueError(f"a checkpoint's state must not hold {sorted(taken)}")
    if bad := [g for g in tensors if not _GROUP.fullmatch(g)]:
        raise ValueError(f"not a name for a group of tensors: {bad[0]!r}")


def _write(
    folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> None:
    files, ready = {}, []
    for group, values in tensors.items():
        # Copies, because safetensors refuses tensors that share memory. Bytes rather than its
        # own writing to a file, whose errors carry no errno.
        data = safetensors.torch.save(
            {k: v.detach().cpu().clone(memory_format=torch.contiguous_format)
             for k, v in values.items()}
        )  # fmt: skip
        digest = hashlib.sha256(data).hexdigest()
        name = f"{group}-{state['step']:07d}-{digest[:16]}.safetensors"
        files[group] = {"file": name, "size": len(data), _DIGEST: digest}
        ready.append(_put(folder, name, data))
        del data
    # A damaged checkpoint must not push out the undamaged one that the run went on from.
    if _undamaged(folder):
        ready.append(_put(folder, _PREVIOUS, (folder / _STATE).read_bytes()))
    body = json.loads(json.dumps({**state, _FILES: files}))
    text = json.dumps({**body, _DIGEST: _digest(body)}, indent=1)
    newest = _put(folder, _STATE, text.encode())
    for temporary, name in ready:
        temporary.replace(folder / name)
    _sync_folder(folder)
    newest[0].replace(folder / newest[1])
    _sync_folder(folder)


def _put(folder: Path, name: str, data: bytes) -> tuple[Path, str]:
    """Write to a temporary file, down to the disk; returns it with the name it is to get."""
    temporary = folder / f".{name}.tmp"
    with temporary.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    return temporary, name


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _manifest(path: Path) -> dict[str, Any]:
    """The state with its list of files, checked against its digest."""
    try:
        body = json.loads(path.read_bytes())
        expected = body.pop(_DIGEST)
        whole = expected == _digest(body) and {_FILES, "preset", "step"} <= set(body)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise _DamagedError("truncated, altered or of another version")
    return body


def _undamaged(folder: Path) -> bool:
    """Whether the newest checkpoint is there and whole."""
    try:
        for entry in _manifest(folder / _STATE)[_FILES].values():
            _verify(folder, entry)
    except (_DamagedError, OSError):
        return False
    return True


def _verify(folder: Path, entry: Mapping[str, Any]) -> bytes:
    """The bytes of a file if they are those that were written."""
    try:
        data = (folder / entry["file"]).read_bytes()
    except FileNotFoundError as e:
        raise _DamagedError(f"{entry['file']} is missing") from e
    if len(data) != entry["size"]:
        raise _DamagedError(f"{entry['file']} has {len(data)} of {entry['size']} bytes")
    if hashlib.sha256(data).hexdigest() != entry[_DIGEST]:
        raise _DamagedError(f"{entry['file']} was altered")
    return data


def _clean(folder: Path) -> None:
    """Remove temporary files, and tensor files that no checkpoint names."""
    named = set()
    for name in (_STATE, _PREVIOUS):
        with suppress(_DamagedError, FileNotFoundError):
            named |= {e["file"] for e in _manifest(folder / name)[_FILES].values()}
    for path in list(folder.iterdir()):
        name = path.name.removeprefix(".").removesuffix(".tmp")
        ours = name in (_STATE, _PREVIOUS) or _OURS.fullmatch(name)
        temporary = path.name == f".{name}.tmp"
        if ours and (temporary or (_OURS.fullmatch(path.name) and path.name not in named)):
            path.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write a safetensors file, which appears whole or not at all.

    Args:
        path: the file.
        tensors: on any device.
        about: metadata.
    """
    # Bytes, because safetensors' own writing to a file hides what went wrong.
    plain = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    files.write(path, safetensors.torch.save(plain, dict(about)))
