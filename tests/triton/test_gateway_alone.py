"""A gateway with nothing behind it: what listens, TLS, and a supervisor's ways with it."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from giqa.bundle import Bundle
from giqa.errors import GiqaError, UsageError
from giqa.kserve import Connection, messages, service_stub, to_error
from giqa.serving import Backend, GatewayOptions, GatewayProcess
from tests.ports import free_port

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


@pytest.fixture
def plain(bundle: Bundle, tmp_path: Path) -> GatewayOptions:
    return GatewayOptions(
        port=free_port(),
        http_port=free_port(),
        socket=str(tmp_path / "gateway"),
        backends=(Backend(target=f"unix:{tmp_path}/nobody", bundle=str(bundle.folder)),),
        admin_key="key",
    )


@contextmanager
def started(options: GatewayOptions) -> Iterator[tuple[GatewayProcess, list[str]]]:
    said: list[str] = []
    gateway = GatewayProcess(options, said.append)
    try:
        gateway.start()
        yield gateway, said
    finally:
        gateway.stop(0)


def health(options: GatewayOptions, **tls: Any) -> bytes:
    connection = Connection(host=options.address, port=options.port, tls=bool(tls), **tls)
    with connection.channel() as channel:
        found: bytes = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20)
        return found


def test_its_life(plain: GatewayOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("giqa.serving._gateway_process._ANSWER_S", 3.0)
    with started(plain) as (gateway, said):
        assert health(plain) == SERVING
        gateway.tell(ready=False)
        end = time.monotonic() + 20
        while health(plain) == SERVING:
            assert time.monotonic() < end
        assert not gateway.look()
        # What is behind it is not there: that is said, and ends nothing.
        with Connection(host="127.0.0.1", port=plain.port).channel() as channel:
            with pytest.raises(grpc.RpcError) as e:
                service_stub(channel).ServerMetadata(messages().ServerMetadataRequest(), timeout=20)
            assert to_error(e.value.code().name, e.value.details()).code == "server_unavailable"
        assert gateway.pid is not None
        os.kill(gateway.pid, signal.SIGKILL)
        while not gateway.look():
            time.sleep(0.1)
        assert any("anew" in line for line in said)
        assert health(plain) == NOT_SERVING  # it was told so before
        # One that stands still is killed: two looks without an answer.
        os.kill(gateway.pid, signal.SIGSTOP)
        looks = [gateway.look(), gateway.look()]
        assert looks == [False, True]
        assert health(plain) == NOT_SERVING


def test_signals_of_a_terminal_are_its_supervisors(plain: GatewayOptions) -> None:
    with started(plain) as (gateway, _):
        assert gateway.pid is not None
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(gateway.pid, number)
        time.sleep(0.5)
        assert health(plain) == SERVING
        gateway.stop(5)
        with pytest.raises(grpc.RpcError):
            health(plain)


@pytest.mark.parametrize("which", ["port", "http_port"])
def test_a_taken_port_is_told(which: str, plain: GatewayOptions) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = replace(plain, **{which: taken.getsockname()[1]})
        with pytest.raises(UsageError, match=str(taken.getsockname()[1])):
            GatewayProcess(options, print)


def test_a_file_of_tokens_that_is_none(plain: GatewayOptions, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("two words")
    with pytest.raises(GiqaError, match="tokens"):  # before any server is started for it
        GatewayProcess(replace(plain, token_file=str(tmp_path / "tokens")), print)


def test_tls_on_both_ports(plain: GatewayOptions, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    options = replace(plain, tls_cert=str(cert), tls_key=str(key))
    with started(options):
        assert health(options, ca=cert, server_name="localhost") == SERVING
        with pytest.raises(grpc.RpcError):
            health(options)
        context = ssl.create_default_context(cafile=str(cert))
        url = f"https://localhost:{options.http_port}/live"
        with urllib.request.urlopen(url, timeout=20, context=context) as response:
            assert response.read() == b"live\n"
        with pytest.raises(OSError, match="."):
            urllib.request.urlopen(f"http://localhost:{options.http_port}/live", timeout=20)


def test_clients_are_certified(plain: GatewayOptions, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    options = replace(plain, tls_cert=str(cert), tls_key=str(key), tls_client_ca=str(cert))
    with started(options):
        trust = {"ca": cert, "server_name": "localhost"}
        assert health(options, **trust, cert=cert, key=key) == SERVING
        with pytest.raises(grpc.RpcError):
            health(options, **trust)
        context = ssl.create_default_context(cafile=str(cert))
        url = f"https://localhost:{options.http_port}/live"
        with pytest.raises(OSError, match="."):
            urllib.request.urlopen(url, timeout=20, context=context)
        context.load_cert_chain(cert, key)
        with urllib.request.urlopen(url, timeout=20, context=context) as response:
            assert response.status == 200


def test_secrets_are_not_shown(plain: GatewayOptions) -> None:
    assert "sesame" not in repr(replace(plain, admin_key="sesame"))


def test_options_cross_the_pipe_as_they_are(plain: GatewayOptions) -> None:
    assert GatewayOptions.of_json(plain.to_json()) == plain
    assert "\n" not in plain.to_json()
