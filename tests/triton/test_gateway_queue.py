"""A gateway before a server that stands still: how many bytes wait, and who is refused."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from giqa.bundle import Bundle
from giqa.contract import GIQA, IMAGE, SCORE
from giqa.kserve import Connection, Tensor, messages, request, service_stub
from giqa.serving import Backend, GatewayOptions, GatewayProcess
from tests.makers import jpeg
from tests.ports import free_port

LINE = 8
"""Requests may be held whose bytes are so many times those that the server has."""


@dataclass
class Still:
    """A server that keeps what it is asked until it is let go.

    Attributes:
        go: lets it answer.
        sizes: bytes of the requests that it has.
        most: the most that it had at the same time.
    """

    go: threading.Event = field(default_factory=threading.Event)
    sizes: list[int] = field(default_factory=list)
    most: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def infer(self, raw: bytes, _: Any) -> bytes:
        with self._lock:
            self.sizes.append(len(raw))
            self.most = max(self.most, sum(self.sizes))
        self.go.wait(60)
        with self._lock:
            self.sizes.remove(len(raw))
        return bytes(messages().ModelInferResponse(model_name=GIQA).SerializeToString())


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Still]:
    found = Still()
    server = grpc.server(ThreadPoolExecutor(32))
    handler = grpc.unary_unary_rpc_method_handler(found.infer)
    service = grpc.method_handlers_generic_handler(
        "inference.GRPCInferenceService", {"ModelInfer": handler}
    )
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"unix:{tmp_path}/still")
    server.start()
    yield found
    found.go.set()
    server.stop(None).wait()


def test_bytes_that_wait_are_bounded(still: Still, bundle: Bundle, tmp_path: Path) -> None:
    data = jpeg(100, 100) + bytes(50_000)
    message = request(GIQA, {IMAGE: Tensor("UINT8", (1, len(data)), data)}, [SCORE])
    size = len(message.SerializeToString())
    options = GatewayOptions(
        port=free_port(),
        socket=str(tmp_path / "gateway"),
        backends=(Backend(target=f"unix:{tmp_path}/still", bundle=str(bundle.folder)),),
        admin_key="key",
        in_flight_bytes=2 * size + 200,  # the gateway says a little more itself
        patience_s=60,
    )
    gateway = GatewayProcess(options, print)
    gateway.start()
    try:
        with Connection(host="127.0.0.1", port=options.port).channel() as channel:
            ask = service_stub(channel).ModelInfer
            calls = [ask.future(message, timeout=120) for _ in range(3 * LINE)]
            end = time.monotonic() + 60
            while (
                sum(call.done() for call in calls) < LINE or len(still.sizes) < 2
            ) and time.monotonic() < end:
                time.sleep(0.05)
            refused = [call for call in calls if call.done()]
            assert len(refused) == LINE  # the others are held, two of them by the server
            for call in refused:
                assert "[overloaded] too many bytes wait" in call.details()
            still.go.set()
            for call in set(calls) - set(refused):
                assert call.result().model_name == GIQA
            assert 2 * size <= still.most <= options.in_flight_bytes
            # What was answered is held no more.
            assert ask(message, timeout=60).model_name == GIQA
    finally:
        still.go.set()
        gateway.stop(0)


def test_large_pictures_go_in_one_after_the_other(
    still: Still, bundle: Bundle, tmp_path: Path
) -> None:
    """Their bytes are few, what they are decoded to is bounded; small ones pass them by."""
    file = io.BytesIO()
    Image.new("L", (9000, 9000), 128).save(file, "PNG")
    large, small = (
        request(GIQA, {IMAGE: Tensor("UINT8", (1, len(data)), data)}, [SCORE])
        for data in (file.getvalue(), jpeg(100, 100))
    )
    options = GatewayOptions(
        port=free_port(),
        socket=str(tmp_path / "gateway"),
        backends=(Backend(target=f"unix:{tmp_path}/still", bundle=str(bundle.folder)),),
        admin_key="key",
        decoded_bytes=100_000_000,
    )
    gateway = GatewayProcess(options, print)
    gateway.start()
    try:
        with Connection(host="127.0.0.1", port=options.port).channel() as channel:
            ask = service_stub(channel).ModelInfer
            calls = [ask.future(one, timeout=120) for one in (large, large, large, small, small)]
            end = time.monotonic() + 60
            while len(still.sizes) < 3 and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(0.5)
            assert sum(size > 10_000 for size in still.sizes) == 1
            assert len(still.sizes) == 3
            still.go.set()
            assert [call.result().model_name for call in calls] == [GIQA] * 5
    finally:
        still.go.set()
        gateway.stop(0)
