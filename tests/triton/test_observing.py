"""What operators look at: metrics, HTTP, traces; all that dashboard and alerts name is there."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from giqa import TritonScorer
from giqa.bundle import Bundle
from giqa.contract import GIQA, GIQA_ISOLATED, IMAGE, SCORE
from giqa.errors import CorruptError, GiqaError
from giqa.kserve import Tensor, request
from giqa.serving import Server, Watch
from giqa.serving._metrics import Endpoint
from tests.makers import BAD, jpeg
from tests.ports import free_port
from tests.triton.conftest import serving
from tests.unit.test_image import PROMETHEUS, expressions

NEEDS_A_GPU = {
    "nv_gpu_memory_total_bytes",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_power_limit",
    "nv_gpu_power_usage",
    "nv_gpu_utilization",
}
"""As Triton's documentation names them; no server here can export them."""

_METRIC = re.compile(r"\b(?:nv|giqa)_[a-z_]+\b")


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OpenTelemetry collector of a kind: it keeps what it is sent."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", received
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Observed:
    """A server that can be looked at in every way.

    Attributes:
        server: it.
        http: Triton's own HTTP port.
        metrics: port of Triton's metrics.
        received: what its collector got.
    """

    server: Server
    http: int
    metrics: int
    received: list[bytes]


@pytest.fixture(scope="module")
def observed(tiled: Bundle) -> Iterator[Observed]:
    http, metrics = free_port(), free_port()
    listen = {"http_port": http, "metrics_port": metrics}
    with (
        collector() as (url, received),
        serving(tiled, **listen, trace_url=url, trace_rate=1) as server,
    ):
        yield Observed(server, http, metrics, received)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


def named() -> set[str]:
    """Metrics in rules and dashboard; label values are no metrics."""
    texts = [*expressions(), (PROMETHEUS / "rules.yml").read_text()]
    return {name for text in texts for name in _METRIC.findall(re.sub(r'"[^"]*"', "", text))}


def score(server: Server, image: bytes, ensemble: str) -> None:
    inputs = {IMAGE: Tensor("UINT8", (1, len(image)), image)}
    server.call("ModelInfer", request(ensemble, inputs, [SCORE], timeout_s=10), 10)


def samples(text: str, metric: str) -> dict[str, float]:
    """Values by labels."""
    found = re.findall(rf"^{metric}(\{{.*\}})? (\S+)$", text, re.M)
    return {labels: float(value) for labels, value in found}


def test_metrics_http_and_traces(observed: Observed, tiled: Bundle) -> None:
    with TritonScorer(observed.server.connection.url, bundle=tiled) as scorer:
        (row,) = scorer.score([jpeg()])
    text = get(f"http://127.0.0.1:{observed.metrics}/metrics")
    counted = [line for line in text.splitlines() if line.startswith("nv_inference_count")]
    assert any(f'model="{GIQA}"' in line and not line.endswith(" 0") for line in counted)

    base = f"http://127.0.0.1:{observed.http}/v2"
    body = json.dumps(
        {
            "inputs": [
                {
                    "name": "IMAGE",
                    "datatype": "UINT8",
                    "shape": [1, len(jpeg())],
                    "data": list(jpeg()),
                }
            ]
        }
    ).encode()
    asked = urllib.request.Request(f"{base}/models/{GIQA}/infer", body)
    (output,) = json.loads(urllib.request.urlopen(asked, timeout=10).read())["outputs"]
    assert (output["name"], output["data"]) == (SCORE, [pytest.approx(row.score)])
    with pytest.raises(urllib.error.HTTPError) as caught:  # administrators only
        urllib.request.urlopen(
            urllib.request.Request(f"{base}/repository/models/{GIQA}/unload", b"{}")
        )
    assert caught.value.code == 403
    caught.value.close()

    started = time.monotonic()
    while not any(GIQA.encode() in spans for spans in observed.received):
        assert time.monotonic() - started < 20, observed.received
        time.sleep(0.2)


def test_every_metric_is_exported(observed: Observed) -> None:
    server, watch_port = observed.server, free_port()
    watch = Watch(server, say=print)
    with Endpoint(lambda: watch.metrics, "127.0.0.1", watch_port):
        score(server, jpeg(), GIQA)
        for ensemble in (GIQA, GIQA_ISOLATED):  # two models count under one name
            for name in ("text.jpg", "no-data.png"):
                with suppress(GiqaError):
                    score(server, BAD[name][0](), ensemble)
        watch.known_answer()
        assert watch.check()
        watch._load("fusion")
        ours = get(f"http://127.0.0.1:{watch_port}/metrics")
        triton = get(f"http://127.0.0.1:{observed.metrics}/metrics")
    difference = server.difference()
    scraped = {line.split("{")[0].split(" ")[0] for line in (ours + triton).splitlines()}
    assert named() - scraped == NEEDS_A_GPU

    failures = samples(triton, "giqa_failures_total")
    assert failures == {
        f'{{code="{code}",model="{model}"}}': 1
        for model in ("preprocess", "preprocess_isolated")
        for code in ("unsupported_format", CorruptError.code)
    }
    assert samples(ours, "giqa_canary_difference") == {"": difference}
    outcomes = samples(ours, "giqa_canaries_total")
    assert set(outcomes) == {'{outcome="ok"}'}
    assert outcomes['{outcome="ok"}'] > 1
    assert samples(ours, "giqa_loads_total") == {'{model="fusion"}': 1}
