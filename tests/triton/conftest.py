"""A real tritonserver on the CPU, shared by the tests of this folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from giqa import LocalScorer
from giqa.bundle import Bundle, load_bundle
from giqa.openvino import choose_precision
from giqa.serving import RepositoryOptions, Server, ServerOptions, Watch, find_tritonserver
from tests.ports import free_port


def options(served: Bundle, /, **changes: object) -> RepositoryOptions:
    """What `giqa serve` renders by default."""
    precision = choose_precision(served, "auto")
    made = RepositoryOptions(bundle=str(served.folder.resolve()), precision=precision)
    return replace(made, **changes)


@contextmanager
def serving(
    bundle: Bundle, repository: RepositoryOptions | None = None, **changes: object
) -> Iterator[Server]:
    """A server, started and stopped."""
    listen = ServerOptions(port=free_port(), metrics_port=None, drain_s=10)
    server = Server(
        bundle,
        find_tritonserver(),
        replace(listen, **changes),
        repository or options(bundle),
    )
    try:
        server.start()
        server.known_answer()
        yield server
    finally:
        server.stop()


@contextmanager
def watched(server: Server) -> Iterator[list[str]]:
    """A watch over a server; gives what it says."""
    said: list[str] = []
    stop = threading.Event()
    thread = threading.Thread(target=Watch(server, say=said.append).run, args=(stop,))
    thread.start()
    try:
        yield said
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture(scope="session")
def server(bundle: Bundle) -> Iterator[Server]:
    """One server for all tests that leave it as it was."""
    with serving(bundle) as started:
        yield started


@pytest.fixture(scope="session")
def url(server: Server) -> str:
    return server.connection.url


@pytest.fixture(scope="session")
def local() -> Iterator[LocalScorer]:
    with LocalScorer() as scorer:
        yield scorer


@pytest.fixture
def well(server: Server) -> Iterator[Callable[[], None]]:
    """After whatever a test did to it, the server answers rightly."""
    yield lambda: None
    server.known_answer()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key."""
    import subprocess

    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key
