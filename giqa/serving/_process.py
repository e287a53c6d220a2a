"""Running a tritonserver: laid out, started, asked a known answer, stopped, cleaned up after."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from giqa.bundle import Bundle
from giqa.contract import GIQA, IMAGE, SCORE
from giqa.errors import (
    BundleInvalidError,
    DeadlineExceededError,
    ServerError,
    ServerUnavailableError,
    UsageError,
)
from giqa.kserve import (
    Connection,
    Tensor,
    answer,
    import_grpc,
    messages,
    request,
    service_stub,
    to_error,
)
from giqa.precision import BOUNDS, OTHER_PIXELS
from giqa.serving._binary import Binary
from giqa.serving._exposure import check_shared_memory, refuse_exposed_http
from giqa.serving._folder import Folder, sweep
from giqa.serving._known import with_comment
from giqa.serving._log import ServerLog
from giqa.serving._options import EXIT_S, ServerOptions
from giqa.serving._repository import render_repository, write_repository
from giqa.serving._repository_options import MAIN_ROAD, RepositoryOptions
from giqa.serving._tensorrt import link_plans
from giqa.tensors import composing_models, ensembles

_ABANDONED_S = 60.0
"""How much longer than its deadline a call may live in the server."""

_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG; it outlives exec
if os.getppid() != int(sys.argv[1]):
    sys.exit("giqa has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the server, which ends, gracefully, when the supervisor is gone. A program of its own:
what runs between fork and exec in a process with gRPC's threads may crash."""


class Server:
    """One tritonserver process and all that belongs to it.

    Args:
        bundle: what it serves.
        binary: the tritonserver.
        options: how it listens.
        repository_options: what its models are rendered for.
        say: takes lines for the log.
        client: how its own requests reach it, where TLS needs files of the client's.
        engines: on a GPU, the folder of verified engines.

    Raises:
        UsageError: a device that the binary cannot use, or something of it offered to a network
            that it would not survive.
    """

    def __init__(
        self,
        bundle: Bundle,
        binary: Binary,
        options: ServerOptions,
        repository_options: RepositoryOptions,
        *,
        say: Callable[[str], None] = lambda line: None,
        client: Mapping[str, Any] | None = None,
        engines: Path | None = None,
    ) -> None:
        if repository_options.device == "gpu" and binary.bundled:
            raise UsageError(
                "the bundled tritonserver has no GPU backends",
                item="--device gpu",
                remedy="run inside NVIDIA's tritonserver container",
            )
        if options.http_port is not None:
            refuse_exposed_http(binary.version, options.address)
        self.bundle, self.options, self.repository_options = bundle, options, repository_options
        self._log = ServerLog(say, options.log)
        self._binary, self._say, self._engines = binary, say, engines
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Folder | None = None
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.address, options.address)
        if options.sockets is None:
            self.connection = Connection(
                host=host,
                port=options.port,
                tls=options.tls_cert is not None,
                token=options.token,
                admin_key=options.admin_key,
                **{"ca": options.tls_cert, **(client or {})},
            )
        else:
            self.connection = Connection(host=options.grpc_socket)
        self._channel: Any = None
        self._stub: Any = None
        self._was_ready = False
        self.stopping = threading.Event()
        self._late: set[Any] = set()

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
        sweep()
        self._check_ports()
        if self.repository_options.device == "cpu":
            check_shared_memory(self.bundle.manifest, self.repository_options)
        self._folder = Folder()
        folder = self._folder.path
        write_repository(folder / "models", render_repository(self.bundle, self.repository_options))
        if self._engines is not None:
            link_plans(self._engines, folder / "models")
        arguments = [
            str(self._binary.path),
            *self._binary.lay_out(folder),
            *self.options.arguments(folder, self.repository_options, self.bundle.manifest),
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WITH_PARENT, str(os.getpid()), *arguments],
            env=self._binary.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C is ours to pass on
            umask=0o077,
        )
        assert self._process.stdout is not None
        self._log.follow(self._process.stdout)
        self._channel = self.connection.channel()
        self._stub = service_stub(self._channel)
        deadline = time.monotonic() + self.options.start_s
        self._wait_ready(deadline)
        self._load_rest(deadline)
        self._was_ready = True
        self._folder.hide()

    def _load_rest(self, deadline: float) -> None:
        """Load what the main road does not need; that one answers meanwhile."""
        for name in ensembles(self.repository_options.device):
            if name in MAIN_ROAD:
                continue
            try:
                self.load(name, max(1.0, deadline - time.monotonic()))
            except DeadlineExceededError:
                self._check_starting()
                raise self._not_ready() from None
            except ServerError:
                self._check_starting()
                raise

    def _not_ready(self) -> ServerUnavailableError:
        return ServerUnavailableError(
            f"not ready after {self.options.start_s:.0f} s",
            item=self.connection.url,
            remedy="give it longer: --start-timeout",
        )

    def _check_starting(self) -> None:
        if self.stopping.is_set():
            raise ServerUnavailableError("told to stop", item=self.connection.url)
        if not self.alive:
            raise ServerUnavailableError(
                f"tritonserver ended: {self._log.reason()}", item=self.connection.url, remedy=""
            )

    def _wait_ready(self, deadline: float) -> None:
        while True:
            self._check_starting()
            try:
                if self.call("ServerReady", messages().ServerReadyRequest(), 2).ready:
                    return
            except ServerError:
                pass
            if time.monotonic() > deadline:
                raise self._not_ready()
            self.stopping.wait(0.1)

    def call(self, name: str, message: Any, timeout_s: float) -> Any:
        """Make one request of the KServe service.

        One that is late is given up, but not cancelled, which old servers do not survive.

        Raises:
            GiqaError: what the server, or the way to it, said.
        """
        grpc = import_grpc()
        end = time.monotonic() + timeout_s
        try:
            call = getattr(self._stub, name).future(
                message, timeout=timeout_s + _ABANDONED_S, metadata=self.connection.metadata
            )
            while True:  # a signal's handler may set `stopping` meanwhile
                try:
                    return call.result(max(0.0, min(0.5, end - time.monotonic())))
                except grpc.FutureTimeoutError:
                    if time.monotonic() >= end or self.stopping.is_set():
                        self._late.add(call)  # gRPC cancels a call that nobody holds
                        call.add_done_callback(self._late.discard)
                        raise DeadlineExceededError(
                            f"no answer in {timeout_s:g} s", item=self.connection.url
                        ) from None
        except grpc.FutureCancelledError as e:
            raise ServerUnavailableError("stopped", item=self.connection.url) from e
        except grpc.RpcError as e:
            raise to_error(e.code().name, e.details() or "", self.connection.url) from e
        except ValueError as e:  # gRPC's way to say that the channel was closed
            raise ServerUnavailableError("stopped", item=self.connection.url) from e

    def executed(self) -> dict[str, int]:
        """How often each composing model was executed since it was loaded.

        Raises:
            GiqaError: the request failed.
        """
        found = self.call("ModelStatistics", messages().ModelStatisticsRequest(), 5).model_stats
        names = composing_models(self.repository_options.device)
        return {one.name: int(one.execution_count) for one in found if one.name in names}

    @property
    def tolerance(self) -> float:
        """Largest difference from the known score that is no failure, in points of 100."""
        precision = self.repository_options.precision
        known = self.bundle.manifest.self_test.tolerance
        own = known[precision] if precision in known else BOUNDS[precision].tolerance
        return own + (OTHER_PIXELS if self.repository_options.device == "gpu" else 0)

    def difference(self, timeout_s: float = 10.0, ensemble: str = GIQA) -> float:
        """Score the bundle's known image.

        Its bytes are new ones each time, its pixels are not: no cache has the answer.

        Args:
            timeout_s: longest wait in seconds.
            ensemble: one whose input is an image and whose output is a score.

        Returns:
            The difference from the manifest's score, in points of 100.

        Raises:
            GiqaError: the request failed.
        """
        image = with_comment(self.bundle.self_test_image.read_bytes(), secrets.token_hex(8))
        inputs = {IMAGE: Tensor("UINT8", (1, len(image)), image)}
        # No queue timeout of its own: very short ones crash old servers, see `call`.
        message = request(ensemble, inputs, [SCORE])
        response = self.call("ModelInfer", message, timeout_s)
        expected = {SCORE: ("FP32", (1, 1))}
        score = float(answer(response, ensemble, expected, self.connection.url)[SCORE][0, 0])
        return score - self.bundle.manifest.self_test.score

    def judge(self, difference: float) -> None:
        """Refuse a difference that is not tolerated.

        Raises:
            BundleInvalidError: it is larger than the manifest's tolerance.
        """
        known = self.bundle.manifest.self_test.score
        if not abs(difference) <= self.tolerance:  # NaN fails, too
            raise BundleInvalidError(
                f"the server answers {known + difference:.3f} to the known image instead of "
                f"{known:.3f} (tolerance {self.tolerance})",
                item=self.connection.url,
                remedy="check its environment: numpy 2 makes Triton's Python backend wrong",
            )

    def known_answer(self, timeout_s: float = 10.0) -> float:
        """Ask for the difference from the known score, and judge it.

        Returns:
            The difference.

        Raises:
            BundleInvalidError: it is larger than the manifest's tolerance.
            GiqaError: the request failed.
        """
        difference = self.difference(timeout_s)
        self.judge(difference)
        return difference

    def load(self, model: str, timeout_s: float = 60.0) -> None:
        """Load a model again.

        Raises:
            GiqaError: it did not load.
        """
        if self._folder is not None:
            # Triton does nothing where nothing changed since the last time, dead or not.
            with contextlib.suppress(OSError):
                os.utime(self._folder.path / "models" / model / "1")
        message = messages().RepositoryModelLoadRequest(model_name=model)
        self.call("RepositoryModelLoad", message, timeout_s)
        if self._folder is not None:
            self._folder.hide()

    def refuse(self) -> None:
        """Take no new work; what is under way goes on.

        SIGTERM alone would close the composing models at once, and requests between two of them
        would be lost; so the ensembles go first, each when its last request was answered.
        """
        for name in ensembles(self.repository_options.device):
            message = messages().RepositoryModelUnloadRequest(model_name=name)
            with contextlib.suppress(ServerError):
                self.call("RepositoryModelUnload", message, 10)

    def _drain(self) -> bool:
        """Refuse new work and wait for what is under way; whether all of it was finished."""
        self.refuse()
        names = set(ensembles(self.repository_options.device))
        end = time.monotonic() + self.options.drain_s
        while self.alive and time.monotonic() < end:
            try:
                index = self.call("RepositoryIndex", messages().RepositoryIndexRequest(), 5)
            except ServerError:
                return False
            busy = [m for m in index.models if m.name in names and m.reason != "unloaded"]
            if not busy:
                return True
            time.sleep(0.05)
        return False

    def stop(self, *, drain: bool = True) -> int:
        """Stop taking work, finish what is under way, end; leave nothing behind.

        Args:
            drain: wait for requests under way; False: kill.

        Returns:
            The process's exit status; 0 if it was not running.
        """
        status = 0
        drain, self._was_ready = drain and self._was_ready, False  # what starts has no requests
        if drain and self.alive and self._channel is not None and not self._drain():
            # What a dead model had taken is never answered.
            self._say(f"not all requests were finished within {self.options.drain_s:.0f} s")
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            if not drain:
                self._process.kill()
            elif self.alive:
                self._process.terminate()
            try:
                status = self._process.wait(EXIT_S + 5)
            except subprocess.TimeoutExpired:
                status = -signal.SIGKILL
            self._kill_group()
            self._process.wait()
            self._log.join(5)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None
        if self._folder is not None:
            self._folder.remove()
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
        if self.options.sockets is not None:
            for name in ("grpc:1", "metrics"):
                (self.options.sockets / name).unlink(missing_ok=True)
            return
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
