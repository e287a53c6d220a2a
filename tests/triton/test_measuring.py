"""What benchmarks ask of a real server."""

from __future__ import annotations

import time

import pytest

from benchmarks.served.beside import ALONE, IN_PROCESS, score_all, ways
from benchmarks.served.perf_analyzer import NAME, Load
from benchmarks.served.server import memory_mb, steps, totals
from benchmarks.served.sweep import sweeping
from giqa import LocalScorer
from giqa.bundle import Bundle
from giqa.contract import GRAPHS, PREPROCESS
from giqa.serving import Server
from tests.tools import tool


def test_every_way_scores_alike_and_every_step_is_counted(
    server: Server, local: LocalScorer, bundle: Bundle
) -> None:
    images = [bundle.self_test_image.read_bytes()] * 3
    before = totals(server)
    with ways(local, server, (IN_PROCESS, ALONE)) as scorers:
        found = {name: score_all(scorer, images) for name, scorer in scorers.items()}
    assert found[ALONE] == found[IN_PROCESS]
    done = steps(before, totals(server))
    deadline = time.monotonic() + 10
    while {s.requests for s in done.values()} != {3} and time.monotonic() < deadline:
        time.sleep(0.05)  # a model's numbers may come after its answer
        done = steps(before, totals(server))
    assert set(done) == {PREPROCESS, *GRAPHS}
    for step in done.values():
        assert (step.requests, step.executions) == (3, 3)
        assert step.compute_ms > 0
        assert step.queue_ms >= 0
    assert memory_mb(server) > 100


def test_what_cannot_be_scored_ends_a_measurement(local: LocalScorer) -> None:
    with pytest.raises(RuntimeError, match="unsupported_format"):
        score_all(local, [b"no picture"])


@pytest.mark.skipif(tool(NAME) is None, reason=f"no {NAME}; `make analyzer` fetches it")
@pytest.mark.parametrize("shared_memory", [False, True])
def test_perf_analyzer_loads_the_server(
    server: Server, bundle: Bundle, shared_memory: bool
) -> None:
    image = bundle.self_test_image.read_bytes()
    # Two lengths: shapes vary from request to request.
    images = [image, image[:-2] + b"\xff\xfe\x00\x04ok" + image[-2:]]
    with sweeping(server, images, requests=6) as sweep:
        met = sweep.measure(Load(concurrency=2, shared_memory=shared_memory))()
    assert len(met.point.ms) == 16
    assert min(met.point.ms) > 0
    assert met.point.rate > 0
    assert {step.requests for step in met.steps.values()} >= {16 + 1}
