"""What a server has on this machine while it runs: a folder of its own, and shared memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "giqa-serve-"
_SHM = Path("/dev/shm")


def new_folder() -> Path:
    """Make a server's own folder; its name says which supervisor it belongs to."""
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))


def shm_prefix(folder: Path) -> str:
    """How the names of the Python models' shared memory begin."""
    return f"{folder.name}-"


def remove(folder: Path) -> None:
    """Remove a server's folder and the shared memory of its Python models."""
    shutil.rmtree(folder, ignore_errors=True)
    for leftover in _SHM.glob(f"{shm_prefix(folder)}*"):
        leftover.unlink(missing_ok=True)


def sweep() -> None:
    """Remove what servers left whose supervisor was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists() and os.access(folder, os.W_OK):
            remove(folder)
