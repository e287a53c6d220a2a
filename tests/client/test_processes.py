"""Scorers in children, and those that were pickled."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from giqa.bundle import load_bundle
from giqa.client import AsyncTritonScorer, TritonScorer
from giqa.errors import ServerUnavailableError, UsageError
from giqa.types import Limits
from tests.fakes.clients import QUICK
from tests.fakes.kserve import FakeServer
from tests.fakes.scripts import score_of
from tests.makers import jpeg

FORKING = """
import asyncio, collections, os, sys
from giqa import UsageError
from giqa.client import AsyncTritonScorer, TritonScorer

url, picture = sys.argv[2:]
ended = collections.Counter()

def fork(attempt):
    child = os.fork()
    if not child:
        try:
            attempt()
        except UsageError as e:
            os._exit(0 if "was opened before this process was forked" in str(e) else 2)
        finally:
            os._exit(1)
    ended[os.waitpid(child, 0)[1]] += 1

def synchronously():
    with TritonScorer(url) as scorer:
        def attempt():
            try:
                list(scorer.score([picture]))
            finally:
                scorer.close()
        for _ in range(60):
            (before,) = scorer.score([picture])
            fork(attempt)
            (after,) = scorer.score([picture])
            assert after.score == before.score

async def asynchronously():
    async with AsyncTritonScorer(url, transport="stream") as scorer:
        async def everything():
            try:
                [row async for row in scorer.score([picture])]
            finally:
                await scorer.close()
        def attempt():  # the parent's loop runs here, too
            asyncio._set_running_loop(None)
            asyncio.run(everything())
        for _ in range(30):
            (before,) = [row async for row in scorer.score([picture])]
            fork(attempt)
            (after,) = [row async for row in scorer.score([picture])]
            assert after.score == before.score

synchronously() if sys.argv[1] == "sync" else asyncio.run(asynchronously())
print(dict(ended))
"""


@pytest.mark.parametrize(("way", "expected"), [("sync", "{0: 60}"), ("async", "{0: 30}")])
def test_forked_children_are_told_at_once(
    server: FakeServer, images: list[bytes], tmp_path: Path, way: str, expected: str
) -> None:
    """In a process of its own, as the server's threads here are gRPC's too."""
    picture = tmp_path / "one.jpg"
    picture.write_bytes(images[0])
    env = {k: v for k, v in os.environ.items() if k != "GRPC_ENABLE_FORK_SUPPORT"}
    ran = subprocess.run(
        [sys.executable, "-c", FORKING, way, server.url, str(picture)],
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
    )
    assert ran.stdout.strip() == expected, ran.stderr


def test_a_scorer_can_be_pickled(server: FakeServer, images: list[bytes]) -> None:
    with (
        TritonScorer(server.url, batch=2, retry=QUICK, limits=Limits(max_pixels=5000)) as scorer,
        pickle.loads(pickle.dumps(scorer)) as again,
    ):
        for one in (scorer, again):
            found = [r.score for r in one.score(images[:3])]
            assert found == pytest.approx([score_of(i) for i in images[:3]])
            (large,) = one.score(jpeg(100, 100))
            assert large.error.code == "too_many_pixels"


def test_a_scorer_is_unpickled_without_its_server(images: list[bytes]) -> None:
    """An error while a worker unpickles its task would end the pool, or hang it."""
    with FakeServer(bundle=load_bundle()) as server, TritonScorer(server.url) as scorer:
        pickled = pickle.dumps(scorer)
    with pickle.loads(pickled) as again:
        for _ in range(2):
            with pytest.raises(ServerUnavailableError):
                list(again.score(images[:1]))
    assert pickle.loads(pickle.dumps(again)).manifest == again.manifest


def test_an_asynchronous_scorer_can_be_pickled(server: FakeServer, images: list[bytes]) -> None:
    """Opened or not: what comes out is to be opened."""

    async def scores(scorer: AsyncTritonScorer) -> list[float]:
        async with scorer:
            again = pickle.loads(pickle.dumps(scorer))
            found = [row.score async for row in scorer.score(images[:3])]
            if scorer is first:
                assert await scores(again) == found
            return found

    first = AsyncTritonScorer(server.url, batch=2, retry=QUICK)
    again = pickle.loads(pickle.dumps(first))
    expected = pytest.approx([score_of(i) for i in images[:3]])
    assert asyncio.run(scores(first)) == expected
    assert asyncio.run(scores(again)) == expected


def test_a_scorer_belongs_to_its_event_loop(server: FakeServer, images: list[bytes]) -> None:
    scorer = AsyncTritonScorer(server.url, retry=QUICK)

    async def rows() -> list[float]:
        return [row.score async for row in scorer.score(images[:1])]

    async def opened_twice() -> None:
        async with scorer:
            with pytest.raises(UsageError, match="is open"):
                await scorer.open()

    asyncio.run(opened_twice())
    asyncio.run(opened_twice())  # opened again, where it was closed

    loop = asyncio.new_event_loop()
    loop.run_until_complete(scorer.open())
    for attempt in (rows, scorer.close):
        with pytest.raises(UsageError, match="another event loop"):
            asyncio.run(attempt())
    assert loop.run_until_complete(rows()) == pytest.approx([score_of(images[0])])
    loop.run_until_complete(scorer.close())
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_at_a_bad_moment_leaves_no_lock() -> None:
    script = """
import os, signal
from giqa.client import _sync

with _sync._lock:  # as another thread of the parent may hold it
    child = os.fork()
    if not child:
        signal.alarm(20)
        _sync._loop().call_soon_threadsafe(os._exit, 7)
        signal.pause()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
