"""What all tests share: no network, data outside the checkout, and what to skip where."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.demo import forbid_network

CHECKOUT = Path(__file__).parents[1]

# Nothing here may download anything; local servers are fine.
forbid_network()


def _has_gpu() -> bool:
    smi = shutil.which("nvidia-smi")
    return smi is not None and subprocess.run([smi, "-L"], capture_output=True).returncode == 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_gpu():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU"))


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the checkout."""
    return CHECKOUT


@pytest.fixture(scope="session")
def data() -> Path:
    """Measuring data, which is not in the repository: $GIQA_DATA, or ../shared/data.

    Tests that take this fixture are skipped where it is absent.
    """
    folder = Path(os.environ.get("GIQA_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set GIQA_DATA")
    return folder
