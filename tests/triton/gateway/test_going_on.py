"""The gateway goes on whatever clients do; probes, metrics and records."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from contextlib import suppress

import grpc
import pytest

from giqa import LocalScorer, TritonScorer
from giqa.client import Retry
from giqa.contract import FUSION, GIQA, GLOBAL_BRANCH
from giqa.errors import ServerRefusedError
from giqa.kserve import service_stub
from tests.makers import jpeg
from tests.triton.conftest import Served
from tests.triton.gateway.asking import IMG, ask, get, image, post, refusal


def test_cancels_and_short_deadlines_end_nothing(served: Served, fine: None) -> None:
    codes: Counter[str] = Counter()

    def hostile(n: int) -> None:
        with served.connection.channel() as channel:
            stub = service_stub(channel)
            for i in range(12):
                message = image()
                if n % 3 == 0:
                    message.parameters["timeout"].int64_param = 1 + 300 * i
                metadata = served.connection.metadata
                call = stub.ModelInfer.future(message, timeout=0.002 * (i + 1), metadata=metadata)
                if n % 2:
                    time.sleep(0.002 * i)
                    call.cancel()
                elif error := call.exception():
                    codes[error.code().name] += 1

    threads = [threading.Thread(target=hostile, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert codes["DEADLINE_EXCEEDED"] > 0
    assert not {"INTERNAL", "UNKNOWN"} & set(codes), codes


@pytest.mark.parametrize("port", ["grpc", "http", "metrics", "watch"])
def test_garbage_and_idle_connections(port: str, served: Served, fine: None) -> None:
    address = ("127.0.0.1", getattr(served, port))
    for junk in (
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(1000),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500,
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50_000,
    ):
        with socket.create_connection(address) as connection:
            connection.sendall(junk[:1000])
            with suppress(OSError):
                connection.sendall(junk[1000:])
    idle = [socket.create_connection(address) for _ in range(300)]
    try:
        if port in ("http", "watch"):
            for _ in range(3):
                assert get(served, port, "/live") == (200, "live\n")
        elif port == "metrics":
            assert get(served, port, "/metrics")[0] == 200
        else:
            assert ask(served.connection, "ModelInfer", image()).outputs
    finally:
        for connection in idle:
            connection.close()


def test_probes(served: Served) -> None:
    for port in ("http", "watch"):
        for path, text in (("/live", "live\n"), ("/ready", "ready\n")):
            assert get(served, port, path) == (200, text)
            assert get(served, port, path, "HEAD") == (200, "")
    with served.connection.channel() as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=10) == b"\x08\x01"  # SERVING


def test_reflection_tells_the_service(served: Served) -> None:
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )

    with served.connection.channel() as channel:
        found = ProtoReflectionDescriptorDatabase(channel)
        assert "inference.GRPCInferenceService" in found.get_services()


def test_metrics_of_triton_and_the_watch(served: Served) -> None:
    assert "nv_inference_count" in get(served, "metrics", "/metrics")[1]
    assert "giqa_canaries_total" in get(served, "watch", "/metrics")[1]


def test_each_request_is_a_line(served: Served) -> None:
    message = image()
    message.id = "of-this-test"
    ask(served.connection, "ModelInfer", message)
    post(served, b"no picture", **{"X-Request-Id": 'evil"\n{}'.replace("\n", " ")})
    rows = [json.loads(line) for line in served.requests.read_text().splitlines()]
    (mine,) = [row for row in rows if row["id"] == "of-this-test"]
    assert set(mine) == {"time", "id", "client", "way", "model", "code", "ms", "bytes"}
    assert (mine["client"], mine["way"], mine["model"], mine["code"]) == (
        "team",
        "grpc",
        GIQA,
        "ok",
    )
    assert mine["bytes"] > len(IMG)
    assert mine["ms"] > 0
    assert (rows[-1]["way"], rows[-1]["code"]) == ("http", "unsupported_format")
    assert "evil" not in rows[-1]["id"]


def test_clients_of_ours_get_their_rows(served: Served, local: LocalScorer) -> None:
    images = [jpeg(300 + i, 200, seed=i) for i in range(6)] + [b"no picture"]
    wanted = [r.error.code if r.error else r.score for r in local.score(images)]
    for way in ({}, {"transport": "stream"}, {"batch": 4}):
        with TritonScorer(served.url, token=served.TEAM, **way) as scorer:
            found = [r.error.code if r.error else r.score for r in scorer.score(images)]
        assert found == wanted
    with pytest.raises(ServerRefusedError):
        TritonScorer(served.url, token="wrong", retry=Retry(attempts=1))
    key = {"token": served.TEAM, "admin_key": served.ADMIN}
    with TritonScorer(served.url, shared_memory=True, **key) as scorer:
        (row,) = scorer.score([IMG])
    assert row.error is not None
    assert row.error.code == "server_refused"


def test_the_graphs_are_not_asked(served: Served) -> None:
    """What NaN tokens would give, nobody outside can ask."""
    for model in (FUSION, GLOBAL_BRANCH):
        code, _ = refusal(served.connection, "ModelInfer", image(model=model))
        assert code == grpc.StatusCode.NOT_FOUND
