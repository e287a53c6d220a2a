"""What operators look at: metrics, HTTP, traces."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from giqa import TritonScorer
from giqa.bundle import Bundle
from giqa.contract import GIQA, SCORE
from tests.makers import jpeg
from tests.ports import free_port
from tests.triton.conftest import serving


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


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


def test_metrics_http_and_traces(bundle: Bundle) -> None:
    http, metrics = free_port(), free_port()
    with (
        collector() as (url, received),
        serving(
            bundle, http_port=http, metrics_port=metrics, trace_url=url, trace_rate=1
        ) as server,
    ):
        with TritonScorer(server.connection.url) as scorer:
            (row,) = scorer.score([jpeg()])
        text = get(f"http://127.0.0.1:{metrics}/metrics")
        counted = [line for line in text.splitlines() if line.startswith("nv_inference_count")]
        assert any(f'model="{GIQA}"' in line and not line.endswith(" 0") for line in counted)

        base = f"http://127.0.0.1:{http}/v2"
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
        request = urllib.request.Request(f"{base}/models/{GIQA}/infer", body)
        (output,) = json.loads(urllib.request.urlopen(request, timeout=10).read())["outputs"]
        assert (output["name"], output["data"]) == (SCORE, [pytest.approx(row.score)])
        with pytest.raises(urllib.error.HTTPError) as caught:  # administrators only
            urllib.request.urlopen(
                urllib.request.Request(f"{base}/repository/models/{GIQA}/unload", b"{}")
            )
        assert caught.value.code == 403
        caught.value.close()

        started = time.monotonic()
        while not any(GIQA.encode() in spans for spans in received):
            assert time.monotonic() - started < 20, received
            time.sleep(0.2)
