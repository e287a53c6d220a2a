"""The model of a GPU server: arithmetic that can be followed, and the table of the documents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.counting import END_TO_END, work
from benchmarks.predict import GPUS, Assumed, Gpu, Work, predict, table, work_of
from giqa.bundle import Bundle, load_bundle
from giqa.precision import GPU_PREDICTED, Precision

H200 = GPUS[-1]
PIXELS = 512 * 512


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture(scope="module")
def small(bundle: Bundle) -> Work:
    return work_of(bundle, tiles=0)


def rate(gpu: Gpu, small: Work, pixels: int = PIXELS, **how: object) -> float:
    return predict(gpu, small, pixels=pixels, **how).rate  # type: ignore[arg-type]


def test_the_documents_have_the_table(bundle: Bundle, checkout: Path) -> None:
    page = checkout / "build" / "site" / "pages" / "guides" / "tensorrt.md"
    assert table(bundle, precisions=GPU_PREDICTED) in page.read_text()
    assert {gpu.name for gpu in GPUS} >= {"L4", "A10", "H100", "H200"}


def test_work_is_what_the_other_suite_counts(bundle: Bundle, small: Work) -> None:
    ours = sum(found.flops for found in small.graphs.values())
    assert ours == pytest.approx(work(bundle)[END_TO_END].flops, rel=0.01)
    tiled = work_of(bundle, tiles=4)
    assert tiled.graphs["local_branch"].flops > 4 * small.graphs["local_branch"].flops
    assert tiled.views > small.views


def test_a_limit_is_what_more_of_it_lifts(small: Work) -> None:
    found = predict(H200, small, pixels=PIXELS)
    assert found.limit == "JPEG engines"
    assert rate(replace(H200, jpeg=14), small) > found.rate
    assert rate(replace(H200, halves=2000, bandwidth=9600), small) == found.rate
    slow = Gpu("slow", 1, 2, 100, 25, 4)
    assert predict(slow, small, pixels=PIXELS).limit == "GPU"
    assert rate(replace(slow, halves=2), small) > rate(slow, small)


@pytest.mark.parametrize("precision", ["f16", "int8"])
def test_by_hand(precision: Precision, small: Work) -> None:
    """One image of a GPU so slow that only its products count."""
    gpu = Gpu("slow", 0.1, 0.2, 1e6, 1e6, 1000)
    flops = sum(found.flops for found in small.graphs.values())
    peak = {"f16": 0.1e12, "int8": 0.2e12}[precision] * Assumed.share
    assert rate(gpu, small, precision=precision) == pytest.approx(peak / flops, rel=1e-3)


def test_graphs_and_batches_help_where_launches_are_the_limit(small: Work) -> None:
    one = rate(H200, small, batch=1, cuda_graphs=False)
    assert rate(H200, small, batch=1) > one
    assert rate(H200, small, batch=32) > rate(H200, small, batch=1)
    assert predict(H200, small, pixels=PIXELS).queue == pytest.approx(128 / rate(H200, small))


def test_without_engines_the_cpu_decodes(small: Work) -> None:
    a10 = next(gpu for gpu in GPUS if gpu.name == "A10")
    found = predict(a10, small, pixels=12_000_000)
    assert found.limit == "CPU decoding"
    assert found.rate == pytest.approx(Assumed.cores * Assumed.core / 12)
