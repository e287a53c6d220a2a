"""Closing ends what is under way; so does a consumer that stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from giqa.bundle import Bundle
from giqa.client import TritonScorer
from giqa.errors import GiqaError
from tests.fakes.clients import WAYS, after, connect, every_way, items
from tests.fakes.kserve import FakeServer


def close_in_mid_run(
    scorer: TritonScorer, images: Sequence[bytes], is_time: Callable[[], bool]
) -> object:
    """Close from another thread; how the consumer's loop ended: its codes or an exception."""
    ended: list[object] = []

    def consume() -> None:
        try:
            rows = list(scorer.score(items(images)))
            ended.append({row.error.code for row in rows if row.error is not None})
        except BaseException as e:
            ended.append(e)

    consumer = threading.Thread(target=consume)
    consumer.start()
    latest = time.monotonic() + 5
    while not is_time() and time.monotonic() < latest:
        time.sleep(0.01)
    start = time.monotonic()
    scorer.close()
    consumer.join(5)
    assert time.monotonic() - start < 3
    (how,) = ended
    return how


@pytest.mark.parametrize("count", [14, 18, 64], ids=["all sent", "all read", "some unread"])
@pytest.mark.parametrize("way", ["unary", "stream", "shared", "shared-stream"])
def test_close_ends_what_is_under_way(
    server: FakeServer,
    bundle: Bundle,
    images: list[bytes],
    regions: list[str],
    way: str,
    count: int,
) -> None:
    server.fault(never=True, when=after(10))
    scorer = connect(server, bundle, in_flight=4, deadline_s=20, **WAYS[way])
    how = close_in_mid_run(scorer, images[:count], lambda: len(server.infers()) >= 14)
    assert isinstance(how, GiqaError) or how == {"server_unavailable"}, repr(how)


def test_close_while_memory_is_being_registered(
    server: FakeServer, bundle: Bundle, images: list[bytes], regions: list[str]
) -> None:
    server.fault(rpc="SystemSharedMemoryRegister", never=True)
    scorer = connect(server, bundle, in_flight=4, deadline_s=20, shared_memory=True)
    how = close_in_mid_run(scorer, images[:4], lambda: len(regions) >= 4)
    assert isinstance(how, GiqaError) or how == {"server_unavailable"}, repr(how)


@every_way
def test_a_consumer_that_stops_early(
    server: FakeServer, bundle: Bundle, images: list[bytes], regions: list[str], way: str
) -> None:
    server.fault(never=True, when=after(3))
    start = time.monotonic()
    with connect(server, bundle, in_flight=2, deadline_s=20, **WAYS[way]) as scorer:
        for row in scorer.score(items(images)):
            assert row.error is None
            break
    assert time.monotonic() - start < 5
