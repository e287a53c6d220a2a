"""Shared memory is bounded, survives the server's forgetting it, and none is left."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Any

import pytest

from giqa.bundle import Bundle
from giqa.client._shared_memory import Regions
from giqa.kserve import Tensor
from tests.fakes.clients import QUICK, WAYS, after, assert_right, connect, items, shared_ways
from tests.fakes.kserve import FakeServer
from tests.fakes.scripts import Status


@shared_ways
def test_inputs_lie_in_shared_memory_and_nothing_is_left(
    server: FakeServer, bundle: Bundle, images: list[bytes], regions: list[str], way: str
) -> None:
    with connect(server, bundle, in_flight=4, **WAYS[way]) as scorer:
        assert_right(list(scorer.score(items(images))), images)
        assert all(seen.shared for seen in server.infers())
        # The names are gone as soon as the server has the memory: a crash leaves nothing.
        assert [name for name in regions if Path("/dev/shm", name).exists()] == []
    assert sorted(server.keys) == sorted(f"/{name}" for name in regions)
    assert 0 < server.most_regions <= 4
    assert server.regions == {}


@shared_ways
@pytest.mark.parametrize("when", [0, 1, 30])
def test_a_server_that_forgets_its_regions(
    server: FakeServer,
    bundle: Bundle,
    images: list[bytes],
    regions: list[str],
    way: str,
    when: int,
) -> None:
    server.fault(before=server.forget, times=1, when=after(when))
    with connect(server, bundle, **WAYS[way]) as scorer:
        assert_right(list(scorer.score(items(images))), images)
        server.forget()
        assert_right(list(scorer.score(items(images))), images)
    assert server.regions == {}


def test_a_region_in_use_while_a_server_forgot_is_replaced(regions: list[str]) -> None:
    """Its answer came from before the restart; used again, it would cost an image an attempt."""
    inputs = {"INPUT": Tensor("UINT8", (4,), b"1234")}
    pool = Regions()
    first, second = pool.take(inputs)[0], pool.take(inputs)[0]
    assert pool.forget(first) == [first]
    pool.give(second)
    third, replaced = pool.take(inputs)
    assert third not in (first, second)
    assert replaced is second
    pool.give(third)
    assert pool.take(inputs) == (third, None)
    for region in (first, second, *pool.drain()):
        region.close()


@shared_ways
def test_many_forgotten_regions_do_not_use_up_an_images_attempts(
    server: FakeServer, bundle: Bundle, images: list[bytes], regions: list[str], way: str
) -> None:
    server.fault(delay_s=0.05, times=16)
    with connect(server, bundle, in_flight=16, **WAYS[way]) as scorer:
        assert_right(list(scorer.score(items(images[:32]))), images[:32])
        assert server.most_regions > QUICK.attempts
        server.forget()
        assert_right(list(scorer.score(items(images[:1]))), images[:1])


@shared_ways
def test_regions_of_a_client_that_died(
    server: FakeServer,
    bundle: Bundle,
    images: list[bytes],
    regions: list[str],
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A process number comes again; in containers it is 1 each time.
    for i in range(16):
        server.regions[f"giqa-{os.getpid()}-{i}"] = mmap.mmap(-1, 4096)
    with connect(server, bundle, in_flight=2, **WAYS[way]) as scorer:
        assert_right(list(scorer.score(items(images[:8]))), images[:8])


@shared_ways
def test_memory_is_bounded_whatever_the_order_of_sizes(
    server: FakeServer, bundle: Bundle, images: list[bytes], regions: list[str], way: str
) -> None:
    # Each fits none of the regions before it.
    growing = [images[i] + bytes(i << 20) for i in range(1, 8)]
    with connect(server, bundle, in_flight=2, **WAYS[way]) as scorer:
        assert_right(list(scorer.score(items(growing))), growing)
    assert server.most_regions <= 2


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"status": Status.UNAVAILABLE}, "server_unavailable"),
        ({"status": Status.PERMISSION_DENIED}, "server_refused"),
        ({"never": True}, "deadline_exceeded"),
    ],
    ids=["unavailable", "refused", "never"],
)
def test_a_server_that_does_not_register(
    server: FakeServer,
    bundle: Bundle,
    images: list[bytes],
    regions: list[str],
    fault: dict[str, Any],
    code: str,
) -> None:
    server.fault(rpc="SystemSharedMemoryRegister", **fault)
    with connect(server, bundle, shared_memory=True, deadline_s=0.5) as scorer:
        rows = list(scorer.score(images[:3]))
        assert server.infers() == []
    assert {row.error.code for row in rows} == {code}


@shared_ways
def test_a_server_that_is_gone_when_the_client_closes(
    bundle: Bundle, images: list[bytes], regions: list[str], way: str
) -> None:
    server = FakeServer(bundle=bundle)
    with server:
        scorer = connect(server, bundle, in_flight=3, **WAYS[way])
        assert_right(list(scorer.score(items(images))), images)
    start = time.monotonic()
    scorer.close()
    assert time.monotonic() - start < 3
