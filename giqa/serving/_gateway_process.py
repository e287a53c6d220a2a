"""The gateway's process, as its supervisor sees it: started, told things, drained."""

from __future__ import annotations

import contextlib
import json
import selectors
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from giqa import forks
from giqa.errors import ServerUnavailableError, UsageError
from giqa.kserve import Connection, import_grpc
from giqa.serving._gateway_grpc import TELL
from giqa.serving._gateway_options import Backend, GatewayOptions
from giqa.serving._http import listen
from giqa.serving._tokens import Tokens

_START_S = 60.0
_ANSWER_S = 10.0


class GatewayProcess:
    """One gateway, which outlives the servers behind it.

    Args:
        options: how it listens.
        say: takes lines for the log.

    Raises:
        UsageError: a port is taken or may not be used.
    """

    def __init__(self, options: GatewayOptions, say: Callable[[str], None]) -> None:
        self.options, self._say = options, say
        if options.token_file is not None:
            Tokens(Path(options.token_file))
        if options.tls_cert is not None:
            _check_pem(options)
        for option, port in (("--port", options.port), ("--http-port", options.http_port)):
            if port is not None:
                listen(options.address, port, option).close()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Any = None
        self._ready = True
        self._late = 0

    @property
    def url(self) -> str:
        """Its address as users write it."""
        return Connection(
            host=self.options.address,
            port=self.options.port,
            tls=self.options.tls_cert is not None,
        ).url

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            UsageError: it cannot listen.
            ServerUnavailableError: it ended, or does not listen in time.
        """
        self.stop(0)
        Path(self.options.socket).unlink(missing_ok=True)
        # Options come through a pipe: there are secrets among them, and `ps` shows arguments.
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "giqa.serving._gateway_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stderr is not None
        thread = threading.Thread(target=self._log, args=(process.stderr,), daemon=True)
        thread.start()
        self._write(self.options.to_json())
        said = self._first_line(process)
        if said.startswith("failed "):
            raise UsageError(said.removeprefix("failed ").strip(), item="--port", remedy="")
        if said != "ready\n":
            raise ServerUnavailableError("the gateway did not start", item=self.url, remedy="")
        forks.use_runtime(forks.GRPC)
        channel = import_grpc().insecure_channel(f"unix:{self.options.socket}")
        self._channel = forks.keep(channel)
        self._late = 0
        self.tell(ready=self._ready)

    def _first_line(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        end = time.monotonic() + _START_S
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not selector.select(0.2):
                if time.monotonic() > end:
                    return ""
        return process.stdout.readline().decode()

    def look(self) -> bool:
        """Start it again if it is gone or stands still.

        Returns:
            Whether it was started.

        Raises:
            GiqaError: it does not start.
        """
        why = "" if self._process is None or self._process.poll() is None else "it ended"
        if not why and self._channel is not None:
            try:
                self._channel.unary_unary(TELL)(b"", timeout=_ANSWER_S)
                self._late = 0
            except import_grpc().RpcError as e:
                self._late += 1
                why = f"it does not answer: {e.code().name}" if self._late >= 2 else ""
        if not why:
            return False
        self._say(f"starting the gateway anew: {why}")
        self.start()
        return True

    def tell(self, **command: object) -> None:
        """Tell it something; one that is gone is found by `look`."""
        if "ready" in command:
            self._ready = bool(command["ready"])
        self._write(json.dumps(command))

    def tell_backends(self, backends: Sequence[Backend]) -> None:
        """Have it serve other backends, from when this returns.

        Raises:
            ServerUnavailableError: it does not say that it does.
        """
        self.options = replace(self.options, backends=tuple(backends))
        if self._process is None:
            return
        self.tell(backends=[asdict(backend) for backend in backends])
        if self._first_line(self._process) != "served\n":
            raise ServerUnavailableError("the gateway did not take it", item=self.url, remedy="")

    def stop(self, drain_s: float) -> None:
        """Have it refuse what is new, finish what is under way, and end.

        Args:
            drain_s: longest wait for that in seconds; 0: kill it.
        """
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is None:
            return
        if drain_s > 0 and self._process.poll() is None:
            self._write(json.dumps({"drain_s": drain_s}))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(drain_s + 10)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process = None

    def _write(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _log(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                with contextlib.suppress(OSError):
                    self._say(f"gateway: {line.decode('utf-8', 'replace').rstrip()}")


def _check_pem(options: GatewayOptions) -> None:
    """What TLS needs, before a server is started for it."""
    assert options.tls_cert is not None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # No password: whoever starts it may have no terminal.
        context.load_cert_chain(options.tls_cert, options.tls_key, password=lambda: "")
        if options.tls_client_ca is not None:
            context.load_verify_locations(options.tls_client_ca)
    except OSError as e:
        item = "--tls-cert, --tls-key, --tls-client-ca"
        raise UsageError(f"cannot be used: {e}", item=item, remedy="give PEM files") from e
