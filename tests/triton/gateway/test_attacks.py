"""What is sent to do harm: each gets its answer, and nobody else feels it."""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import grpc
import psutil
import pytest

from giqa.contract import GIQA, SCORE
from giqa.kserve import SERVICE, messages, service_stub
from tests.triton.conftest import Served
from tests.triton.gateway.asking import IMG, ask, image

MIB = 2**20


def gateway(served: Served) -> psutil.Process:
    children = psutil.Process(served.process.pid).children(recursive=True)
    (found,) = [p for p in children if any("_gateway_main" in part for part in p.cmdline())]
    return found


def raw(served: Served, name: str, data: bytes, metadata: Any) -> tuple[Any, str]:
    with served.connection.channel() as channel:
        method = channel.unary_unary(f"/{SERVICE}/{name}")
        with pytest.raises(grpc.RpcError) as e:
            method(data, timeout=60, metadata=metadata)
    return e.value.code(), e.value.details()


@pytest.mark.parametrize(
    "part",
    [
        b"\x2a\x00",  # an input without anything
        b"\x32\x00",  # an output
        b"\x22\x04\x0a\x02ab",  # a parameter
        b"\xfa\x7f\x00",  # of a field that there is not
        b"\x3a\x00",  # contents
        b"\x0a\x80\x80\x80\x05" + bytes(10 * MIB),  # a name
    ],
    ids=["inputs", "outputs", "parameters", "unknown", "contents", "name"],
)
def test_small_parts_do_not_become_large(part: bytes, served: Served, fine: None) -> None:
    """30 MB of empty inputs took 1.5 GB, and all others' time, to be read."""
    before = gateway(served).memory_info().rss
    data = image().SerializeToString() + part * (30 * MIB // len(part))
    code, told = raw(served, "ModelInfer", data, served.connection.metadata)
    assert (code, told[:17]) == (grpc.StatusCode.INVALID_ARGUMENT, "[shape_mismatch] ")
    assert gateway(served).memory_info().rss - before < 200 * MIB


@pytest.mark.parametrize("name", ["ModelReady", "ModelMetadata", "ModelConfig"])
def test_a_question_is_short(name: str, served: Served, fine: None) -> None:
    data = getattr(messages(), f"{name}Request")(name="a" * (80 * MIB)).SerializeToString()
    code, told = raw(served, name, data, served.connection.metadata)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "bytes of" in told


def test_tensors_as_lists_are_the_same_picture(served: Served) -> None:
    message = image()
    del message.raw_input_contents[:]
    message.inputs[0].contents.uint_contents.extend(IMG)
    wanted = ask(served.connection, "ModelInfer", image()).raw_output_contents
    assert ask(served.connection, "ModelInfer", message).raw_output_contents == wanted
    message.inputs[0].contents.uint_contents[0] = 256
    code, _ = raw(served, "ModelInfer", message.SerializeToString(), served.connection.metadata)
    assert code == grpc.StatusCode.INVALID_ARGUMENT


def test_who_says_nothing_holds_nobody_up(served: Served, fine: None) -> None:
    """Calls without a token that begin and go no further took all places of readers."""
    held: queue.Queue[bytes] = queue.Queue()
    with served.connection.channel() as channel:
        method = channel.stream_unary(f"/{SERVICE}/ModelReady")
        silent = [method.future(iter(held.get, None)) for _ in range(100)]
        time.sleep(1)
        with served.connection.channel() as other:
            message = image()
            metadata = served.connection.metadata
            assert service_stub(other).ModelInfer(message, timeout=15, metadata=metadata).outputs
            ready = messages().ServerReadyRequest()
            assert service_stub(other).ServerReady(ready, timeout=5).ready
        for call in silent:
            call.cancel()
        for _ in silent:
            held.put(None)  # type: ignore[arg-type]


def test_streams_leave_places_for_others(served: Served, fine: None) -> None:
    metadata = served.connection.metadata
    held: queue.Queue[Any] = queue.Queue()
    with ExitStack() as stack:
        calls = []
        for _ in range(5):
            channel = stack.enter_context(served.connection.channel())
            stub = service_stub(channel)
            calls += [
                stub.ModelStreamInfer(iter(held.get, None), metadata=metadata) for _ in range(250)
            ]
        time.sleep(3)
        assert ask(served.connection, "ModelInfer", image()).outputs
        with served.connection.channel() as other:
            more = service_stub(other).ModelStreamInfer(iter([image()]), metadata=metadata)
            with pytest.raises(grpc.RpcError, match="streams are open"):
                next(more)
        for call in calls:
            call.cancel()
        for _ in calls:
            held.put(None)


def test_a_token_that_is_taken_away_ends_in_open_streams(served: Served) -> None:
    before = served.tokens.read_text()
    guest = replace(served.connection, token="of-a-guest")
    served.tokens.write_text(before + '\n[tokens.guest]\ntoken = "of-a-guest"\n')
    sent: queue.Queue[Any] = queue.Queue()
    try:
        time.sleep(1.5)
        with guest.channel() as channel:
            call = service_stub(channel).ModelStreamInfer(
                iter(sent.get, None), metadata=guest.metadata
            )
            sent.put(image())
            assert next(call).infer_response.outputs[0].name == SCORE
            served.tokens.write_text(before)
            time.sleep(1.5)
            sent.put(image())
            assert next(call).error_message.startswith("[server_refused]")
            sent.put(None)
    finally:
        served.tokens.write_text(before)


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)


LENGTH, CHUNKS = b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n"
AMBIGUOUS = {
    "length and chunks": (b"1.1", LENGTH + CHUNKS, chunked(IMG)),
    "chunks and length": (b"1.1", CHUNKS + LENGTH, chunked(IMG)),
    "two lengths": (b"1.1", LENGTH + LENGTH.replace(b"4", b"5"), b"12345"),
    "a signed length": (b"1.1", LENGTH.replace(b"4", b"+4"), b"1234"),
    "a length below none": (b"1.1", LENGTH.replace(b"4", b"-4"), b"1234"),
    "another coding": (b"1.1", CHUNKS.replace(b"chunked", b"xchunked"), chunked(IMG)),
    "two codings": (b"1.1", CHUNKS + CHUNKS, chunked(IMG)),
    "a space before the colon": (b"1.1", CHUNKS.replace(b":", b" :"), chunked(IMG)),
    "chunks in 1.0": (b"1.0", CHUNKS, chunked(IMG)),
    "a chunk below none": (b"1.1", CHUNKS, b"-5\r\nhello\r\n0\r\n\r\n"),
    "a chunk in C": (b"1.1", CHUNKS, b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk that is longer": (b"1.1", CHUNKS, b"3\r\nhello\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_no_request_in_another(case: str, served: Served, fine: None) -> None:
    """Whatever a proxy takes for a request's end, what follows is answered to nobody."""
    version, headers, body = AMBIGUOUS[case]
    who = f"Host: x\r\nAuthorization: Bearer {served.TEAM}\r\n".encode()
    smuggled = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.http), timeout=20) as connection:
        connection.sendall(
            b"POST /score HTTP/%b\r\n%b%b\r\n%b" % (version, who, headers, body) + smuggled
        )
        answer = b"".join(received(connection))  # until it is closed
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def received(connection: socket.socket) -> Iterator[bytes]:
    while data := connection.recv(65536):
        yield data


@pytest.mark.slow
@pytest.mark.parametrize("port", ["http", "watch"])
def test_slow_headers_are_not_waited_for(port: str, served: Served, fine: None) -> None:
    address = ("127.0.0.1", getattr(served, port))
    with socket.create_connection(address, timeout=30) as connection:
        started = time.monotonic()
        try:
            for byte in b"GET /live HTTP/1.1\r\n" + b"a: b\r\n" * 100:
                connection.sendall(bytes([byte]))
                time.sleep(0.1)
                assert time.monotonic() - started < 40
        except OSError:
            return  # it was cut
        assert connection.recv(1) == b""


def test_the_same_field_twice_is_the_last_one_for_all(served: Served, fine: None) -> None:
    """What was checked is what Triton reads: a message may name its model twice."""
    inner = messages().ModelInferRequest(model_name="fusion").SerializeToString()
    code, _ = raw(
        served, "ModelInfer", image().SerializeToString() + inner, served.connection.metadata
    )
    assert code == grpc.StatusCode.NOT_FOUND
    outer = messages().ModelInferRequest(model_name=GIQA).SerializeToString()
    message = image(model="fusion").SerializeToString() + outer
    with served.connection.channel() as channel:
        method = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        answer = method(message, timeout=60, metadata=served.connection.metadata)
    found = messages().ModelInferResponse.FromString(answer)
    assert (found.model_name, found.outputs[0].name) == (GIQA, SCORE)
