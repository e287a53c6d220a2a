"""A gateway that is well after each test."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.triton.conftest import Served
from tests.triton.gateway.asking import ask, image


@pytest.fixture
def fine(served: Served) -> Any:
    """After whatever a test did, the same processes answer rightly."""
    before = served.process.pid, stub_count(served)
    yield
    reply = ask(served.connection, "ModelInfer", image())
    assert len(reply.raw_output_contents[0]) == 4
    assert (served.process.pid, stub_count(served)) == before
    assert "anew" not in (served.folder / "log").read_text()


def stub_count(served: Served) -> int:
    found = subprocess.run(
        ["pgrep", "-fc", f"giqa-serve-{served.process.pid}-"], capture_output=True, text=True
    )
    return int(found.stdout)
