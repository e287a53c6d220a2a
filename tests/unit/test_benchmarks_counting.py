"""Operations counted from graphs: by hand, and by PyTorch's own counter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import model_of
from benchmarks.counting import Count, count
from build.graphs import engine_graph
from giqa.bundle import load_bundle
from giqa.contract import GRAPHS
from tests.onnx_graphs import graph


def test_a_small_graph_by_hand() -> None:
    model = graph(
        [
            # (B, 6, 8, 8) -> (B, 4, 4, 4): 4 * 4 * 4 numbers of 3 * 3 * 3 multiply-adds each
            (
                "Conv",
                ["x", "kernel"],
                ["c"],
                {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]},
            ),
            ("Relu", ["c"], ["r"]),
            ("Shape", ["r"], ["shape"], {"end": 1}),
            ("Concat", ["shape", "rest"], ["wanted"], {"axis": 0}),
            ("Reshape", ["r", "wanted"], ["flat"]),  # (B, 4, 16)
            ("MatMul", ["flat", "weight"], ["y"]),  # (B, 4, 5) of 16 multiply-adds each
        ],
        {"x": (TensorProto.FLOAT, ["batch", 6, 8, 8])},
        ["y"],
        {
            "kernel": np.zeros((4, 3, 3, 3)),
            "rest": np.array([4, 16], np.int64),
            "weight": np.zeros((16, 5)),
        },
    )
    one = count(model, {"batch": 1})
    x, kernel, conv, flat, weight, y = 6 * 64, 4 * 27, 64, 64, 80, 20
    assert one == Count(
        flops=2 * (64 * 27 + 20 * 16),
        values=kernel + 2 + weight + x + y,
        streamed=(x + kernel + conv) + (flat + weight + y),
    )
    assert count(model, {"batch": 3}).flops == 3 * one.flops


def test_gemm_is_counted_by_its_depth() -> None:
    for given, options in (((7, 3), {}), ((3, 7), {"transA": 1})):
        model = graph(
            [("Gemm", ["a", "b", "c"], ["y"], options)],
            {"a": (TensorProto.FLOAT, given)},
            ["y"],
            {"b": np.zeros((3, 4)), "c": np.zeros(4)},
        )
        assert count(model, {}).flops == 2 * 7 * 3 * 4


def test_an_unknown_shape_is_an_error() -> None:
    model = graph(
        [("Reshape", ["x", "s"], ["r"]), ("MatMul", ["r", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, [6, 2]), "s": (TensorProto.INT64, [2])},
        ["y"],
        {"w": np.zeros((4, 4))},
    )
    with pytest.raises(ValueError, match="no shape of r"):
        count(model, {})


def test_the_bundles_graphs_count_as_the_model_does() -> None:
    bundle = load_bundle()
    sizes = bundle.manifest.tensors
    with torch.device("meta"):  # shapes only
        model = model_of(bundle)
        views = [
            torch.zeros(1, 1, side, side, 3, dtype=torch.uint8)
            for side in (sizes.global_side, sizes.local_side)
        ]
    # The counter sees the attention's products only if they are not fused.
    with (
        torch.inference_mode(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False, depth=2) as counter,
    ):
        model(*views)
    by_module = counter.get_flop_counts()
    for name in GRAPHS:
        wanted = sum(by_module[f"Giqa.{name}"].values())
        found = count(
            engine_graph(bundle, name, "f32"), {"batch": 1, "views": 1, "details": 1}
        ).flops
        assert found == wanted, name
