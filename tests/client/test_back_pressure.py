"""No more is read or sent than was said."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from giqa.bundle import Bundle
from giqa.client import Retry
from giqa.types import Item
from tests.fakes.clients import WAYS, assert_right, connect, each_transport, every_way, items
from tests.fakes.kserve import FakeServer
from tests.fakes.scripts import QUEUE_FULL, Status


@pytest.mark.parametrize("in_flight", [1, 4])
@every_way
def test_no_more_is_read_or_sent_than_needed(
    server: FakeServer, bundle: Bundle, images: list[bytes], way: str, in_flight: int
) -> None:
    server.fault(delay_s=0.005)
    batch = WAYS[way].get("batch", 1)
    pulled = 0

    def source() -> Iterator[Item]:
        nonlocal pulled
        for item in items(images):
            pulled += 1
            yield item

    with connect(server, bundle, in_flight=in_flight, **WAYS[way]) as scorer:
        rows = []
        for row in scorer.score(source()):
            rows.append(row)
            # Twice `in_flight` requests, and the one that is being put together.
            assert pulled <= len(rows) + 2 * in_flight * batch + batch
            if len(rows) in (1, 20):
                time.sleep(0.05)  # a slow consumer: nothing more may be read meanwhile
    assert_right(rows, images)
    assert server.most_in_flight <= in_flight
    if batch == 1:
        assert server.most_in_flight == in_flight


@each_transport
def test_retries_do_not_send_more_at_once(
    server: FakeServer, bundle: Bundle, images: list[bytes], transport: str
) -> None:
    server.fault(delay_s=0.005, status=Status.UNAVAILABLE, message=QUEUE_FULL, times=20)
    retry = Retry(attempts=40, base_s=0.01, max_s=0.02)
    with connect(server, bundle, in_flight=4, retry=retry, transport=transport) as scorer:
        assert_right(list(scorer.score(items(images))), images)
    assert server.most_in_flight <= 4
