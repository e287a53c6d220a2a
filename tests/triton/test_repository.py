"""Model repositories: what is checked in is what the renderer gives, and Triton can read it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from build.__main__ import PRECISIONS, SERVERS, _group
from giqa.bundle import Bundle
from giqa.contract import (
    FUSION,
    GLOBAL_BRANCH,
    GRAPHS,
    MAX_VIEWS,
    PREPROCESS,
    PREPROCESS_ISOLATED,
    PREPROCESSES,
    TILES,
)
from giqa.decode import Preprocessor, probe, view_boxes
from giqa.decode._pipeline import build_pipeline
from giqa.errors import UsageError
from giqa.serving import RepositoryOptions, memory_of, render_repository, write_repository
from giqa.serving._configs import from_text, to_text
from giqa.serving._options import INFLIGHT_SINCE
from giqa.tensors import composing_models, ensembles, outputs_of, tensor_shapes
from tests.makers import jpeg, oriented

DEVICES = ("cpu", "gpu")


def checked_in(device: str) -> RepositoryOptions:
    return RepositoryOptions(
        device=device,
        precision=PRECISIONS[device],
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
                assert queue.max_queue_size == 64
            spare = first and name != PREPROCESS_ISOLATED and device == "cpu"
            several = spare or (device == "gpu" and name == PREPROCESS)
            assert config.instance_group[0].count == (2 if several else 1)
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
    def of(server: tuple[int, int]) -> int:
        found = configs(bundle, dataclasses.replace(checked_in("gpu"), server=server))
        count: int = found["giqa"].ensemble_scheduling.max_inflight_requests
        return count

    assert of((2, 51)) == 0
    assert of(INFLIGHT_SINCE) == 32


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
    total = 0
    for name, (kind, shape) in tensor_shapes(bundle.manifest.tensors).items():
        count = views + (tiles if name.startswith("LOCAL") else 0)
        if name != "IMAGE":
            total += np.zeros([count if n == -1 else n for n in shape], kinds[kind]).nbytes
    return total


def test_cuda_pool_holds_what_is_in_flight(bundle: Bundle) -> None:
    memory = memory_of(bundle.manifest, checked_in("gpu"))
    found = configs(bundle, checked_in("gpu"))
    limit = found["giqa"].ensemble_scheduling.max_inflight_requests
    assert memory.in_flight["giqa"] == limit * image_bytes(bundle, tiles=TILES)
    assert memory.in_flight["giqa_precise"] == limit * image_bytes(bundle, MAX_VIEWS)
    assert 0 <= memory.pool - sum(memory.in_flight.values()) < 2**26
    assert memory.pool % 2**26 == 0
    old = dataclasses.replace(checked_in("gpu"), server=(2, 51))  # only its queue holds it back
    assert memory_of(bundle.manifest, old).in_flight["giqa"] == (64 + 3 * 8) * image_bytes(
        bundle, tiles=TILES
    )


def test_instances_follow_from_the_memory(bundle: Bundle) -> None:
    def of(**changes: object) -> tuple[int, int]:
        asked = dataclasses.replace(checked_in("gpu"), **changes)
        memory = memory_of(bundle.manifest, asked)
        found = configs(bundle, asked)
        rendered = {n: c.instance_group[0].count for n, c in found.items() if c.instance_group}
        assert rendered == memory.instances
        return rendered[PREPROCESS], rendered[FUSION]

    needed = memory_of(bundle.manifest, checked_in("gpu"))
    assert of() == (2, 1)
    assert of(memory=needed.total) == (2, 1)
    assert of(memory=needed.total - 1) == (1, 1)
    assert of(instances=3) == (3, 3)
    with pytest.raises(UsageError, match="MiB are allowed"):
        of(memory=2**20)


@pytest.mark.parametrize("max_batch", [1, 6, 8])
def test_every_batch_has_one_cuda_graph(max_batch: int, bundle: Bundle) -> None:
    asked = dataclasses.replace(checked_in("gpu"), cuda_graphs=True, max_batch=max_batch)
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
    assert not configs(bundle, checked_in("gpu"))[FUSION].optimization.cuda.graphs


def test_the_command_shows_the_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkout: Path
) -> None:
    out = str(tmp_path / "gpu")
    _group(["repository", "--device", "gpu", "--out", out], standalone_mode=False)
    shown = capsys.readouterr().out
    assert shown in (checkout / "build" / "image" / "README.md").read_text()
    lines = shown.splitlines()
    assert any(line.startswith("in flight: giqa_precise ") for line in lines)
    assert re.fullmatch(r"tritonserver --cuda-memory-pool-byte-size=0:\d+", lines[-1])
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
