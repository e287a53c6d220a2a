"""PyTorch computes engine graphs as ONNX Runtime does, and in the types that they say."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from build.graphs import engine_graph
from build.interpreter import Interpreter
from build.runtimes import onnx_runtime
from giqa.bundle import Bundle, load_bundle
from giqa.contract import FUSION, GRAPHS
from giqa.errors import EngineMismatchError
from giqa.precision import Precision
from tests.onnx_graphs import graph, run

FLOAT, HALF, UINT8, INT8 = (TensorProto.FLOAT, TensorProto.FLOAT16, 2, 3)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture(scope="module")
def tensors(bundle: Bundle) -> dict[str, np.ndarray]:
    """Views of an image, and tokens of two with four tiles, of about the real size."""
    sizes, rng = bundle.manifest.tensors, np.random.default_rng(0)

    def view(count: int, side: int) -> np.ndarray:
        return rng.integers(0, 256, (1, count, side, side, 3), np.uint8)

    shape = (sizes.tokens, sizes.dim)
    return {
        "GLOBAL_VIEW": view(1, sizes.global_side),
        "LOCAL_VIEW": view(2, sizes.local_side),
        "GLOBAL_TOKENS": rng.normal(size=(2, 1, sizes.stages, *shape)).astype(np.float32),
        "LOCAL_TOKENS": rng.normal(size=(2, 5, *shape)).astype(np.float32),
    }


def computed(
    bundle: Bundle, name: str, precision: Precision, tensors: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    run = Interpreter(engine_graph(bundle, name, precision))
    found = run({n: torch.from_numpy(tensors[n]).to(run.types[n]) for n in run.inputs})
    return {n: t.numpy() for n, t in found.items()}


@pytest.mark.parametrize("name", GRAPHS)
def test_float32_is_onnx_runtimes(
    name: str, bundle: Bundle, tensors: dict[str, np.ndarray]
) -> None:
    reference = onnx_runtime(bundle, threads=2).graphs
    assert reference is not None
    found = computed(bundle, name, "f32", tensors)
    expected = reference(name, {n: tensors[n] for n in engine_inputs(bundle, name)})
    assert found.keys() == expected.keys()
    for tensor, values in expected.items():
        assert found[tensor].shape == values.shape
        assert np.abs(found[tensor] - values).max() < 2e-3 * np.abs(values).max(), tensor


def engine_inputs(bundle: Bundle, name: str) -> list[str]:
    return [i.name for i in engine_graph(bundle, name, "f32").graph.input]


@pytest.mark.parametrize("precision", ["f16", "bf16", "int8"])
def test_lower_precisions_are_near(
    precision: Precision, bundle: Bundle, tensors: dict[str, np.ndarray]
) -> None:
    exact = computed(bundle, FUSION, "f32", tensors)["SCORE"]
    found = computed(bundle, FUSION, precision, tensors)["SCORE"]
    assert 0 < np.abs(found - exact).max() < 1


X = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
OPERATORS = {
    "Slice from the end": (
        [("Slice", ["X", "a", "b", "c"], ["Y"])],
        {"a": [-3], "b": [2**40], "c": [3]},
    ),
    "Slice by steps": (
        [("Slice", ["X", "a", "b", "c", "d"], ["Y"])],
        {"a": [1], "b": [-1], "c": [2], "d": [2]},
    ),
    "Gather backwards": ([("Gather", ["X", "a"], ["Y"], {"axis": 2})], {"a": [[-1, 0], [3, -2]]}),
    "GatherND": ([("GatherND", ["X", "a"], ["Y"])], {"a": [[0, 1], [1, 2]]}),
    "AveragePool": (
        [("AveragePool", ["X"], ["Y"], {"kernel_shape": [4, 4], "strides": [4, 4]})],
        {},
    ),
    "ReduceL2": ([("ReduceL2", ["X", "a"], ["Y"], {"keepdims": 0})], {"a": [-1, 1]}),
    "ReduceMean of all": ([("ReduceMean", ["X"], ["Y"])], {}),
    "Conv, groups and uneven pads": (
        [("Conv", ["X", "w"], ["Y"], {"group": 3, "pads": [0, 1, 1, 0], "strides": [2, 2]})],
        {"w": np.ones((6, 1, 3, 3), np.float32)},
    ),
    "Gemm": (
        [("Flatten", ["X"], ["f"]), ("Gemm", ["f", "w", "b"], ["Y"], {"transB": 1, "alpha": 0.5})],
        {"w": np.ones((4, 192), np.float32), "b": np.arange(4, dtype=np.float32)},
    ),
    "int8, per channel": (
        [
            ("QuantizeLinear", ["X", "s", "z"], ["q"], {"axis": 1}),
            ("DequantizeLinear", ["q", "s", "z"], ["Y"], {"axis": 1}),
        ],
        {"s": np.array([0.01, 0.02, 0.5], np.float32), "z": np.zeros(3, np.int8)},
    ),
    "uint8": (
        [("QuantizeLinear", ["X", "s", "z"], ["q"]), ("DequantizeLinear", ["q", "s", "z"], ["Y"])],
        {"s": np.float32(0.01), "z": np.uint8(3)},
    ),
    "Clip of one side": ([("Clip", ["X", "a"], ["Y"])], {"a": np.float32(0)}),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_onnx_runtimes(name: str) -> None:
    nodes, weights = OPERATORS[name]
    weights = {n: np.asarray(w) for n, w in weights.items()}
    model = graph(nodes, {"X": (FLOAT, ["b", 3, 8, 8])}, ["Y"], weights)
    (expected,) = run(model, {"X": X})
    found = Interpreter(model)({"X": torch.from_numpy(X)})["Y"].numpy()
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_halves_are_halves() -> None:
    """ONNX Runtime computes such a graph in float32 on a CPU: 300 x 300 would be 90,000."""
    nodes = [
        ("Cast", ["X"], ["h"], {"to": HALF}),
        ("Mul", ["h", "h"], ["m"]),
        ("Cast", ["m"], ["Y"], {"to": FLOAT}),
    ]
    model = graph(nodes, {"X": (FLOAT, ["n"])}, ["Y"], {})
    found = Interpreter(model)({"X": torch.tensor([300.0, 1 + 2**-9])})["Y"]
    assert torch.isinf(found[0])
    assert found[1] == torch.tensor((1 + 2**-9) ** 2).half().float()


def test_mixed_types_are_refused() -> None:
    nodes = [("Cast", ["X"], ["h"], {"to": HALF}), ("Add", ["h", "X"], ["Y"])]
    model = graph(nodes, {"X": (FLOAT, ["n"])}, ["Y"], {})
    with pytest.raises(EngineMismatchError, match="float16, torch.float32") as caught:
        Interpreter(model)({"X": torch.ones(2)})
    assert caught.value.item == "node_1_Add"


def test_an_operator_that_is_not_known_is_told() -> None:
    model = graph([("Unique", ["X"], ["Y"])], {"X": (FLOAT, ["n"])}, ["Y"], {})
    with pytest.raises(EngineMismatchError, match="Unique is not known"):
        Interpreter(model)


def test_types_of_inputs_and_outputs_are_the_graphs(
    bundle: Bundle, tensors: dict[str, np.ndarray]
) -> None:
    model = engine_graph(bundle, FUSION, "f16")
    wanted = {o.name: o.type.tensor_type.elem_type for o in model.graph.output}
    found = computed(bundle, FUSION, "f16", tensors)
    kinds = {n: onnx.helper.np_dtype_to_tensor_dtype(t.dtype) for n, t in found.items()}
    assert kinds == wanted
