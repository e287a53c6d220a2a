"""What a server lives through: kills under load, hostile clients, a stop at any time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from giqa import LocalScorer, TritonScorer
from giqa.client import Retry
from giqa.contract import GIQA, IMAGE, SCORE
from giqa.kserve import Tensor, request, service_stub
from tests.makers import BAD, jpeg
from tests.triton.conftest import Served, commanded
from tests.triton.test_serve_command import left_behind

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("GIQA_SOAK_SECONDS", "60"))
"""The published soak takes 1800."""
LOST = ("server_unavailable", "deadline_exceeded", "overloaded")
"""What may be said of a request that a killed process had, or would have had."""
CLIENTS = int(os.environ.get("GIQA_SOAK_CLIENTS", "64"))


def processes(served: Served) -> dict[str, list[psutil.Process]]:
    """The processes of a server, by what they are."""
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.Process(served.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            line = process.cmdline()
            if any("_gateway_main" in part for part in line):
                name = "gateway"
            elif line[0].endswith("triton_python_backend_stub"):
                name = Path(line[1]).parent.parent.name
            elif line[0].endswith("tritonserver"):
                name = "tritonserver"
            else:
                continue
            found.setdefault(name, []).append(process)
    return found


@contextmanager
def load(served: Served, images: list[bytes], wanted: list[float]) -> Iterator[list[str]]:
    """Clients that ask all the time, one in the other profile; gives what they must not get."""
    over, wrong = threading.Event(), []

    def client(n: int) -> None:
        retry = Retry(attempts=200, max_s=1)
        profile = "fast" if n else "precise"
        with TritonScorer(
            served.url, token=served.TEAM, in_flight=2, deadline_s=120, retry=retry
        ) as scorer:
            i = n
            while not over.is_set():
                (row,) = scorer.score([images[i % len(images)]], profile=profile)
                if row.error is not None:
                    if row.error.code not in LOST:
                        wrong.append(str(row.error))
                elif n and row.score != wanted[i % len(images)]:
                    wrong.append(f"{row.score} instead of {wanted[i % len(images)]}")
                i += 1

    threads = [threading.Thread(target=client, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    try:
        yield wrong
    finally:
        over.set()
        for thread in threads:
            thread.join(180)
        assert not any(thread.is_alive() for thread in threads)


def right_again(served: Served, image: bytes, score: float, within_s: float) -> float:
    """Seconds until an answer is right; each try has a deadline of its own."""
    started = time.monotonic()
    while True:
        with suppress(Exception):
            with TritonScorer(served.url, token=served.TEAM, deadline_s=5) as scorer:
                (row,) = scorer.score([image])
            if row.score == score:
                return time.monotonic() - started
        assert time.monotonic() - started < within_s, (served.folder / "log").read_text()[-3000:]


def pace() -> float:
    """How slow this machine is just now: about 1 where two cores are free."""
    started = time.monotonic()
    subprocess.run(["python3", "-c", "import json, email, unittest"], check=True)
    return max(1.0, (time.monotonic() - started) / 0.15)


@pytest.mark.parametrize(
    "name", ["gateway", "tritonserver", "preprocess", "global_branch", "local_branch", "fusion"]
)
def test_killed_under_load(name: str, endured: Served, local: LocalScorer) -> None:
    """Right answers again within 10 s, on a machine with nothing else to do."""
    images = [jpeg(300 + 20 * i, 240, seed=i) for i in range(6)]
    wanted = [r.score for r in local.score(images)]
    with load(endured, images, wanted) as wrong:
        time.sleep(2)
        random.choice(processes(endured)[name]).send_signal(signal.SIGKILL)
        took = right_again(endured, images[0], wanted[0], 12 * pace() + 30)
        print(f"{name}: right again after {took:.1f} s, pace {pace():.1f}")
    assert not wrong


@pytest.fixture(scope="module")
def endured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # Where the machine is busy a request may wait long, and is right all the same.
    with commanded(tmp_path_factory.mktemp("endured"), "--queue-timeout", "900") as served:
        yield served


def test_a_soak_with_bad_and_hostile_clients(endured: Served, local: LocalScorer) -> None:
    """64 clients, 10 % bad images, 5 % hostile calls: every good row is right, nothing restarts."""
    good = [jpeg(160 + 10 * i, 500 - 8 * i, seed=i) for i in range(20)]
    bad = [make() for make, _ in list(BAD.values())[:8]]
    wanted = {image: r.score for image, r in zip(good, local.score(good), strict=True)}
    right_again(endured, good[0], wanted[good[0]], 300)
    starts = (endured.folder / "log").read_text().count("anew")
    rows: list[int] = []
    wrong: list[Any] = []
    end = time.monotonic() + SECONDS

    def hostile(stub: Any, draw: random.Random) -> None:
        metadata = endured.connection.metadata
        image = draw.choice(good)
        message = request(GIQA, {IMAGE: Tensor("UINT8", (1, len(image)), image)}, [SCORE])
        kind = draw.randrange(5)
        if kind == 0:
            call = stub.ModelInfer.future(message, timeout=30, metadata=metadata)
            time.sleep(draw.random() * 0.05)
            call.cancel()
            return
        if kind == 1:
            message.parameters["timeout"].int64_param = draw.randrange(1, 3000)
        if kind == 2:
            message.raw_input_contents[0] = bytes(draw.randrange(1, 40) * 2**20)
        if kind == 3:
            message.model_name = draw.choice(["fusion", "preprocess", "x" * 1000])
        if kind == 4:
            message.inputs[0].shape[1] = 2**62
        with suppress(grpc.RpcError):
            stub.ModelInfer(message, timeout=draw.random() * 0.1, metadata=metadata)

    patient = Retry(attempts=1000)

    def client(n: int) -> None:
        draw = random.Random(n)
        with (
            endured.connection.channel() as channel,
            TritonScorer(
                endured.url, token=endured.TEAM, in_flight=1, deadline_s=900, retry=patient
            ) as scorer,
        ):
            stub = service_stub(channel)
            while time.monotonic() < end:
                chance = draw.random()
                if chance < 0.05:
                    hostile(stub, draw)
                elif chance < 0.15:
                    (row,) = scorer.score([draw.choice(bad)])
                    if row.error is None:
                        wrong.append("a bad image was scored")
                else:
                    image = draw.choice(good)
                    (row,) = scorer.score([image])
                    rows.append(1)
                    if row.score != wanted[image]:
                        wrong.append((row.score, wanted[image], str(row.error)))

    def held() -> tuple[int, int]:
        every = [p for group in processes(endured).values() for p in group]
        every.append(psutil.Process(endured.process.pid))
        return sum(p.memory_full_info().pss for p in every), sum(p.num_fds() for p in every)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS / 2)
    before = held()
    for thread in threads:
        thread.join(SECONDS + 900)
        assert not thread.is_alive()
    time.sleep(5)
    after = held()
    print(
        f"{len(rows)} good rows; memory {before[0] >> 20} -> {after[0] >> 20} MiB, "
        f"descriptors {before[1]} -> {after[1]}"
    )
    assert not wrong, wrong[:5]
    assert len(rows) > CLIENTS
    assert (endured.folder / "log").read_text().count("anew") == starts
    assert after[0] < 1.1 * before[0]
    assert after[1] <= before[1] + 20
    lines = [json.loads(line) for line in endured.requests.read_text().splitlines()]
    assert {line["client"] for line in lines} == {"team"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_in_the_middle_of_a_restart(number: int, tmp_path: Path) -> None:
    """It was 66 s: each model was asked to unload by a server that did not answer yet."""
    with commanded(tmp_path) as served:
        (triton,) = processes(served)["tritonserver"]
        triton.kill()
        started = time.monotonic()
        while "anew" not in (tmp_path / "log").read_text():
            assert time.monotonic() - started < 120
            time.sleep(0.05)
        time.sleep(1)
        started = time.monotonic()
        served.process.send_signal(number)
        assert served.process.wait(40 * pace()) == 0
        assert time.monotonic() - started < 15 * pace()
        assert not left_behind(served.process.pid)


def test_ipv6(tmp_path: Path) -> None:
    with commanded(tmp_path, "--address", "::1") as served:
        url = f"grpc://[::1]:{served.grpc}"
        with TritonScorer(url, token=served.TEAM) as scorer:
            assert next(scorer.score([jpeg()])).score
