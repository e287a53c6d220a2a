"""A real tritonserver on the CPU, shared by the tests of this folder."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from giqa import LocalScorer
from giqa.bundle import Bundle, load_bundle
from giqa.decode import has_dali
from giqa.kserve import Connection
from giqa.openvino import choose_precision
from giqa.serving import RepositoryOptions, Server, ServerOptions, Watch, find_tritonserver
from tests.ports import free_port, free_ports
from tests.tiled import small_bundle

ADMIN = "of-the-tests"
"""The admin key of the server that all share: shared memory wants it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files last whose servers live until the end, those of `served` at the very end.

    Its watch asks for scores every two seconds: on two slow cores, half of one core, taken
    from all tests after it.
    """
    here, ranks = Path(__file__).parent, dict[Path, int]()
    for item in items:
        names = getattr(item, "fixturenames", ())
        rank = max(n * (name in names) for n, name in enumerate(("", "server", "served")))
        ranks[item.path] = max(rank if here in item.path.parents else 0, ranks.get(item.path, 0))
    items.sort(key=lambda item: ranks[item.path])


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
    if not has_dali():
        pytest.skip(
            "DALI cannot be hidden from a server's processes, which are compared with this one"
        )
    listen = ServerOptions(port=free_port(), metrics_port=None, drain_s=10, start_s=300)
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
        thread.join(180)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture(scope="session")
def tiled() -> Bundle:
    """A bundle that loads in half the time, where a server is looked at and not its scores."""
    return load_bundle(small_bundle())


@pytest.fixture(scope="session")
def server(bundle: Bundle) -> Iterator[Server]:
    """One server for all tests that leave it as it was."""
    with serving(bundle, client_shared_memory=True, admin_key=ADMIN) as started:
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


@dataclass(frozen=True)
class Served:
    """`giqa serve` with everything that listens, and who may come in."""

    process: subprocess.Popen[str]
    folder: Path
    grpc: int
    http: int
    metrics: int
    watch: int

    TEAM = "token-of-the-team"
    SMALL = "token-of-a-small-one"
    ADMIN = "key-of-the-admin"

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.grpc}"

    @property
    def connection(self) -> Connection:
        return Connection(host="127.0.0.1", port=self.grpc, token=self.TEAM)

    @property
    def requests(self) -> Path:
        return self.folder / "requests.jsonl"

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.toml"


TOKENS = f"""
[tokens.team]
token = "{Served.TEAM}"

[tokens.small]
token = "{Served.SMALL}"
in_flight = 1
per_minute = 6
"""


@contextmanager
def commanded(folder: Path, *more: str) -> Iterator[Served]:
    """`giqa serve` as an operator starts it, until it is ready."""
    ports = free_ports(4)
    (folder / "tokens.toml").write_text(TOKENS)
    (folder / "admin").write_text(Served.ADMIN)
    names = ("--port", "--http-port", "--metrics-port", "--watch-port")
    listening = [
        part for name, port in zip(names, ports, strict=True) for part in (name, str(port))
    ]
    files = ["--token-file", str(folder / "tokens.toml"), "--admin-key-file", str(folder / "admin")]
    files += ["--request-log", str(folder / "requests.jsonl")]
    command = [sys.executable, "-m", "giqa", "serve", *listening, *files, "--start-timeout=300"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready: "), (folder / "log").read_text()
        yield Served(process, folder, *ports)
    finally:
        process.terminate()
        process.wait(120)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all tests that leave it as it was."""
    with commanded(tmp_path_factory.mktemp("served"), "--reflection") as found:
        yield found
