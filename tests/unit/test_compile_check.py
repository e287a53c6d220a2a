"""`python -m build check`: TensorRT-RTX takes good graphs, and broken ones are named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorrt_rtx
import torch

from build.check import NOT_PROVEN, check
from build.commands import check as check_command
from build.graphs import precisions_of
from build.parser import Refusal, Settings, _load_timings, compile_graph, targets_of
from build.profiles import Input, profile_of
from build.quantize import LEAST, quantize
from giqa.bundle import MANIFEST, Bundle, load_bundle, write_bundle
from giqa.contract import FUSION, GRAPHS, MAX_VIEWS
from giqa.errors import EngineMismatchError, MissingExtraError, UsageError
from giqa.precision import PRECISIONS
from giqa.types import Views
from tests.onnx_graphs import graph
from training.card import Card
from training.export import export_bundle
from training.model import create

UINT8, FLOAT, HALF = 2, 1, 10
TARGET = Settings(targets=("8.9",), level=0)
SHAPE = ["batch", "views", 4, 4, 3]


def profile(dtype: str = "float32", name: str = "X") -> list[Input]:
    return [Input(name, dtype, (1, 1, 4, 4, 3), (8, 1, 4, 4, 3), (8, 9, 4, 4, 3))]


def compiled(model: onnx.ModelProto, dtype: str = "float32") -> bytes | Refusal:
    return compile_graph(tensorrt_rtx, model, [profile(dtype)], TARGET)


def test_a_good_graph_compiles() -> None:
    model = graph(
        [("Cast", ["X"], ["c"], {"to": FLOAT}), ("Transpose", ["c"], ["Y"])],
        {"X": (UINT8, SHAPE)},
        ["Y"],
        {},
    )
    plan = compiled(model, "uint8")
    assert isinstance(plan, bytes)
    assert len(plan) > 1000


BROKEN = {
    "uint8 is moved": (
        [("Transpose", ["X"], ["t"]), ("Cast", ["t"], ["Y"], {"to": FLOAT})],
        UINT8,
        SHAPE,
        {},
        ("node_0_Transpose", "UInt8", "cast uint8 to float"),
    ),
    "the batch in an input": (
        [("Relu", ["X"], ["Y"])],
        FLOAT,
        [3, "views", 4, 4, 3],
        {},
        ("", "dimension 0 hard-coded as 3", "batch and V dynamic"),
    ),
    "the batch in a reshape": (
        [("Reshape", ["X", "w"], ["Y"])],
        FLOAT,
        SHAPE,
        {"w": np.array([3, 2, 48])},
        ("node_0_Reshape", "volume", "batch and V dynamic"),
    ),
    "the batch in a constant": (
        [("Add", ["X", "w"], ["Y"])],
        FLOAT,
        SHAPE,
        {"w": np.zeros((3, 2, 4, 4, 3), np.float32)},
        ("node_0_Add", "3 != 8", "batch and V dynamic"),
    ),
    "an operator that TensorRT lacks": (
        [("Relu", ["X"], ["a"]), ("Unique", ["a"], ["Y"])],
        FLOAT,
        SHAPE,
        {},
        ("node_1_Unique", "no operator Unique", "operators that TensorRT has"),
    ),
    "mixed types": (
        [("Cast", ["X"], ["h"], {"to": HALF}), ("Add", ["h", "X"], ["Y"])],
        FLOAT,
        SHAPE,
        {},
        ("node_1_Add", "Half and Float", "cast its inputs to one type"),
    ),
    "a float32 weight in a half product": (
        [("Cast", ["X"], ["h"], {"to": HALF}), ("MatMul", ["h", "w"], ["Y"])],
        FLOAT,
        SHAPE,
        {"w": np.zeros((3, 5), np.float32)},
        ("node_1_MatMul", "same input types", "cast its inputs to one type"),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_graph_is_named(name: str) -> None:
    nodes, dtype, shape, weights, (node, reason, remedy) = BROKEN[name]
    found = compiled(graph(nodes, {"X": (dtype, shape)}, ["Y"], weights), "uint8")
    assert isinstance(found, Refusal)
    assert (found.node, reason in found.reason, remedy in found.remedy) == (node, True, True), found
    # Nothing of a machine without a GPU, nor of TensorRT's own source.
    assert "/" not in found.reason.replace("views/", "")
    assert "CUDA" not in found.reason


def test_wrong_names_are_told() -> None:
    model = graph([("Relu", ["Z"], ["Y"])], {"Z": (FLOAT, SHAPE)}, ["Y"], {})
    found = compiled(model)
    assert isinstance(found, Refusal)
    assert "['Z'] instead of ['X']" in found.reason


def test_known_targets() -> None:
    assert set(targets_of(tensorrt_rtx)) >= {"8.0", "8.6", "8.9"}


def test_profiles_have_the_graphs_inputs(default: Bundle) -> None:
    model = onnx.load(default.graph(FUSION))
    inputs = profile_of(FUSION, default.manifest.tensors, max_batch=4)
    assert {i.name for i in inputs} == {i.name for i in model.graph.input}
    assert {i.maximum[:2] for i in inputs} == {(4, MAX_VIEWS)}


@pytest.fixture(scope="module")
def default() -> Bundle:
    return load_bundle()


def _views(name: str) -> str:
    """The dimension of V, or of V + T."""
    return "views" if name.startswith("GLOBAL") else "details"


@pytest.fixture(scope="module")
def broken(default: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The default bundle with graphs of a few nodes, one of which moves a uint8 tensor twice."""
    folder = tmp_path_factory.mktemp("broken")
    sizes = default.manifest.tensors
    files = {
        name: default.folder / name
        for name in default.manifest.files
        if name not in default.manifest.graphs.values()
    }
    for name in GRAPHS:
        inputs = {
            i.name: (
                UINT8 if i.dtype == "uint8" else FLOAT,
                ["batch", _views(i.name), *i.minimum[2:]],
            )
            for i in profile_of(name, sizes, max_batch=1)
        }
        first = next(iter(inputs))
        nodes = [("Cast", [n], [f"{n}.c"], {"to": FLOAT}) for n in inputs]
        nodes += [("Identity", [f"{n}.c"], [f"{n}.y"]) for n in inputs]
        if name == "local_branch":
            nodes += [("Tile", [first, "w"], ["t"]), ("Cast", ["t"], ["T"], {"to": FLOAT})]
        outputs = [f"{n}.y" for n in inputs] + (["T"] if name == "local_branch" else [])
        path = folder / f"{name}.onnx"
        onnx.save(graph(nodes, inputs, outputs, {"w": np.array([1, 2, 1, 1, 1])}), path)
        files[path.name] = path
    fields = json.loads((default.folder / MANIFEST).read_text())
    del fields["files"]
    return write_bundle(folder / "bundle", fields, files)


def test_a_refused_graph_does_not_hide_the_others(broken: Bundle) -> None:
    rows = list(check(broken, ["f32"], ["8.9"], level=0))
    assert [row.refusal is None for row in rows] == [True, False, True]
    refusal = rows[1].refusal
    assert refusal is not None
    assert refusal.operator == "Tile"
    assert rows[1].to_json()["refusal"]["node"] == refusal.node


def test_the_command_is_red_and_reports(broken: Bundle, tmp_path: Path, checkout: Path) -> None:
    command = [sys.executable, "-m", "build", "check", "--bundle", str(broken.folder)]
    report = tmp_path / "check.json"
    done = subprocess.run(
        [*command, "--precision", "f32", "--level", "0", "--json", str(report)],
        capture_output=True,
        text=True,
        cwd=checkout,
    )
    assert done.returncode == 1, done.stderr
    assert "(Tile)" in done.stdout
    assert NOT_PROVEN in done.stderr
    found = json.loads(report.read_text())
    assert found["schema"] == "giqa.check/1"
    assert [g["refusal"] is None for g in found["graphs"]] == [True, False, True]


# `giqa-b` is `giqa-s`, which `make check` compiles, but wider and with one block more.
@pytest.mark.parametrize("preset", [pytest.param("giqa-b", marks=pytest.mark.slow), "glint"])
def test_the_other_presets_compile(preset: str, tmp_path: Path) -> None:
    """What `make check` does with the default bundle; the weights are random."""
    torch.manual_seed(0)
    card = Card(summary="", code="", weights="", data={}, backbones=[], training=[], limits=[])
    plain = export_bundle(
        create(preset), tmp_path / "plain", version="0.0.1", accuracy=[], card=card, training={}
    )
    sizes, rng = plain.manifest.tensors, np.random.default_rng(0)
    views = [
        Views(*(rng.integers(0, 256, (1, side, side, 3), np.uint8) for side in sides))
        for sides in [(sizes.global_side, sizes.local_side)] * LEAST
    ]
    made = quantize(plain, views, tmp_path / "int8", version="0.0.2")
    assert made is not None
    rows = list(check(made, PRECISIONS, ["8.9"], level=0))
    assert len(rows) == len(PRECISIONS) * len(GRAPHS)
    assert [row for row in rows if row.refusal is not None] == []


def test_other_targets_are_told(default: Bundle) -> None:
    with pytest.raises(UsageError, match="does not build for it") as caught:
        next(check(default, ["f32"], ["9.0"]))
    assert "8.9" in caught.value.remedy


def test_without_tensorrt_rtx(default: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingExtraError) as caught:
        next(check(default, ["f32"], ["8.9"]))
    assert caught.value.remedy == "pip install 'giqa[check]'"


def test_a_timing_cache_that_cannot_be_read(tmp_path: Path) -> None:
    model = graph([("Relu", ["X"], ["Y"])], {"X": (FLOAT, SHAPE)}, ["Y"], {})
    settings = Settings(targets=("8.9",), level=0, timing_cache=tmp_path)
    with pytest.raises(EngineMismatchError, match="cannot be read"):
        compile_graph(tensorrt_rtx, model, [profile()], settings)


class _Config:
    """What a builder's config does with timings: those of this machine it takes."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def create_timing_cache(self, data: bytes) -> bytes | None:
        return None if data == b"broken" else data

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache in (b"", b"of here"):
            self.taken.append(cache)
            return True
        return False


@pytest.mark.parametrize("data", [b"of another GPU", b"broken"])
def test_timings_of_another_gpu_are_set_aside(data: bytes, tmp_path: Path) -> None:
    """They ended every start of the container, and it was started again."""
    path, config = tmp_path / "timing.cache", _Config()
    path.write_bytes(data)
    _load_timings(config, path)
    assert config.taken == [b""]
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("timing.cache.stale", data)]
    path.write_bytes(b"of here")
    _load_timings(config, path)
    assert config.taken == [b"", b"of here"]
    assert path.exists()


def test_the_default_compiles_bf16_for_two_generations() -> None:
    (targets,) = (p.default for p in check_command.params if "--target" in p.opts)
    assert set(targets) == {"8.9", "12.0"}
    assert "bf16" in precisions_of(load_bundle())
