"""perf_analyzer: what it is given, and what is read from its export.

The export beside this file is a real one: 24 requests, 4 at a time, through shared memory.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.served import perf_analyzer
from benchmarks.served.perf_analyzer import Load, read_point
from benchmarks.served.server import Step, steps
from benchmarks.served.sweep import concurrencies, rates
from giqa.contract import IMAGE
from giqa.errors import ServerFailedError, UsageError
from tests.ports import free_port
from tests.tools import tool

EXPORT = json.loads(Path(__file__).with_suffix(".json").read_text())
PROFILE, TABLE = json.dumps(EXPORT["profile"]), "\n".join(EXPORT["table"])


def test_point_agrees_with_what_perf_analyzer_says_itself() -> None:
    point = read_point(PROFILE, TABLE)
    said = dict(zip(*(line.split(",") for line in EXPORT["table"]), strict=True))
    assert len(point.ms) == 24
    for share in (50, 90, 95, 99):
        nearest = np.percentile(point.ms, share, method="nearest")
        own = float(said[f"p{share} latency"]) / 1e3
        # It rounds ranks its own way: the neighbours are as right.
        at = int(np.abs(np.sort(point.ms) - nearest).argmin())
        around = np.sort(point.ms)[max(0, at - 1) : at + 2]
        assert np.abs(around - own).min() < 0.01
    begin, end = EXPORT["profile"]["experiments"][0]["window_boundaries"]
    assert point.rate == pytest.approx(24e9 / (end - begin), rel=0.03)
    # Little's law: in flight = rate * time in the system.
    assert point.rate * np.mean(point.ms) / 1e3 == pytest.approx(4, rel=0.15)
    assert point.client_us == {"send": 8, "receive": 3}


def test_order_of_the_export_does_not_matter() -> None:
    turned = json.loads(PROFILE)
    turned["experiments"][0]["requests"].reverse()
    assert read_point(json.dumps(turned), TABLE) == read_point(PROFILE, TABLE)


@pytest.mark.parametrize(
    ("profile", "table"),
    [
        ('{"experiments": []}', TABLE),
        (PROFILE, TABLE.splitlines()[0]),
        (PROFILE, TABLE + "\n" + TABLE.splitlines()[1]),
        ('{"experiments": [{"requests": []}]}', TABLE),
    ],
)
def test_not_one_point(profile: str, table: str) -> None:
    with pytest.raises(ServerFailedError, match="not one point"):
        read_point(profile, table)


@given(images=st.lists(st.binary(min_size=1, max_size=99), min_size=1, max_size=5))
def test_input_holds_the_images(images: list[bytes], tmp_path_factory: object) -> None:
    path = tmp_path_factory.mktemp("input") / "input.json"  # type: ignore[attr-defined]
    perf_analyzer.write_input(path, images)
    found = [one[IMAGE] for one in json.loads(path.read_text())["data"]]
    assert [base64.b64decode(one["content"]["b64"]) for one in found] == images
    assert [one["shape"] for one in found] == [[len(image)] for image in images]


def test_a_load_is_a_concurrency_or_a_rate() -> None:
    assert Load(concurrency=4).arguments() == ["--concurrency-range", "4"]
    assert Load(rate=2.5, shared_memory=True).arguments() == [
        *("--request-rate-range", "2.500", "--request-distribution", "poisson"),
        *("--shared-memory", "system"),
    ]
    for wrong in ({}, {"concurrency": 1, "rate": 1.0}):
        with pytest.raises(UsageError):
            Load(**wrong)


def test_sweeps() -> None:
    loads = concurrencies((1, 8))
    assert list(loads) == [
        "concurrency 1",
        "concurrency 1, shared memory",
        "concurrency 8",
        "concurrency 8, shared memory",
    ]
    assert [load.rate for load in rates(40).values()] == [20, 28, 36]


def test_steps_are_means_of_what_came_between() -> None:
    before = {"fusion": Step(10, 5, 100, 50), "preprocess": Step(3, 3, 9, 9)}
    after = {"fusion": Step(18, 7, 140, 66), "preprocess": Step(3, 3, 9, 9)}
    assert steps(before, after) == {"fusion": Step(8, 2, 5, 2)}


@pytest.mark.skipif(
    tool(perf_analyzer.NAME) is None, reason="no perf_analyzer; `make analyzer` fetches it"
)
def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    data = tmp_path / "input.json"
    perf_analyzer.write_input(data, [b"image"])
    program = Path(str(tool(perf_analyzer.NAME)))
    with pytest.raises(ServerFailedError, match="exit code"):
        perf_analyzer.measure(
            program,
            f"127.0.0.1:{free_port()}",
            data,
            Load(concurrency=1),
            requests=1,
            warm_up=0,
        )
