"""The steps from JPEG bytes to a score, each by itself; by hand: see `benchmarks.suites.micro`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.counting import example
from benchmarks.options import Options
from giqa.bundle import Bundle
from giqa.contract import GIQA, GIQA_VIEWS, GRAPHS, IMAGE, SCORE
from giqa.decode import Preprocessor, probe, views_by_pillow
from giqa.kserve import Tensor, answer, messages, request
from giqa.openvino import CompiledGraph, choose_precision

pytestmark = pytest.mark.benchmark(disable_gc=True)


def test_probe(benchmark: BenchmarkFixture, jpegs: list[bytes]) -> None:
    assert benchmark(probe, jpegs[0]).width > 0


@pytest.mark.parametrize("batch", [1, 8])
def test_decode(
    benchmark: BenchmarkFixture, jpegs: list[bytes], options: Options, batch: int
) -> None:
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(
        batch_size=batch,
        num_threads=options.threads,
        device_id=None,
        prefetch_queue_depth=1,
        exec_dynamic=False,
    )
    def decoding() -> Any:
        encoded = fn.external_source(name=IMAGE, dtype=types.UINT8, ndim=1)
        return fn.decoders.image(encoded, output_type=types.RGB)

    pipeline = decoding()
    data = [np.frombuffer(jpeg, np.uint8) for jpeg in jpegs[:batch]]

    def run() -> Any:
        pipeline.feed_input(IMAGE, data)
        return pipeline.run()[0]

    assert len(benchmark(run)) == batch


@pytest.mark.parametrize("batch", [1, 8])
def test_decode_and_views(
    benchmark: BenchmarkFixture, jpegs: list[bytes], bundle: Bundle, options: Options, batch: int
) -> None:
    sizes = bundle.manifest.tensors
    preprocess = Preprocessor(
        global_side=sizes.global_side,
        local_side=sizes.local_side,
        batch=batch,
        threads=options.threads,
    )
    data = [np.frombuffer(jpeg, np.uint8) for jpeg in jpegs[:batch]]
    assert len(benchmark(preprocess, data)) == batch


def test_decode_and_views_by_pillow(
    benchmark: BenchmarkFixture, jpegs: list[bytes], bundle: Bundle
) -> None:
    sizes = bundle.manifest.tensors
    sides = {"global_side": sizes.global_side, "local_side": sizes.local_side}
    found = benchmark(views_by_pillow, jpegs[0], probe(jpegs[0]), None, **sides)
    assert found.local_view.shape[1] == sizes.local_side


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("name", GRAPHS)
def test_graph(
    benchmark: BenchmarkFixture, bundle: Bundle, options: Options, name: str, batch: int
) -> None:
    graph = CompiledGraph(bundle, name, choose_precision(bundle, "auto"), options.threads)
    assert benchmark(graph, example(bundle, name, batch))


def test_write_request_of_image(benchmark: BenchmarkFixture, jpegs: list[bytes]) -> None:
    data = jpegs[0]

    def run() -> bytes:
        tensor = Tensor("UINT8", (1, len(data)), data)
        return request(GIQA, {IMAGE: tensor}, [SCORE]).SerializeToString()

    assert len(benchmark(run)) > len(data)


def test_write_request_of_views(benchmark: BenchmarkFixture, bundle: Bundle) -> None:
    views: dict[str, Any] = {}
    for name in GRAPHS[:2]:
        views |= example(bundle, name, 1)

    def run() -> bytes:
        tensors = {name: Tensor.of(array) for name, array in views.items()}
        return request(GIQA_VIEWS, tensors, [SCORE]).SerializeToString()

    assert len(benchmark(run)) > sum(array.nbytes for array in views.values())


def test_read_answer(benchmark: BenchmarkFixture) -> None:
    message = messages().ModelInferResponse(model_name=GIQA)
    message.outputs.add(name=SCORE, datatype="FP32", shape=(1, 1))
    message.raw_output_contents.append(np.float32(50).tobytes())
    data = message.SerializeToString()

    def run() -> Any:
        found = messages().ModelInferResponse.FromString(data)
        return answer(found, GIQA, {SCORE: ("FP32", (1, 1))}, "localhost")

    assert benchmark(run)[SCORE].item() == 50
