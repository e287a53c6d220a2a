"""Servers and streams that end in mid-run, and come back."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from giqa.bundle import Bundle
from giqa.client import TritonScorer
from tests.fakes.clients import PATIENT, WAYS, after, assert_right, connect, every_way, items, of
from tests.fakes.kserve import FakeServer
from tests.fakes.scripts import Status
from tests.ports import free_port


def _start(port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.kserve", str(port)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("way", ["unary", "shared-stream"])
def test_a_server_killed_in_mid_run_comes_back(
    bundle: Bundle, images: list[bytes], regions: list[str], way: str
) -> None:
    port = free_port()
    process = _start(port)
    rows = []
    try:
        with TritonScorer(
            f"grpc://127.0.0.1:{port}", bundle=bundle, in_flight=8, retry=PATIENT, **WAYS[way]
        ) as scorer:
            for row in scorer.score(items(images)):
                rows.append(row)
                if len(rows) == 16:
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    process = _start(port)
    finally:
        process.kill()
        process.communicate()
    assert_right(rows, images)


@every_way
def test_a_server_started_again_in_mid_run(
    server: FakeServer, bundle: Bundle, images: list[bytes], way: str
) -> None:
    server.fault(delay_s=0.01)
    rows = []
    with connect(server, bundle, in_flight=8, retry=PATIENT, **WAYS[way]) as scorer:
        for row in scorer.score(items(images)):
            rows.append(row)
            if len(rows) == 10:
                server.stop()
                server.start()
    assert_right(rows, images)


@every_way
def test_a_server_that_stays_away(
    server: FakeServer, bundle: Bundle, images: list[bytes], way: str
) -> None:
    with connect(server, bundle, **WAYS[way]) as scorer:
        assert_right(list(scorer.score(items(images[:8]))), images[:8])
        server.stop()
        start = time.monotonic()
        rows = list(scorer.score(items(images[:8])))
        assert time.monotonic() - start < 3
        assert {row.error.code for row in rows} == {"server_unavailable"}
        server.start()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("status", [None, Status.UNAVAILABLE, Status.CANCELLED])
@pytest.mark.parametrize("answers", [0, 1, 20])
def test_a_broken_stream_is_opened_again(
    server: FakeServer,
    bundle: Bundle,
    images: list[bytes],
    answers: int,
    status: Any,
    shared: bool,
) -> None:
    server.fault(end_stream=True, status=status, when=after(answers), times=1)
    with connect(server, bundle, transport="stream", shared_memory=shared) as scorer:
        assert_right(list(scorer.score(items(images))), images)
    assert max(server.sent().values()) <= 2


def test_a_stream_that_ends_again_and_again(
    server: FakeServer, bundle: Bundle, images: list[bytes]
) -> None:
    numbers = itertools.count(1)
    server.fault(end_stream=True, when=lambda seen: next(numbers) % 10 == 0)
    with connect(server, bundle, transport="stream", retry=PATIENT) as scorer:
        assert_right(list(scorer.score(items(images))), images)


@pytest.mark.parametrize("at", [0, 20])
def test_a_stream_error_without_an_id(
    server: FakeServer, bundle: Bundle, images: list[bytes], at: int
) -> None:
    server.fault(status=Status.INTERNAL, anonymous=True, times=1, when=after(at))
    with connect(server, bundle, transport="stream") as scorer:
        assert_right(list(scorer.score(items(images))), images)


def test_stream_errors_without_an_id_for_one_image_are_bounded(
    server: FakeServer, bundle: Bundle, images: list[bytes]
) -> None:
    server.fault(status=Status.INTERNAL, anonymous=True, when=of(images[3]))
    with connect(server, bundle, transport="stream", in_flight=1) as scorer:
        rows = list(scorer.score(items(images[:8])))
    assert_right(rows, images[:8], 3)
    assert server.sent()[images[3]] <= 3
