"""A server that does everything wrong, and what scorers are asked on it."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import pytest

import giqa.client._link as link_module
import giqa.client._shared_memory
import giqa.client._stream as stream_module
from giqa.bundle import Bundle, load_bundle
from tests.fakes.clients import GRACE_S
from tests.fakes.kserve import FakeServer
from tests.fakes.scripts import score_of
from tests.makers import jpeg


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture
def server(bundle: Bundle) -> Iterator[FakeServer]:
    with FakeServer(bundle=bundle) as made:
        yield made


@pytest.fixture
def gpu(bundle: Bundle) -> Iterator[FakeServer]:
    with FakeServer("gpu", bundle=bundle) as made:
        yield made


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Small JPEGs whose scores all differ."""
    made = [jpeg(64, 48, seed=i) for i in range(64)]
    assert len({score_of(image) for image in made}) == len(made)
    return made


@pytest.fixture
def regions(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of all shared memory that the client makes; none may be left behind."""
    names: list[str] = []

    class Noted(shared_memory.SharedMemory):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            names.append(self.name)

    monkeypatch.setattr(giqa.client._shared_memory, "SharedMemory", Noted)
    yield names
    assert [name for name in names if Path("/dev/shm", name).exists()] == []


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server has is left to end by itself, but here not for seconds."""
    for module in (link_module, stream_module):
        monkeypatch.setattr(module, "GRACE_S", GRACE_S)
