"""The processes of Triton's Python models, as /proc shows them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


def live_stubs(server_pid: int) -> Counter[str]:
    """Count the stubs of a server that are alive.

    Args:
        server_pid: the tritonserver process.

    Returns:
        Number of processes by model; empty where there is no /proc.
    """
    found: Counter[str] = Counter()
    for _, model in stub_processes(server_pid):
        found[model] += 1
    return found


def stub_processes(server_pid: int) -> Iterator[tuple[int, str]]:
    """List the stubs of a server that are alive.

    Args:
        server_pid: the tritonserver process.

    Yields:
        Process and model.
    """
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):  # it ended meanwhile
            # The name in parentheses may hold anything; what follows is fixed.
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == server_pid and state not in "ZX":
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
                yield int(folder.name), Path(arguments[1].decode()).parent.parent.name
