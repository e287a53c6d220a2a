"""Closing ends what is under way; so does a consumer that stops."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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


ENDING = """
import os, signal, sys, threading
from giqa import TritonScorer
from giqa.errors import ServerUnavailableError

way, url, *pictures = sys.argv[1:]
if way == "interrupted":
    threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    scorer = TritonScorer(url, deadline_s=60)
    for row in scorer.score(pictures):
        print(row.error)
        if way == "stopped":
            break
    if way == "closed":
        scorer.close()
        scorer.close()
        for _ in scorer.score(pictures):
            pass
except KeyboardInterrupt:
    print("interrupted")
except ServerUnavailableError as e:
    print(e.message)
"""


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("left", "None\nNone"),
        ("stopped", "None"),
        ("closed", "None\nNone\nis not open"),
        ("interrupted", "interrupted"),
    ],
)
def test_a_process_ends_whatever_became_of_its_scorer(
    server: FakeServer, images: list[bytes], tmp_path: Path, way: str, said: str
) -> None:
    """Not closed, closed twice, or interrupted while it connects: at once, and quietly."""
    pictures = []
    for i, image in enumerate(images[:2]):
        pictures.append(tmp_path / f"{i}.jpg")
        pictures[i].write_bytes(image)
    if way == "interrupted":
        server.fault(rpc="ModelConfig", never=True)
    ran = subprocess.run(
        [sys.executable, "-c", ENDING, way, server.url, *map(str, pictures)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ran.stdout.strip(), ran.stderr, ran.returncode) == (said, "", 0)


def test_scorers_of_several_threads_are_quiet(
    server: FakeServer, bundle: Bundle, images: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Each has an event loop, which gRPC wakes together."""
    found: list[int] = []

    def work() -> None:
        with connect(server, bundle, in_flight=4) as scorer:
            found.append(sum(row.error is None for row in scorer.score(items(images))))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [len(images)] * 4
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
