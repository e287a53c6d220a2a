"""Graphs as engines are built from them: the same numbers, in the types that they say."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from build.compress import compress
from build.graphs import engine_graph, floats_first, unpack
from build.numerics import FLOAT32_OPS, OPSET
from build.precision import _bfloat16_bits, to_half
from giqa.bundle import Bundle, load_bundle
from giqa.contract import FUSION, GLOBAL_BRANCH, GRAPHS, LOCAL_BRANCH
from giqa.errors import EngineMismatchError
from tests.onnx_graphs import graph, run

PRODUCTS = {"Conv", "Gemm", "MatMul"}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture(scope="module")
def tokens(bundle: Bundle) -> dict[str, np.ndarray]:
    sizes, rng = bundle.manifest.tensors, np.random.default_rng(0)
    shapes = {
        "GLOBAL_TOKENS": (3, 2, sizes.stages, sizes.tokens, sizes.dim),
        "LOCAL_TOKENS": (3, 2, sizes.tokens, sizes.dim),
    }
    return {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of all values, by ONNX's own inference, strict."""
    found = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = (*found.input, *found.output, *found.value_info)
    return {v.name: v.type.tensor_type.elem_type for v in values} | {
        t.name: t.data_type for t in found.initializer
    }


def test_unpack_undoes_compress() -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(-127, 128, (96, 64))
    levels[:, 0] = 127
    scale = rng.uniform(0.1, 1, (96, 1)).astype(np.float32)
    weights = {
        "int8": (levels.astype(np.float32) * scale).T.copy(),
        "float16": rng.normal(size=(64, 96)).astype(np.float16).astype(np.float32),
        "float32": rng.normal(size=(64, 96)).astype(np.float32),
        "small": rng.normal(size=(64, 2)).astype(np.float32),
    }
    nodes = [("MatMul", ["X", name], [f"Y.{name}"]) for name in weights]
    model = graph(nodes, {"X": (1, [None, 64])}, [f"Y.{n}" for n in weights], weights)
    stored = compress(model)
    assert min(stored.values()) > 0
    assert {n.op_type for n in model.graph.node} >= {"DequantizeLinear", "Cast"}
    unpack(model)
    assert {n.op_type for n in model.graph.node} == {"MatMul"}
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert set(found) == set(weights)
    for name, value in weights.items():
        np.testing.assert_allclose(found[name], value, rtol=0 if name != "int8" else 1e-6)


def _moved(*, cast_last: bool) -> onnx.ModelProto:
    ends = [("Cast", ["b"], ["c"], {"to": 1}), ("Relu", ["c"], ["Y"])]
    return graph(
        [
            ("Shape", ["X"], ["s"], {"start": 0, "end": 1}),
            ("Reshape", ["X", "flat"], ["a"]),
            ("Transpose", ["a"], ["b"], {"perm": [1, 0]}),
            *(ends if cast_last else [("Identity", ["b"], ["Y"])]),
            ("Cast", ["s"], ["N"], {"to": 1}),
        ],
        {"X": (TensorProto.UINT8, ["batch", 4, 3])},
        {"Y": 1 if cast_last else TensorProto.UINT8, "N": 1},
        {"flat": np.array([-1, 3])},
    )


def test_the_cast_of_uint8_comes_first_and_changes_nothing() -> None:
    model, first = _moved(cast_last=True), _moved(cast_last=True)
    floats_first(first)
    assert first.graph.node[0].op_type == "Cast"
    found = types(first)
    readers = [n for n in first.graph.node if found.get(n.input[0]) == TensorProto.UINT8]
    assert {n.op_type for n in readers} == {"Cast", "Shape"}
    inputs = {"X": np.random.default_rng(0).integers(0, 255, (5, 4, 3), np.uint8)}
    for a, b in zip(run(model, inputs), run(first, inputs), strict=True):
        assert np.array_equal(a, b)


def test_what_is_no_cast_to_float_stays() -> None:
    model = _moved(cast_last=False)
    before = model.SerializeToString()
    floats_first(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("name", [GLOBAL_BRANCH, LOCAL_BRANCH])
def test_branches_begin_with_a_cast(bundle: Bundle, name: str) -> None:
    model = engine_graph(bundle, name, "f32")
    (view,) = (i.name for i in model.graph.input)
    readers = {n.op_type for n in model.graph.node if view in n.input}
    assert readers <= {"Cast", "Shape"}
    assert "DequantizeLinear" not in {n.op_type for n in model.graph.node}


@pytest.mark.parametrize("name", [FUSION, LOCAL_BRANCH])
@pytest.mark.parametrize(("precision", "half"), [("f16", 10), ("bf16", 16), ("int8", 10)])
def test_halves_are_where_they_belong(bundle: Bundle, name: str, precision: str, half: int) -> None:
    model = engine_graph(bundle, name, precision)
    found = types(model)
    seen = set()
    for node in model.graph.node:
        floats = {found[n] for n in (*node.input, *node.output) if n} & {1, 10, 16}
        if node.op_type in PRODUCTS:
            assert floats == {half}, node.name
            seen.add(node.op_type)
        elif node.op_type in FLOAT32_OPS:
            assert floats == {TensorProto.FLOAT}, node.name
            seen.add(node.op_type)
        elif node.op_type != "Cast":
            assert len(floats) <= 1, f"{node.name} mixes types"
    assert seen >= {"Conv", "MatMul", "Softmax", "LayerNormalization"}
    tokens = TensorProto.FLOAT16 if half == 10 else TensorProto.FLOAT
    for value in (*model.graph.input, *model.graph.output):
        views = value.name.endswith("VIEW")
        wanted = tokens if value.name.endswith("TOKENS") else TensorProto.FLOAT
        assert value.type.tensor_type.elem_type == (TensorProto.UINT8 if views else wanted)
    opset = next(o.version for o in model.opset_import if o.domain == "")
    assert precision == "int8" or opset == (OPSET if precision == "f16" else 22)


@pytest.mark.parametrize(("precision", "least"), [("f16", 1e-5), ("bf16", 1e-4)])
def test_emulation_rounds_but_little(
    bundle: Bundle, tokens: dict[str, np.ndarray], precision: str, least: float
) -> None:
    exact = run(engine_graph(bundle, FUSION, "f32"), tokens)[0]
    found = run(engine_graph(bundle, FUSION, precision, emulate=True), tokens)[0]
    assert found.dtype == np.float32
    assert least < np.abs(found - exact).max() < 1


def test_emulation_is_what_numpy_gives() -> None:
    rng = np.random.default_rng(0)
    x, w, v = (rng.normal(size=s).astype(np.float32) for s in ((4, 64), (64, 64), (64, 8)))
    model = graph(
        [("MatMul", ["X", "w"], ["a"]), ("Relu", ["a"], ["b"]), ("MatMul", ["b", "v"], ["Y"])],
        {"X": (1, [None, 64])},
        ["Y"],
        {"w": w, "v": v},
    )
    to_half(model, "f16", emulate=True)

    def rounded(a: np.ndarray) -> np.ndarray:
        return a.astype(np.float16).astype(np.float32)

    expected = rounded(np.maximum(rounded(rounded(x) @ rounded(w)), 0) @ rounded(v))
    np.testing.assert_allclose(run(model, {"X": x})[0], expected, atol=2e-2, rtol=1e-3)
    assert np.abs(expected - np.maximum(x @ w, 0) @ v).max() > 1e-3


def test_large_constants_stay_finite() -> None:
    model = graph([("MatMul", ["X", "w"], ["Y"])], {"X": (1, [2, 1])}, ["Y"], {"w": [[1e6]]})
    to_half(model, "f16")
    (weight,) = model.graph.initializer
    assert np.isfinite(numpy_helper.to_array(weight)).all()


def test_a_subgraph_is_refused() -> None:
    branch = helper.make_graph([], "g", [], [])
    model = graph([("Relu", ["X"], ["Y"])], {"X": (1, [2])}, ["Y"], {})
    model.graph.node.append(helper.make_node("If", ["c"], ["Z"], "if", then_branch=branch))
    with pytest.raises(ValueError, match="if: If has a subgraph"):
        to_half(model, "f16")


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_bfloat16_rounds_like_torch(values: list[float]) -> None:
    array = np.array(values, np.float32)
    expected = torch.from_numpy(array).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(_bfloat16_bits(array), expected)


def test_int8_needs_a_bundle_with_it(bundle: Bundle) -> None:
    without = Bundle(bundle.folder, bundle.manifest.model_copy(update={"int8": None}))
    with pytest.raises(EngineMismatchError, match="has no int8") as caught:
        engine_graph(without, GRAPHS[0], "int8")
    assert "python -m build quantize" in caught.value.remedy
