"""Running a tritonserver: laid out, started, asked a known answer, stopped, cleaned up after."""

from __future__ import annotations

import contextlib
import os
import secrets
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
from giqa.kserve import Connection, Tensor, answer, messages, request
from giqa.precision import BOUNDS, OTHER_PIXELS
from giqa.serving._binary import Binary
from giqa.serving._calls import Calls
from giqa.serving._exposure import check_shared_memory, refuse_exposed_http
from giqa.serving._folder import Folder, sweep
from giqa.serving._known import with_comment
from giqa.serving._log import ServerLog
from giqa.serving._options import ServerOptions
from giqa.serving._process import Process, check_ports
from giqa.serving._repository import render_repository, write_repository
from giqa.serving._repository_options import MAIN_ROAD, RepositoryOptions
from giqa.serving._tensorrt import link_plans
from giqa.tensors import composing_models, ensembles


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
        self._process: Process | None = None
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
        self._was_ready = False
        self.stopping = threading.Event()
        self._calls = Calls(self.connection, self.stopping)

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.alive

    def start(self) -> None:
        """Lay everything out, start the process, wait until every model is loaded.

        Raises:
            UsageError: a port is taken or may not be used.
            ServerUnavailableError: it ended, or was not ready in time.
            StorageFullError: no room for its files.
        """
        sweep()
        check_ports(self.options)
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
        self._process = Process(arguments, self._binary.environment())
        self._log.follow(self._process.output)
        self._calls.open()
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
        return self._calls.call(name, message, timeout_s)

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
        if drain and self.alive and not self._drain():
            # What a dead model had taken is never answered.
            self._say(f"not all requests were finished within {self.options.drain_s:.0f} s")
        self._calls.close()
        if self._process is not None:
            status = self._process.end(kill=not drain)
            self._log.join(5)
            self._process.output.close()
            self._process = None
        if self._folder is not None:
            self._folder.remove()
            self._folder = None
        return status
