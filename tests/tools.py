"""Programs that tests call."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def tool(name: str) -> str | None:
    """A program beside this Python, or on PATH."""
    beside = Path(sys.executable).parent
    return shutil.which(name, path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")


def promtool() -> str:
    """Prometheus' own checker; CI has it."""
    found = tool("promtool")
    if found is None:
        pytest.skip("no promtool; `make promtool` fetches it")
    return found
