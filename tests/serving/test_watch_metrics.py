"""What the watch tells Prometheus, and whether it is ready."""

from __future__ import annotations

import math
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giqa.errors import UsageError, all_errors
from giqa.serving._metrics import DIFFERENCE, RIGHT, Endpoint, WatchMetrics
from tests.ports import free_port
from tests.tools import promtool

OUTCOMES = st.sampled_from(["ok", *all_errors()])


def metrics() -> WatchMetrics:
    return WatchMetrics('a "quoted"\\name@0.1.0', "openvino-bf16", 0.5)


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as e:
        e.close()
        return e.code


def value(text: str, sample: str) -> float:
    (line,) = (line for line in text.splitlines() if line.startswith(f"{sample} "))
    return float(line.rsplit(" ", 1)[1])


def test_prometheus_finds_nothing_to_complain_of() -> None:
    told = metrics()
    told.canary("ok")
    told.canary("server_failed")
    told.answer(math.nan, 0.25)
    told.load("fusion")
    told.start()
    done = subprocess.run(
        [promtool(), "check", "metrics"], input=told.text(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_counts_and_gauges() -> None:
    told = metrics()
    assert DIFFERENCE not in [line.split()[0] for line in told.text().splitlines()]
    for outcome in ("ok", "ok", "overloaded"):
        told.canary(outcome)
    told.answer(-0.125, 0.25)
    right = value(told.text(), RIGHT)
    told.answer(3.5, 1.5)
    told.load("fusion")
    text = told.text()
    assert value(text, 'giqa_canaries_total{outcome="ok"}') == 2
    assert value(text, 'giqa_canaries_total{outcome="overloaded"}') == 1
    assert value(text, "giqa_canary_difference") == 3.5
    assert value(text, "giqa_canary_tolerance") == 0.5
    assert value(text, "giqa_canary_seconds") == 1.5
    assert time.time() - 60 < value(text, RIGHT) == right <= time.time()
    assert value(text, 'giqa_loads_total{model="fusion"}') == 1
    assert value(text, "giqa_starts_total") == 0


@given(st.lists(OUTCOMES))
def test_ready_is_what_the_last_telling_canary_said(outcomes: list[str]) -> None:
    told = metrics()
    for outcome in outcomes:
        told.canary(outcome)
    telling = [o for o in outcomes if o not in ("overloaded", "deadline_exceeded")]
    assert told.ready == (telling[-1:] == ["ok"])
    told.start()
    assert not told.ready


def test_endpoint() -> None:
    told, port = metrics(), free_port()
    url = f"http://127.0.0.1:{port}"
    with Endpoint(lambda: told, "127.0.0.1", port):
        assert status(f"{url}/ready") == 503
        told.canary("ok")
        assert status(f"{url}/ready") == 200
        told.stop()
        told.canary("ok")  # one that was under way
        assert status(f"{url}/ready") == 503
        assert status(f"{url}/other") == 404
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert response.read().decode() == told.text()
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}"):
            Endpoint(lambda: told, "127.0.0.1", port)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
