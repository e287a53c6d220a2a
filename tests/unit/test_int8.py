"""int8 put into float graphs, against plain NumPy, and against ONNX Runtime on the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from build.graphs import engine_graph
from build.images import decode, read_labelled
from build.int8 import quantize as quantize_onnx
from build.numerics import ONNX_RUNTIME_INT8
from build.parity import compare
from build.runtimes import openvino as openvino_runtime
from giqa.bundle import Bundle, load_bundle
from giqa.contract import FUSION, GLOBAL_TOKENS, GRAPHS, LOCAL_TOKENS, QUALITY_MAP, SCORE
from giqa.errors import BundleInvalidError, EngineMismatchError
from giqa.openvino import (
    INT8_LEVELS,
    CompiledGraph,
    Product,
    choose_precision,
    core,
    int8_is_fast,
    levels_here,
    read_products,
    weight_levels,
    write_products,
)
from giqa.openvino._int8 import quantize
from giqa.openvino._model import _read
from giqa.precision import BOUNDS

FLOATS = st.floats(-100, 100, width=32)
RNG = np.random.default_rng(0)


def f32(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def product(node: str, inputs: int, outputs: int, **changes: Any) -> Product:
    fields: dict[str, Any] = {
        "kind": "int8",
        "step": np.float32(0.02).reshape(()),
        "smooth": np.linspace(0.5, 2, inputs, dtype=np.float32),
        "shift": np.linspace(-1, 1, outputs, dtype=np.float32),
    }
    return Product(node, **fields | changes)


def rounded(values: np.ndarray, kind: str, step: np.ndarray) -> np.ndarray:
    low, high = (-128, 127) if kind == "int8" else (0, 255)
    return np.clip(np.rint(values / step), low, high) * step


@given(
    arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=FLOATS),
    st.sampled_from([0, 1]),
)
def test_weights_are_off_by_half_a_level_at_most(weights: np.ndarray, axis: int) -> None:
    levels, scale = weight_levels(weights, axis)
    assert levels.dtype == np.int8
    assert np.abs(levels.astype(int)).max() <= INT8_LEVELS
    assert scale.size == weights.shape[axis]
    assert np.all(np.abs(levels * scale - weights) <= scale * 0.501)


def test_smoothing_moves_channels_into_the_weights() -> None:
    weights, smooth = f32(4, 3), np.array([0.5, 1, 2, 4], np.float32)
    levels, scale = weight_levels(weights, 1, smooth)
    assert np.allclose(levels * scale, weights / smooth[:, None], atol=scale.max() * 0.501)


def test_the_file_says_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "int8.npz"
    first = product("a/b", 3, 5)
    second = product("c", 3, 5, kind="uint8", step=f32(3) ** 2 + 1, smooth=None, shift=None)
    write_products(path, {GRAPHS[0]: [first, second], GRAPHS[1]: [first]})
    found = read_products(path, GRAPHS[0])
    assert [(p.node, p.kind) for p in found] == [("a/b", "int8"), ("c", "uint8")]
    for ours, theirs in zip(found, (first, second), strict=True):
        for part in ("step", "smooth", "shift"):
            assert np.array_equal(getattr(ours, part), getattr(theirs, part))
    assert read_products(path, GRAPHS[2]) == []
    data = path.read_bytes()
    write_products(path, {GRAPHS[0]: [first, second], GRAPHS[1]: [first]})
    assert path.read_bytes() == data


def precise() -> onnxruntime.SessionOptions:
    """ONNX Runtime as `build` runs it."""
    options = onnxruntime.SessionOptions()
    for key, value in ONNX_RUNTIME_INT8.items():
        options.add_session_config_entry(key, value)
    return options


STEP = np.ones((), np.float32)


@pytest.mark.parametrize(
    "parts",
    [
        {"smooth": np.ones(3, np.float32)},
        {"int8": STEP, "uint8": STEP},
        {"int8": STEP, "other": STEP},
        {"int8": STEP * 0},
        {"int8": STEP * np.float32(np.nan)},
        {"int8": STEP.astype(np.float64)},
        {"int8": np.ones((1, 1), np.float32)},
        {"int8": STEP, "smooth": -np.ones(3, np.float32)},
        {"int8": np.array([{}], object)},
    ],
)
def test_another_file_is_refused(tmp_path: Path, parts: dict[str, np.ndarray]) -> None:
    path = tmp_path / "int8.npz"
    np.savez(path, **{f"{FUSION}/node/{part}": values for part, values in parts.items()})
    with pytest.raises(BundleInvalidError):
        read_products(path, FUSION)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no more", b"text"])
def test_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "int8.npz").write_bytes(data)
    with pytest.raises(BundleInvalidError, match="cannot be read"):
        read_products(tmp_path / "int8.npz", FUSION)


def matrix(most: int = INT8_LEVELS) -> tuple[onnx.ModelProto, np.ndarray, Product, np.ndarray]:
    one = product("product", 6, 4)
    x, w, b = f32(2, 3, 6), f32(6, 4), f32(4)
    nodes = [helper.make_node("MatMul", ["X", "w"], ["m"], name="product")]
    nodes.append(helper.make_node("Add", ["m", "b"], ["Y"], name="bias"))
    levels, scale = weight_levels(w, 1, one.smooth, most)
    expected = rounded(x * one.smooth, one.kind, one.step) @ (levels * scale) + b + one.shift
    return _model(nodes, x, expected, {"w": w, "b": b}), x, one, expected


def convolution(
    groups: int, most: int = INT8_LEVELS
) -> tuple[onnx.ModelProto, np.ndarray, Product, np.ndarray]:
    """A kernel of one pixel, so that NumPy can do it; per channel where every group has one."""
    step = np.full(4, 0.03, np.float32) if groups == 4 else np.array(0.03, np.float32)
    one = product("product", 4, 8, kind="uint8", step=step, smooth=None)
    x, w, b = np.abs(f32(2, 4, 3, 5)), f32(8, 4 // groups, 1, 1), f32(8)
    nodes = [helper.make_node("Conv", ["X", "w", "b"], ["Y"], name="product", group=groups)]
    levels, scale = weight_levels(w, 0, None, most)
    per = step.reshape(1, -1, 1, 1) if step.ndim else step
    parts = np.split(rounded(x, one.kind, per), groups, 1)
    kernels = np.split((levels * scale)[:, :, 0, 0], groups)
    made = [np.einsum("bihw,oi->bohw", *pair) for pair in zip(parts, kernels, strict=True)]
    expected = np.concatenate(made, 1) + (b + one.shift)[:, None, None]
    return _model(nodes, x, expected, {"w": w, "b": b}), x, one, expected


def _model(
    nodes: list[onnx.NodeProto], x: np.ndarray, y: np.ndarray, constants: dict[str, np.ndarray]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, y.shape)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


CASES: dict[str, Callable[..., Any]] = {
    "matrix": matrix,
    "convolution": partial(convolution, 1),
    "groups": partial(convolution, 2),
    "depthwise": partial(convolution, 4),
}


@pytest.mark.parametrize("case", CASES)
def test_openvino_computes_what_numpy_does(case: str, tmp_path: Path) -> None:
    model, x, one, expected = CASES[case](most=levels_here())
    onnx.save(model, tmp_path / "float.onnx")
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    model = _read(tmp_path / "float.onnx", [one])
    request = core().compile_model(model, "CPU", options).create_infer_request()
    np.testing.assert_allclose(request.infer([x])[0], expected, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_onnx_runtime_computes_what_numpy_does(case: str) -> None:
    model, x, one, expected = CASES[case]()
    quantize_onnx(model, [one])
    onnx.checker.check_model(model)
    assert Counter(n.op_type for n in model.graph.node)["DequantizeLinear"] == 2
    session = onnxruntime.InferenceSession(model.SerializeToString(), precise())
    np.testing.assert_allclose(session.run(None, {"X": x})[0], expected, atol=1e-4)


def test_a_product_that_is_not_there_is_named(tmp_path: Path) -> None:
    model, *_ = matrix()
    onnx.save(model, tmp_path / "float.onnx")
    read = core().read_model(tmp_path / "float.onnx")
    with pytest.raises(EngineMismatchError, match="no product other"):
        quantize(read, [product("other", 6, 4)])


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


def test_every_product_runs_in_int8(bundle: Bundle) -> None:
    for graph in GRAPHS:
        compiled = CompiledGraph(bundle, graph, "int8", 1)
        ran = Counter(
            (info["layerType"], info["runtimePrecision"])
            for info in (
                {k: v.astype(str) for k, v in op.get_rt_info().items()}
                for op in compiled._whole.get_compiled_model().get_runtime_model().get_ops()
            )
        )
        quantized = sum(
            count
            for (layer, precision), count in ran.items()
            if layer in ("FullyConnected", "Convolution") and precision in ("i8", "u8")
        )
        assert quantized == len(read_products(bundle.int8, graph)) > 0


def test_the_engine_and_onnx_runtime_agree(bundle: Bundle) -> None:
    """On the fusion graph: behind more products, a rounding that falls otherwise multiplies."""
    sizes = bundle.manifest.tensors
    count, rng = sizes.tokens, np.random.default_rng(0)
    tokens = {
        GLOBAL_TOKENS: rng.normal(size=(2, 1, sizes.stages, count, sizes.dim)).astype(np.float32),
        LOCAL_TOKENS: rng.normal(size=(2, 1, count, sizes.dim)).astype(np.float32),
    }
    graph = engine_graph(bundle, FUSION, "int8", emulate=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), precise())
    names = [SCORE, QUALITY_MAP]
    theirs = dict(zip(names, session.run(names, tokens), strict=True))
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    products = read_products(bundle.int8, FUSION)
    model = _read(bundle.graph(FUSION), products)
    request = core().compile_model(model, "CPU", options).create_infer_request()
    ours = dict(zip(names, (request.infer(tokens)[name] for name in names), strict=True))
    exact = CompiledGraph(bundle, FUSION, "f32", 1)(tokens)
    for name in names:
        apart, lost = (np.abs(x[name] - theirs[name]).mean() for x in (ours, exact))
        assert apart < (0.2 if levels_here() == INT8_LEVELS else 2) * lost


def worst(weight: float) -> tuple[onnx.ModelProto, np.ndarray, Product, np.ndarray]:
    """Sums as large as they get: all activations at their end, all weights at theirs."""
    one = product("product", 64, 8, kind="uint8", step=STEP / 100, smooth=None, shift=None)
    x, w = np.full((1, 64, 2, 2), 2.55, np.float32), np.full((8, 64, 1, 1), weight, np.float32)
    nodes = [helper.make_node("Conv", ["X", "w", "b"], ["Y"], name="product")]
    expected = np.full((1, 8, 2, 2), 64 * 2.55 * weight, np.float32)
    return _model(nodes, x, expected, {"w": w, "b": np.zeros(8, np.float32)}), x, one, expected


HELD = """
import sys
import numpy as np, onnx, openvino
from pathlib import Path
from giqa.openvino import levels_here
from giqa.openvino._model import _read
from giqa.precision import BOUNDS
from tests.unit.test_int8 import CASES, worst
folder = Path(sys.argv[1])
cases = {name: make(most=levels_here()) for name, make in CASES.items()}
cases |= {"up": worst(0.5), "down": worst(-0.5)}
for name, (model, x, one, expected) in cases.items():
    onnx.save(model, folder / f"{name}.onnx")
    read = _read(folder / f"{name}.onnx", [one])
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(read, "CPU", options).create_infer_request()
    found = request.infer([x])[0]
    print(name, levels_here(), np.abs(found - expected).max())
"""


@pytest.mark.parametrize("held", ["", "AVX2", "AVX512_CORE"])
def test_no_sum_saturates(held: str, checkout: Path, tmp_path: Path) -> None:
    """On this CPU, and as on older ones: oneDNN keeps to instructions without products of int8."""
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    env |= {"ONEDNN_MAX_CPU_ISA": held} if held else {}
    done = subprocess.run(
        [sys.executable, "-c", HELD, str(tmp_path)],
        env=env, capture_output=True, text=True, cwd=checkout, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    found = {name: (int(most), float(off)) for name, most, off in rows}
    assert found.keys() == {*CASES, "up", "down"}
    wanted = 63 if held else levels_here()
    assert {n for n, _ in found.values()} == {wanted}
    assert max(off for _, off in found.values()) < 1e-3, found


@pytest.mark.slow
@pytest.mark.parametrize("most", [INT8_LEVELS, 63])
def test_the_gate_holds_on_both_paths(
    most: int, bundle: Bundle, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers are those of a CPU without products of int8, since nothing saturates."""
    if most > levels_here():
        pytest.skip("this CPU has no products of int8")
    monkeypatch.setattr("giqa.openvino._int8.levels_here", lambda: most)
    paths, _ = read_labelled(data / "biq2021-val", 48)
    views = decode(paths, bundle.manifest, 2)
    runtimes = [openvino_runtime(bundle, precision) for precision in ("f32", "int8")]
    (row,) = compare("", views, runtimes[0], runtimes[1:]).rows
    assert row.passes
    assert row.score.largest <= BOUNDS["int8"].tolerance


def test_auto_is_not_int8_where_it_is_not_fast(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")
    assert not int8_is_fast()
    assert choose_precision(bundle, "auto") != "int8"
