"""Model repositories: what is checked in is what the renderer gives, and Triton can read it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from build.__main__ import PRECISIONS, SERVERS
from giqa.bundle import Bundle
from giqa.contract import FUSION, GRAPHS, MAX_VIEWS, PREPROCESSES
from giqa.pipeline import build_pipeline, view_boxes
from giqa.preprocess import Preprocessor
from giqa.probe import probe
from giqa.triton.repository import (
    INFLIGHT_SINCE,
    SAFE_REJECTION_SINCE,
    Options,
    cuda_pool_bytes,
    from_text,
    render,
    to_text,
    write,
)
from giqa.triton.tensors import composing_models, ensembles, outputs_of, tensor_shapes
from tests.makers import jpeg, oriented

DEVICES = ("cpu", "gpu")


def checked_in(device: str) -> Options:
    return Options(device=device, precision=PRECISIONS[device], server=SERVERS[device])


def configs(bundle: Bundle, options: Options) -> dict[str, object]:
    files = render(bundle, options)
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
    assert found == render(bundle, checked_in(device)), "run `make repository`"


@pytest.mark.parametrize("device", DEVICES)
def test_every_model_is_whole(device: str, bundle: Bundle) -> None:
    options = checked_in(device)
    files = render(bundle, options)
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
            queue = config.dynamic_batching.default_queue_policy
            assert queue.timeout_action == queue.REJECT
            assert queue.allow_timeout_override
            assert queue.default_timeout_microseconds == 10_000_000
            assert config.instance_group[0].count == 1
            assert (name in PREPROCESSES) <= (queue.max_queue_size == 64)
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
    files = render(bundle, checked_in("gpu"))
    assert not [n for n in files if n.endswith(".py")]
    for content in (files[n] for n in files if n.endswith(".dali")):
        assert b"mixed" in content
        assert b"/giqa/" not in content  # nothing of where it was made
    assert "giqa_bytes" not in found  # the DALI backend has no string input


def test_what_a_server_does_not_know_or_survive_is_left_out(bundle: Bundle) -> None:
    def of(server: tuple[int, int]) -> tuple[int, int]:
        found = configs(bundle, dataclasses.replace(checked_in("gpu"), server=server))
        queue = found[FUSION].dynamic_batching.default_queue_policy
        return found["giqa"].ensemble_scheduling.max_inflight_requests, queue.max_queue_size

    assert of((2, 51)) == (0, 0)
    assert of(INFLIGHT_SINCE) == (32, 0)
    assert of(SAFE_REJECTION_SINCE) == (32, 320)


def test_several_instances_have_no_queue_delay(bundle: Bundle) -> None:
    one = configs(bundle, checked_in("cpu"))
    two = configs(bundle, dataclasses.replace(checked_in("cpu"), instances=2))
    assert one[FUSION].dynamic_batching.max_queue_delay_microseconds == 100
    assert two[FUSION].dynamic_batching.max_queue_delay_microseconds == 0
    assert two[FUSION].instance_group[0].count == 2


def test_only_giqa_is_ever_cached(bundle: Bundle) -> None:
    found = configs(bundle, dataclasses.replace(checked_in("cpu"), cache=True))
    assert [n for n, c in found.items() if c.response_cache.enable] == ["giqa"]
    assert found["giqa"].max_batch_size == 1
    assert len(found["giqa"].output) == 1


def test_cuda_pool_holds_what_is_in_flight(bundle: Bundle) -> None:
    sizes = {"UINT8": 1, "FP32": 4, "FP16": 2}
    an_image = sum(
        sizes[kind] * int(np.prod([max(n, 1) for n in shape]))
        for name, (kind, shape) in tensor_shapes(bundle.manifest.tensors).items()
        if name != "IMAGE"
    )
    pool = cuda_pool_bytes(bundle.manifest, checked_in("gpu"))
    assert pool >= an_image * (64 + 3 * 8)
    assert pool % 2**26 == 0
    bigger = dataclasses.replace(checked_in("gpu"), max_queue=640)
    assert cuda_pool_bytes(bundle.manifest, bigger) > pool


def test_writing_replaces_all_or_nothing(tmp_path: Path) -> None:
    place = tmp_path / "models"
    write(place, {"a/config.pbtxt": b"1", "a/1/.gitkeep": b""})
    write(place, {"b/config.pbtxt": b"2"})
    assert [str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()] == [
        "b/config.pbtxt"
    ]
    with pytest.raises(IsADirectoryError):
        write(place, {"c/x": b"", "c/": b""})
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
