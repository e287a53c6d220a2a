"""Running a tritonserver: laid out, started, asked a known answer, stopped, cleaned up after."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from giqa.bundle import Bundle
from giqa.contract import GIQA, IMAGE, SCORE
from giqa.errors import (
    BundleInvalidError,
    ServerError,
    ServerUnavailableError,
    UsageError,
)
from giqa.triton.binary import Binary
from giqa.triton.connection import (
    ADMIN_KEY,
    TOKEN_KEY,
    Connection,
    import_grpc,
    service_stub,
)
from giqa.triton.repository import (
    CPU_RESOURCE,
    Options,
    composing_models,
    cuda_pool_bytes,
    ensembles,
    render,
    write,
)
from giqa.triton.wire import Tensor, answer, messages, request, to_error

_PREFIX = "giqa-serve-"
_SHM = Path("/dev/shm")
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_GUARDED = "metadata,inference,shared-memory,model-config,statistics"
_ADMIN = "model-repository,trace,logging"


def new_key() -> str:
    """Draw a key that nobody guesses."""
    return secrets.token_hex(16)


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server listens and what it writes down.

    Attributes:
        address: the address to listen on.
        port: gRPC port.
        http_port: HTTP port; None: no HTTP (it has no TLS).
        metrics_port: port of the Prometheus metrics; None: none.
        tls_cert: PEM file of the server's certificate; with `tls_key`: gRPC with TLS.
        tls_key: PEM file of the certificate's key.
        tls_client_ca: PEM file of the authority whose clients alone are let in.
        token: what clients must show; None: nothing.
        admin_key: what loading and unloading models needs; drawn at random unless given.
        cache_bytes: size of the response cache; 0: none.
        drain_s: longest wait for requests under way when it stops, in seconds.
        start_s: longest wait until it is ready, in seconds.
        trace_url: OpenTelemetry collector to send traces to.
        trace_rate: one of so many requests is traced.
        log: file that the server's log is added to.
        extra: further arguments of tritonserver.
    """

    address: str = "127.0.0.1"
    port: int = 8001
    http_port: int | None = None
    metrics_port: int | None = 8002
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    token: str | None = field(default=None, repr=False)
    admin_key: str = field(default_factory=new_key, repr=False)
    cache_bytes: int = 0
    drain_s: float = 30.0
    start_s: float = 120.0
    trace_url: str | None = None
    trace_rate: int = 100
    log: Path | None = None
    extra: tuple[str, ...] = ()


class Server:
    """One tritonserver process and all that belongs to it.

    Args:
        bundle: what it serves.
        binary: the tritonserver.
        options: how it listens.
        repository: what its models are rendered for.
        say: takes lines for the log.
        client: how its own requests reach it, where TLS needs files of the client's.

    Raises:
        UsageError: TLS with half of its files, or a device that the binary cannot use.
    """

    def __init__(
        self,
        bundle: Bundle,
        binary: Binary,
        options: ServerOptions,
        repository: Options,
        *,
        say: Callable[[str], None] = lambda line: None,
        client: Mapping[str, Any] | None = None,
    ) -> None:
        if (options.tls_cert is None) != (options.tls_key is None):
            raise UsageError("TLS needs a certificate and its key", item="--tls-cert, --tls-key")
        if repository.device == "gpu" and binary.bundled:
            raise UsageError(
                "the bundled tritonserver has no GPU backends",
                item="--device gpu",
                remedy="run inside NVIDIA's tritonserver container",
            )
        self.bundle, self.options, self.repository = bundle, options, repository
        self.log_tail: deque[str] = deque(maxlen=200)
        self._binary, self._say = binary, say
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._pump: threading.Thread | None = None
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.address, options.address)
        self.connection = Connection(
            host=host,
            port=options.port,
            tls=options.tls_cert is not None,
            token=options.token,
            admin_key=options.admin_key,
            **{"ca": options.tls_cert, **(client or {})},
        )
        self._channel: Any = None
        self._stub: Any = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Lay everything out, start the process, wait until every model is loaded.

        Raises:
            UsageError: a port is taken or may not be used.
            ServerUnavailableError: it ended, or was not ready in time.
            StorageFullError: no room for its files.
        """
        _sweep()
        self._check_ports()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        write(self._folder / "models", render(self.bundle, self.repository))
        arguments = self._arguments(self._folder)
        self._process = subprocess.Popen(
            arguments,
            env=self._binary.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C is ours to pass on
            preexec_fn=_die_with_parent,
        )
        assert self._process.stdout is not None
        self._pump = threading.Thread(
            target=self._log, args=(self._process.stdout,), name="giqa-log", daemon=True
        )
        self._pump.start()
        self._channel = self.connection.channel()
        self._stub = service_stub(self._channel)
        self._wait_ready()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self.options.start_s
        while True:
            if not self.alive:
                raise ServerUnavailableError(
                    f"tritonserver ended: {self._reason()}", item=self.connection.url, remedy=""
                )
            try:
                if self.call("ServerReady", messages().ServerReadyRequest(), 2).ready:
                    return
            except ServerError:
                pass
            if time.monotonic() > deadline:
                raise ServerUnavailableError(
                    f"not ready after {self.options.start_s:.0f} s", item=self.connection.url
                )
            time.sleep(0.1)

    def call(self, name: str, message: Any, timeout_s: float) -> Any:
        """Make one request of the KServe service.

        Raises:
            GiqaError: what the server, or the way to it, said.
        """
        try:
            return getattr(self._stub, name)(
                message, timeout=timeout_s, metadata=self.connection.metadata
            )
        except import_grpc().RpcError as e:
            raise to_error(e.code().name, e.details() or "", self.connection.url) from e

    def known_answer(self, timeout_s: float = 10.0) -> float:
        """Score the bundle's known image through the main ensemble.

        Returns:
            The difference from the manifest's score.

        Raises:
            BundleInvalidError: it is larger than the manifest's tolerance.
            GiqaError: the request failed.
        """
        image = self.bundle.self_test_image.read_bytes()
        inputs = {IMAGE: Tensor("UINT8", (1, len(image)), image)}
        message = request(GIQA, inputs, [SCORE], timeout_s=timeout_s)
        response = self.call("ModelInfer", message, timeout_s)
        expected = {SCORE: ("FP32", (1, 1))}
        score = float(answer(response, GIQA, expected, self.connection.url)[SCORE][0, 0])
        known = self.bundle.manifest.self_test
        tolerance = known.tolerance.get(self.repository.precision, max(known.tolerance.values()))
        difference = score - known.score
        if not abs(difference) <= tolerance:  # NaN fails, too
            raise BundleInvalidError(
                f"the server answers {score:.3f} to the known image instead of "
                f"{known.score:.3f} (tolerance {tolerance})",
                item=self.connection.url,
                remedy="check its environment: numpy 2 makes Triton's Python backend wrong",
            )
        return difference

    def load(self, model: str, timeout_s: float = 60.0) -> None:
        """Load a model again.

        Raises:
            GiqaError: it did not load.
        """
        message = messages().RepositoryModelLoadRequest(model_name=model)
        self.call("RepositoryModelLoad", message, timeout_s)

    def stop(self, *, drain: bool = True) -> int:
        """Stop taking work, finish what is under way, end; leave nothing behind.

        Args:
            drain: wait for requests under way; False: kill.

        Returns:
            The process's exit status; 0 if it was not running.
        """
        status = 0
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            if not drain:
                self._process.kill()
            elif self.alive:
                self._process.terminate()
            try:
                status = self._process.wait(self.options.drain_s + 10)
            except subprocess.TimeoutExpired:
                status = -signal.SIGKILL
            if drain and status:
                # What a dead model had taken is never answered, and Triton waits for it.
                self._say(f"not all requests were finished within {self.options.drain_s:.0f} s")
            self._kill_group()
            self._process.wait()
            if self._pump is not None:
                self._pump.join(5)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None
        if self._folder is not None:
            _remove(self._folder)
            self._folder = None
        return status

    def _kill_group(self) -> None:
        """End what the process may have left: its stubs are in its group."""
        assert self._process is not None
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        for _ in range(50):  # init reaps them
            try:
                os.killpg(self._process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.02)

    def _check_ports(self) -> None:
        asked = (
            ("--port", self.options.port),
            ("--http-port", self.options.http_port),
            ("--metrics-port", self.options.metrics_port),
        )
        for option, port in asked:
            if port is None:
                continue
            family = socket.AF_INET6 if ":" in self.options.address else socket.AF_INET
            with socket.socket(family) as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind((self.options.address, port))
                except OSError as e:
                    raise UsageError(
                        f"cannot listen on {self.options.address}:{port}: {e.strerror}",
                        item=option,
                        remedy="choose another",
                    ) from e

    def _arguments(self, folder: Path) -> list[str]:
        o = self.options
        found = [
            str(self._binary.path),
            f"--model-repository={folder / 'models'}",
            *self._binary.lay_out(folder),
            f"--grpc-address={o.address}",
            f"--grpc-port={o.port}",
            f"--exit-timeout-secs={max(1, int(o.drain_s))}",
            # Explicit: a model whose process died can be loaded again, one by one.
            "--model-control-mode=explicit",
            *(
                f"--load-model={name}"
                for name in (
                    *composing_models(self.repository.device),
                    *ensembles(self.repository.device),
                )
            ),
            f"--grpc-restricted-protocol={_ADMIN}:{ADMIN_KEY}={o.admin_key}",
        ]
        if o.token is not None:
            found.append(f"--grpc-restricted-protocol={_GUARDED}:{TOKEN_KEY}={o.token}")
        found += _http(o)
        if o.tls_cert is not None:
            found += [
                "--grpc-use-ssl=true",
                f"--grpc-server-cert={o.tls_cert}",
                f"--grpc-server-key={o.tls_key}",
            ]
            if o.tls_client_ca is not None:
                found += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={o.tls_client_ca}"]
        if o.cache_bytes:
            found.append(f"--cache-config=local,size={o.cache_bytes}")
        if o.trace_url is not None:
            found += [
                "--trace-config=mode=opentelemetry",
                f"--trace-config=opentelemetry,url={o.trace_url}",
                f"--trace-config=rate={o.trace_rate}",
                "--trace-config=level=TIMESTAMPS",
            ]
        if self.repository.device == "cpu":
            found += [
                "--rate-limit=execution_count",
                f"--rate-limit-resource={CPU_RESOURCE}:{self.repository.instances}",
                "--allow-gpu-metrics=false",
                "--pinned-memory-pool-byte-size=0",
                "--cuda-memory-pool-byte-size=0:0",
                f"--backend-config=python,shm-region-prefix-name={_shm_prefix(folder)}",
            ]
        else:
            pool = cuda_pool_bytes(self.bundle.manifest, self.repository)
            found.append(f"--cuda-memory-pool-byte-size=0:{pool}")
        return [*found, *o.extra]

    def _log(self, stream: IO[bytes]) -> None:
        """Pass the server's log on; a full disk costs lines, not the server."""
        file: IO[str] | None = None
        lost = 0
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip()
            self.log_tail.append(line)
            self._say(line)
            if self.options.log is None:
                continue
            try:
                file = file or self.options.log.open("a", encoding="utf-8")
                if lost:
                    file.write(f"({lost} lines lost)\n")
                file.write(line + "\n")
                file.flush()
                lost = 0
            except OSError as e:
                if not lost:
                    self._say(f"{self.options.log}: {e.strerror}; the log has a gap from here")
                lost += 1
                _close(file)
                file = None
        _close(file)

    def _reason(self) -> str:
        if self._pump is not None:
            self._pump.join(2)
        errors = [line for line in self.log_tail if re.match(r"E\d{4} |error|Error", line)]
        line = (errors or list(self.log_tail) or ["it said nothing"])[-1]
        return re.sub(r"^E\d{4} \S+\s+\d+ \S+\] ", "", line).strip()[:400]


def _http(o: ServerOptions) -> list[str]:
    found = [f"--allow-http={'false' if o.http_port is None else 'true'}"]
    if o.http_port is not None:
        found += [
            f"--http-address={o.address}",
            f"--http-port={o.http_port}",
            f"--http-restricted-api={_ADMIN}:{ADMIN_KEY}={o.admin_key}",
        ]
        if o.token is not None:
            found.append(f"--http-restricted-api={_GUARDED}:{TOKEN_KEY}={o.token}")
    found.append(f"--allow-metrics={'false' if o.metrics_port is None else 'true'}")
    if o.metrics_port is not None:
        found += [f"--metrics-address={o.address}", f"--metrics-port={o.metrics_port}"]
    return found


def _close(file: IO[str] | None) -> None:
    with contextlib.suppress(OSError):  # what was buffered is lost, and was counted
        if file is not None:
            file.close()


def _shm_prefix(folder: Path) -> str:
    return f"{folder.name}-"


def _remove(folder: Path) -> None:
    """Remove a server's folder and the shared memory of its Python models."""
    shutil.rmtree(folder, ignore_errors=True)
    for leftover in _SHM.glob(f"{_shm_prefix(folder)}*"):
        leftover.unlink(missing_ok=True)


def _sweep() -> None:
    """Remove what servers left whose supervisor was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists() and os.access(folder, os.W_OK):
            _remove(folder)


def _die_with_parent() -> None:
    """In the child: end, gracefully, when the supervisor is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
