"""Small ONNX graphs made by code, and ONNX Runtime to run them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from build.numerics import OPSET


def graph(
    nodes: Iterable[tuple],
    inputs: Mapping[str, tuple[int, Sequence]],
    outputs: Iterable[str] | Mapping[str, int],
    weights: Mapping[str, Any],
) -> onnx.ModelProto:
    """Make a model.

    Args:
        nodes: operator, inputs, outputs and maybe attributes; called `node_0_OPERATOR` and so on.
        inputs: element type and shape by name.
        outputs: names, with types where they are not float32.
        weights: arrays by name.
    """
    made = []
    for i, (operator, given, gives, *rest) in enumerate(nodes):
        name = f"node_{i}_{operator}"
        made.append(helper.make_node(operator, given, gives, name, **(rest[0] if rest else {})))
    types = outputs if isinstance(outputs, Mapping) else dict.fromkeys(outputs, TensorProto.FLOAT)
    model = helper.make_model(
        helper.make_graph(
            made,
            "graph",
            [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
            [helper.make_tensor_value_info(n, t, None) for n, t in types.items()],
            [
                numpy_helper.from_array(
                    np.asarray(w, None if isinstance(w, np.ndarray) else np.float32), n
                )
                for n, w in weights.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
    )
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run a model with ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(inputs))
