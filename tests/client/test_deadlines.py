"""Whoever does not answer costs the deadline, not more."""

from __future__ import annotations

import socket
import time

import pytest

from giqa.bundle import Bundle
from giqa.client import Retry, TritonScorer
from giqa.errors import DeadlineExceededError, ServerUnavailableError
from tests.fakes.clients import (
    GRACE_S,
    QUICK,
    WAYS,
    assert_right,
    connect,
    each_transport,
    every_way,
    items,
    of,
)
from tests.fakes.kserve import FakeServer
from tests.fakes.scripts import QUEUE_FULL, Status
from tests.ports import free_port


@every_way
def test_a_server_that_never_answers_costs_the_deadline(
    server: FakeServer, bundle: Bundle, images: list[bytes], way: str
) -> None:
    some = images[:8]
    server.fault(never=True, when=of(some[3]))
    with connect(server, bundle, deadline_s=0.6, in_flight=8, **WAYS[way]) as scorer:
        start = time.monotonic()
        rows = list(scorer.score(items(some)))
        assert 0.5 < time.monotonic() - start < 1.5
    assert_right(rows, some, *(range(8) if way == "batch" else [3]))
    assert rows[3].error.code == "deadline_exceeded"
    assert server.sent()[some[3]] == 1
    for seen in server.infers():
        assert 0 < seen.timeout_us <= 600_000
        assert seen.stream or 0 < seen.remaining_s <= 0.61 + GRACE_S


@each_transport
def test_attempts_share_one_deadline(
    server: FakeServer, bundle: Bundle, images: list[bytes], transport: str
) -> None:
    server.fault(status=Status.UNAVAILABLE, message=QUEUE_FULL)
    retry = Retry(attempts=100_000, base_s=0.05, max_s=0.05)
    with connect(server, bundle, deadline_s=2.0, retry=retry, transport=transport) as scorer:
        start = time.monotonic()
        (row,) = scorer.score(images[:1])
        assert time.monotonic() - start < 4
    assert row.error.code in ("overloaded", "deadline_exceeded")
    left = [seen.timeout_us for seen in server.infers()]
    assert len(left) > 5
    assert left == sorted(left, reverse=True)
    assert left[0] <= 2_000_000
    assert left[-1] < 1_000_000


@each_transport
def test_a_late_answer_is_nobodys(
    server: FakeServer, bundle: Bundle, images: list[bytes], transport: str
) -> None:
    server.fault(delay_s=0.4, when=of(images[0]))
    with connect(server, bundle, deadline_s=0.2, in_flight=1, transport=transport) as scorer:
        rows = list(scorer.score(items(images[:4])))
        assert_right(rows, images[:4], 0)
        time.sleep(0.4)
        assert_right(list(scorer.score(items(images[:4]))), images[:4], 0)
    assert rows[0].error.code == "deadline_exceeded"


def test_a_server_that_never_says_what_it_serves(server: FakeServer, bundle: Bundle) -> None:
    server.fault(rpc="ModelConfig", never=True)
    start = time.monotonic()
    with pytest.raises((DeadlineExceededError, ServerUnavailableError)):
        connect(server, bundle, deadline_s=0.4)
    assert time.monotonic() - start < 1.5


def test_nobody_listens(bundle: Bundle) -> None:
    start = time.monotonic()
    with pytest.raises(ServerUnavailableError):
        TritonScorer(f"grpc://127.0.0.1:{free_port()}", bundle=bundle, retry=QUICK, deadline_s=5)
    assert time.monotonic() - start < 3


def test_a_port_that_takes_connections_and_says_nothing(bundle: Bundle) -> None:
    # As a firewall that drops packets, or a stopped process.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"grpc://127.0.0.1:{mute.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(ServerUnavailableError):
            TritonScorer(url, bundle=bundle, retry=QUICK, deadline_s=0.5)
        assert time.monotonic() - start < 1.5
