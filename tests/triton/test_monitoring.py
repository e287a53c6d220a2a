"""Every metric that the dashboard and the alerts name is one that a real server exports."""

from __future__ import annotations

import re
from contextlib import suppress

from giqa.bundle import Bundle
from giqa.contract import GIQA, GIQA_ISOLATED, IMAGE, SCORE
from giqa.errors import CorruptError, GiqaError
from giqa.kserve import Tensor, request
from giqa.serving import Server, Watch
from giqa.serving._metrics import Endpoint
from tests.makers import BAD, jpeg
from tests.ports import free_port
from tests.triton.conftest import serving
from tests.triton.test_observing import get
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


def test_every_metric_is_exported(bundle: Bundle) -> None:
    triton_port, watch_port = free_port(), free_port()
    with serving(bundle, metrics_port=triton_port) as server:
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
            triton = get(f"http://127.0.0.1:{triton_port}/metrics")
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
