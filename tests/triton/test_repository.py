"""Model repositories: what is checked in is what the renderer gives, and Triton can read it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2

from build.__main__ import OF_DEVICES, SERVERS, _group
from build.graphs import engine_graph
from giqa.bundle import Bundle
from giqa.contract import (
    FUSION,
    GIQA,
    GIQA_ISOLATED,
    GLOBAL_BRANCH,
    GRAPHS,
    MAX_VIEWS,
    PREPROCESS,
    PREPROCESS_ISOLATED,
    PREPROCESSES,
    TILES,
)
from giqa.decode import LARGE, Preprocessor, probe, view_boxes
from giqa.decode._pipeline import build_pipeline
from giqa.errors import UsageError
from giqa.precision import PRECISIONS
from giqa.serving import (
    RepositoryOptions,
    Watch,
    device_arguments,
    memory_of,
    render_repository,
    write_repository,
)
from giqa.serving._configs import from_text, to_text
from giqa.serving._repository_options import INFLIGHT_SINCE
from giqa.tensors import composing_models, ensembles, outputs_of, tensor_shapes
from tests.makers import jpeg, oriented

DEVICES = ("cpu", "gpu")


def checked_in(device: str) -> RepositoryOptions:
    return RepositoryOptions(
        device=device,
        precision=OF_DEVICES[device],
        server=SERVERS[device],
        instances=1 if device == "cpu" else 0,
    )


def configs(bundle: Bundle, options: RepositoryOptions) -> dict[str, object]:
    files = render_repository(bundle, options)
    return {
        name.split("/")[0]: from_text(text.decode())
        for name, text in files.items()
        if name.endswith("config.pbtxt")
    }


@pytest.mark.parametrize("device", DEVICES)
def test_checked_in_is_what_is_rendered(device: str, bundle: Bundle, checkout: Path) -> None:
    root = checkout / "model_repository" / device
    found = {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert found == render_repository(bundle, checked_in(device)), "run `make repository`"


@pytest.mark.parametrize("device", DEVICES)
def test_every_model_is_whole(device: str, bundle: Bundle) -> None:
    options = checked_in(device)
    files = render_repository(bundle, options)
    found = configs(bundle, options)
    assert set(found) == {*composing_models(device), *ensembles(device)}
    for name, config in found.items():
        assert config.name == name
        assert to_text(from_text(to_text(config))) == to_text(config)
        assert config.version_policy.latest.num_versions == 1
        assert config.parameters["bundle_digest"].string_value == bundle.digest
        assert config.parameters["device"].string_value == device
        assert [o.name for o in config.output] == [*outputs_of(name, bundle.manifest.tensors)]
        if name in composing_models(device):
            first = name in PREPROCESSES
            batching = config.dynamic_batching
            assert config.HasField("dynamic_batching")
            assert batching.HasField("default_queue_policy") == first
            if first:
                queue = batching.default_queue_policy
                assert queue.timeout_action == queue.REJECT
                assert queue.allow_timeout_override
                assert queue.default_timeout_microseconds == 10_000_000
                assert queue.max_queue_size == options.max_queue
            spare = first and (name != PREPROCESS_ISOLATED or device == "gpu")
            several = 3 if device == "gpu" and name == PREPROCESS else 2
            assert config.instance_group[0].count == (several if spare else 1)
            for warm_up in config.model_warmup:
                for tensor in warm_up.inputs.values():
                    data = tensor.input_data_file
                    assert not data or len(files[f"{name}/warmup/{data}"]) == tensor.dims[0]
        else:
            assert not config.response_cache.enable
            assert [s.model_name for s in config.ensemble_scheduling.step][-3:] == [*GRAPHS]
    ragged = [name for name, c in found.items() if any(i.allow_ragged_batch for i in c.input)]
    assert ragged == [n for n in composing_models(device) if n.startswith("preprocess")][:3]


def test_gpu_repository_has_no_python(bundle: Bundle) -> None:
    found = configs(bundle, checked_in("gpu"))
    backends = {name: found[name].backend for name in composing_models("gpu")}
    assert set(backends.values()) == {"dali", "tensorrt"}
    assert all((b == "dali") == n.startswith("preprocess") for n, b in backends.items())
    files = render_repository(bundle, checked_in("gpu"))
    assert not [n for n in files if n.endswith(".py")]
    for content in (files[n] for n in files if n.endswith(".dali")):
        assert b"mixed" in content
        assert b"/giqa/" not in content  # nothing of where it was made
    assert "giqa_bytes" not in found  # the DALI backend has no string input


def test_what_a_server_does_not_know_is_left_out(bundle: Bundle) -> None:
    def of(server: tuple[int, int]) -> dict[str, int]:
        found = configs(bundle, dataclasses.replace(checked_in("gpu"), server=server))
        return {n: found[n].ensemble_scheduling.max_inflight_requests for n in ensembles("gpu")}

    assert set(of((2, 51)).values()) == {0}
    counts = of(INFLIGHT_SINCE)
    # Nothing refuses those of `giqa_views`: they would wait where everybody's are taken in.
    assert counts.pop("giqa_views") == 0
    assert all(counts.values())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("changes", [{}, {"max_queue": 1000}, {"max_batch": 3}, {"instances": 5}])
def test_the_queue_fills_before_the_ensemble_is_full(
    device: str, changes: dict[str, int], bundle: Bundle
) -> None:
    """Else Triton waits in the thread that takes in all requests, and nothing is refused."""
    asked = dataclasses.replace(checked_in(device), server=INFLIGHT_SINCE, **changes)
    found = configs(bundle, asked)
    for name in ensembles(device):
        scheduling = found[name].ensemble_scheduling
        first = found[scheduling.step[0].model_name]
        if first.name in PREPROCESSES:
            queue = first.dynamic_batching.default_queue_policy.max_queue_size
            executing = first.instance_group[0].count * max(first.max_batch_size, 1)
            assert scheduling.max_inflight_requests > queue + executing, name
    arguments = device_arguments(asked, bundle.manifest)
    assert any("--grpc-infer-thread-count" in a for a in arguments) == (device == "gpu")


def test_no_gpu_queue_stands_still(bundle: Bundle) -> None:
    """A queue with a policy is looked at when an instance is idle: there has to be a spare one."""
    found = configs(bundle, checked_in("gpu"))
    for name in composing_models("gpu"):
        if found[name].dynamic_batching.HasField("default_queue_policy"):
            assert found[name].instance_group[0].count > 1, name


def test_every_gpu_gets_its_pool_and_old_plans_their_flag(bundle: Bundle) -> None:
    def of(**changes: object) -> list[str]:
        return device_arguments(dataclasses.replace(checked_in("gpu"), **changes), bundle.manifest)

    pools = [a for a in of(gpus=4) if a.startswith("--cuda-memory-pool-byte-size=")]
    assert [p.split("=")[1].split(":")[0] for p in pools] == ["0", "1", "2", "3"]
    assert len({p.split(":")[1] for p in pools}) == 1
    flag = "--backend-config=tensorrt,version-compatible=true"
    assert flag in of(version_compatible=True)
    assert flag not in of()
    for config in configs(bundle, checked_in("gpu")).values():
        for group in config.instance_group:
            assert not group.gpus  # so many on each


def test_several_instances_have_no_queue_delay(bundle: Bundle) -> None:
    one = configs(bundle, checked_in("gpu"))
    two = configs(bundle, dataclasses.replace(checked_in("gpu"), instances=2))
    assert one[FUSION].dynamic_batching.max_queue_delay_microseconds == 100
    assert two[FUSION].dynamic_batching.max_queue_delay_microseconds == 0
    assert two[FUSION].instance_group[0].count == 2


def test_only_giqa_is_ever_cached(bundle: Bundle) -> None:
    found = configs(bundle, dataclasses.replace(checked_in("cpu"), cache=True))
    assert [n for n, c in found.items() if c.response_cache.enable] == ["giqa"]
    assert found["giqa"].max_batch_size == 1
    assert len(found["giqa"].output) == 1


def image_bytes(bundle: Bundle, views: int = 1, tiles: int = 0) -> int:
    """All tensors of one image, counted by NumPy."""
    kinds = {"UINT8": np.uint8, "FP32": np.float32, "FP16": np.float16}
    total = 0  # but for what goes back to the client
    for name, (kind, shape) in tensor_shapes(bundle.manifest.tensors).items():
        count = views + (tiles if name.startswith("LOCAL") else 0)
        if name not in ("IMAGE", "SCORE", "QUALITY_MAP"):
            total += np.zeros([count if n == -1 else n for n in shape], kinds[kind]).nbytes
    return total


def test_cuda_pool_holds_what_is_in_flight(bundle: Bundle) -> None:
    asked = dataclasses.replace(checked_in("gpu"), precision="f32")
    memory = memory_of(bundle.manifest, asked)
    found = configs(bundle, asked)
    limits = {n: found[n].ensemble_scheduling.max_inflight_requests for n in ensembles("gpu")}
    between = image_bytes(bundle, tiles=TILES)
    between_precise = image_bytes(bundle, MAX_VIEWS)
    assert memory.in_flight["giqa"] == limits["giqa"] * between
    assert memory.in_flight["giqa_precise"] == limits["giqa_precise"] * between_precise
    assert 0 <= memory.pool - sum(memory.in_flight.values()) < 2**26
    assert memory.pool % 2**26 == 0
    half = memory_of(bundle.manifest, checked_in("gpu"))
    tokens = memory.in_flight["giqa_views"] // 2
    assert half.in_flight["giqa_views"] == tokens


def test_large_pictures_have_a_road_of_their_own(bundle: Bundle) -> None:
    """What DALI decodes is counted, at the limits; a batch never holds several large pictures."""
    options = checked_in("gpu")
    memory, files = memory_of(bundle.manifest, options), render_repository(bundle, options)
    found = configs(bundle, options)
    limits = {PREPROCESS: LARGE, "preprocess_precise": LARGE, PREPROCESS_ISOLATED: 200_000_000}
    assert memory.pictures.keys() == limits.keys()
    for name, pixels in limits.items():
        group, batch = found[name].instance_group[0], found[name].max_batch_size
        threads = int(found[name].parameters["num_threads"].string_value)
        # Three bytes a pixel: of each picture of a batch, and of each thread's buffer.
        assert memory.pictures[name] == group.count * (batch + threads) * 3 * pixels
        pipeline = files[f"{name}/1/model.dali"]
        assert float32_argument(pipeline, b"hw_decoder_load") == 1.0
        padding = int_argument(pipeline, b"device_memory_padding")
        assert padding == 3 * pixels
        sides = [
            int_argument(pipeline, f"preallocate_{s}_hint".encode()) for s in ("width", "height")
        ]
        assert sides[0] * sides[1] >= pixels
    assert found[PREPROCESS_ISOLATED].max_batch_size == 1
    assert memory.total < 20 * 2**30  # of the 24 of the smallest that are meant


def argument(pipeline: bytes, name: bytes) -> bytes:
    """A decoder's argument in a serialized pipeline: protobuf, name and type before the value."""
    at = pipeline.index(name) + len(name)
    return pipeline[at : at + 40]


def int_argument(pipeline: bytes, name: bytes) -> int:
    found = argument(pipeline, name)
    at = found.index(b"int64") + 5
    value, shift = 0, 0
    assert found[at] & 7 == 0, found
    while True:
        at += 1
        value |= (found[at] & 127) << shift
        shift += 7
        if found[at] < 128:
            return value


def float32_argument(pipeline: bytes, name: bytes) -> float:
    found = argument(pipeline, name)
    at = found.index(b"float") + 5
    assert found[at] & 7 == 5, found
    return float(np.frombuffer(found[at + 1 : at + 5], "<f4")[0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tensors_are_those_of_the_engines(precision: str, bundle: Bundle) -> None:
    asked = dataclasses.replace(checked_in("gpu"), precision=precision)
    found = configs(bundle, asked)
    for graph in GRAPHS:
        model = engine_graph(bundle, graph, precision)
        values = (*model.graph.input, *model.graph.output)
        kinds = {v.name: v.type.tensor_type.elem_type for v in values}
        config, kind = found[graph], model_config_pb2.DataType.Name
        onnx_types = {"TYPE_UINT8": 2, "TYPE_FP32": 1, "TYPE_FP16": 10}
        said = {t.name: onnx_types[kind(t.data_type)] for t in (*config.input, *config.output)}
        assert said == kinds
        assert list(config.instance_group[0].profile) == ["0", "1"]


def test_instances_follow_from_the_memory(bundle: Bundle) -> None:
    def of(**changes: object) -> tuple[int, int]:
        asked = dataclasses.replace(checked_in("gpu"), **changes)
        memory = memory_of(bundle.manifest, asked)
        found = configs(bundle, asked)
        rendered = {n: c.instance_group[0].count for n, c in found.items() if c.instance_group}
        assert rendered == memory.instances
        return rendered[PREPROCESS], rendered[FUSION]

    needed = memory_of(bundle.manifest, checked_in("gpu"))
    assert of() == (3, 1)
    assert of(memory=needed.total) == (3, 1)
    assert of(memory=needed.total - 1) == (2, 1)
    assert of(memory=needed.total * 2 // 3) == (1, 1)
    assert of(instances=4) == (4, 4)
    with pytest.raises(UsageError, match="MiB are allowed"):
        of(memory=2**20)


@pytest.mark.parametrize("max_batch", [1, 6, 8])
def test_every_batch_has_one_cuda_graph(max_batch: int, bundle: Bundle) -> None:
    asked = dataclasses.replace(checked_in("gpu"), max_batch=max_batch)
    found = configs(bundle, asked)
    shapes = tensor_shapes(bundle.manifest.tensors)
    for name in GRAPHS:
        cuda = found[name].optimization.cuda
        assert cuda.graphs
        # What sees tiles has graphs of pictures without and with them.
        several = {1: [], 1 + TILES: []} if name != GLOBAL_BRANCH else {1: []}
        for spec in cuda.graph_spec:
            assert {*spec.input} == {tensor.name for tensor in found[name].input}
            for tensor, shape in spec.input.items():
                assert tuple(shape.dim)[1:] == tuple(shapes[tensor][1][1:])
                if tensor.startswith("GLOBAL"):
                    assert shape.dim[0] == 1
            local = max(shape.dim[0] for shape in spec.input.values())
            several[local] += range(spec.graph_lower_bound.batch_size, spec.batch_size + 1)
        assert all(served == [*range(1, max_batch + 1)] for served in several.values())
    assert not found[PREPROCESS].optimization.cuda.graphs
    without = dataclasses.replace(checked_in("gpu"), cuda_graphs=False)
    assert not configs(bundle, without)[FUSION].optimization.cuda.graphs


def test_the_command_shows_the_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkout: Path
) -> None:
    out = str(tmp_path / "gpu")
    _group(["repository", "--device", "gpu", "--out", out], standalone_mode=False)
    shown = capsys.readouterr().out
    assert shown in (checkout / "build" / "image" / "README.md").read_text()
    lines = shown.splitlines()
    assert any(line.startswith("in flight: giqa_precise ") for line in lines)
    assert re.fullmatch(
        r"tritonserver --cuda-memory-pool-byte-size=0:\d+ --grpc-infer-thread-count=\d+", lines[-1]
    )
    with pytest.raises(UsageError, match="is for a GPU"):
        _group(
            ["repository", "--device", "cpu", "--out", out, "--cuda-graphs"], standalone_mode=False
        )


def test_writing_replaces_all_or_nothing(tmp_path: Path) -> None:
    place = tmp_path / "models"
    write_repository(place, {"a/config.pbtxt": b"1", "a/1/.gitkeep": b""})
    write_repository(place, {"b/config.pbtxt": b"2"})
    assert [str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()] == [
        "b/config.pbtxt"
    ]
    with pytest.raises(IsADirectoryError):
        write_repository(place, {"c/x": b"", "c/": b""})
    assert (place / "b" / "config.pbtxt").read_bytes() == b"2"
    assert [p.name for p in tmp_path.iterdir()] == ["models"]


def test_the_gpu_graph_cuts_the_same_views() -> None:
    """`precise` on a GPU finds its boxes in the graph: here on the CPU, against `view_boxes`."""
    sizes = [(1000, 700), (300, 301), (448, 448), (2000, 100), (897, 1500), (50, 900), (1343, 1345)]
    images = [np.frombuffer(jpeg(*size, seed=i), np.uint8) for i, size in enumerate(sizes)]
    images += [np.frombuffer(oriented(n, "JPEG"), np.uint8) for n in (3, 6)]
    sizes = [probe(data).upright_size for data in images]
    pipeline = build_pipeline(
        regions="grid", global_side=224, local_side=448, batch=len(images), threads=2
    )
    pipeline.feed_input("IMAGE", images)
    coarse, fine = pipeline.run()
    boxes = [view_boxes(*size, "precise", 448) for size in sizes]
    assert max(map(len, boxes)) == MAX_VIEWS
    expected = Preprocessor(global_side=224, local_side=448)(images, boxes)
    for i, views in enumerate(expected):
        assert np.array_equal(np.array(fine.at(i)), views.local_view), sizes[i]
        assert np.array_equal(np.array(coarse.at(i)), views.global_view), sizes[i]


@pytest.mark.parametrize("device", DEVICES)
def test_every_ensemble_has_a_canary(device: str) -> None:
    """Each model that an ensemble is made of is passed by one."""
    watch = object.__new__(Watch)
    watch._server = SimpleNamespace(repository_options=checked_in(device))
    asked = {name for name, _ in watch._canaries()}
    assert {GIQA, GIQA_ISOLATED} <= asked
    passed = {PREPROCESS, PREPROCESS_ISOLATED, *GRAPHS} | asked
    assert set(composing_models(device)) <= passed
