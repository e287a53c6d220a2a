"""What the watch tells Prometheus, and whether it is ready."""

from __future__ import annotations

import math
import socket
import subprocess
import urllib.error
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giqa.errors import UsageError, all_errors
from giqa.triton.metrics import DIFFERENCE, Endpoint, WatchMetrics
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
    told.canary("ok", 0.25)
    told.canary("server_failed", 1.5)
    told.answer(math.nan, right=False)
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
        told.canary(outcome, 0.25)
    told.answer(-0.125, right=True)
    told.answer(3.5, right=False)
    told.load("fusion")
    text = told.text()
    assert value(text, 'giqa_canaries_total{outcome="ok"}') == 2
    assert value(text, 'giqa_canaries_total{outcome="overloaded"}') == 1
    assert value(text, "giqa_canary_difference") == 3.5
    assert value(text, "giqa_canary_tolerance") == 0.5
    assert value(text, "giqa_canary_seconds") == 0.25
    assert value(text, "giqa_canary_right_timestamp_seconds") > 1.7e9
    assert value(text, 'giqa_loads_total{model="fusion"}') == 1
    assert value(text, "giqa_starts_total") == 0


@given(st.lists(OUTCOMES))
def test_ready_is_what_the_last_telling_canary_said(outcomes: list[str]) -> None:
    told = metrics()
    for outcome in outcomes:
        told.canary(outcome, 0.1)
    telling = [o for o in outcomes if o not in ("overloaded", "deadline_exceeded")]
    assert told.ready == (telling[-1:] == ["ok"])
    told.start()
    assert not told.ready


def test_endpoint() -> None:
    told, port = metrics(), free_port()
    url = f"http://127.0.0.1:{port}"
    with Endpoint(told, "127.0.0.1", port):
        assert status(f"{url}/ready") == 503
        told.canary("ok", 0.1)
        assert status(f"{url}/ready") == 200
        told.stop()
        assert status(f"{url}/ready") == 503
        assert status(f"{url}/other") == 404
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert response.read().decode() == told.text()
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}"):
            Endpoint(told, "127.0.0.1", port)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
