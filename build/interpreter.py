"""Engine graphs computed by PyTorch: a third opinion, beside TensorRT's and ONNX Runtime's.

Operator by operator, in exactly the types that the graph says, as TensorRT computes a strongly
typed network: halves are halves, not float32 rounded now and then. Runs wherever PyTorch does, so a
machine with a GPU and PyTorch alone can tell what half precision and the graphs cost. Nothing is
fused: speed is PyTorch's, not TensorRT's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from build.operators import DTYPES, HOST, OPERATORS, Operator
from giqa.errors import EngineMismatchError

_TYPED = ("Add", "Sub", "Mul", "Div", "MatMul", "Gemm", "Conv", "Concat", "LayerNormalization")
"""What TensorRT gives one type alone."""

Attributes = Mapping[str, Any]


class Interpreter:
    """A graph, ready to be computed.

    Args:
        model: from `build.graphs.engine_graph`.
        device: where.

    Raises:
        EngineMismatchError: it has an operator that is not known here.
    """

    def __init__(self, model: onnx.ModelProto, device: torch.device | str = "cpu") -> None:
        graph, self._device = model.graph, torch.device(device)
        self._constants = {t.name: self._constant(t) for t in graph.initializer}
        self._indices: dict[tuple[object, ...], Tensor] = {}
        self._nodes: list[tuple[onnx.NodeProto, Operator, Attributes]] = []
        last: dict[str, int] = {}
        for node in graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self._constants[node.output[0]] = self._constant(_value(attributes))
                continue
            if (operator := OPERATORS.get(node.op_type)) is None:
                raise EngineMismatchError(
                    f"{node.op_type} is not known to the interpreter",
                    item=node.name,
                    remedy="add it to build/operators.py",
                )
            last |= dict.fromkeys(node.input, len(self._nodes))
            self._nodes.append((node, operator, attributes))
        self.inputs = [i.name for i in graph.input if i.name not in self._constants]
        self.types = {i.name: DTYPES[i.type.tensor_type.elem_type] for i in graph.input}
        self.outputs = [o.name for o in graph.output]
        kept = {*self._constants, *self.outputs, ""}
        self._done: list[list[str]] = [[] for _ in self._nodes]
        for name, i in last.items():
            if name not in kept:
                self._done[i].append(name)

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the graph.

        Args:
            inputs: tensors by name, on the device, with the batch, in the graph's types.

        Returns:
            Its outputs by name, in the graph's types.

        Raises:
            EngineMismatchError: an input has another type, or values of several types meet in an
                operator that casts none.
        """
        values: dict[str, Tensor | None] = {"": None, **self._constants}
        for name in self.inputs:
            if inputs[name].dtype != self.types[name]:
                raise EngineMismatchError(
                    f"is {inputs[name].dtype} instead of {self.types[name]}", item=name
                )
            values[name] = inputs[name]
        for (node, operator, attributes), done in zip(self._nodes, self._done, strict=True):
            given = [values[name] for name in node.input]
            types = {t.dtype for t in given if t is not None}
            if node.op_type in _TYPED and len(types) > 1:
                raise EngineMismatchError(
                    f"{node.op_type} of {', '.join(sorted(map(str, types)))}", item=node.name
                )
            if node.op_type in ("Gather", "GatherND") and given[0].dtype not in HOST:  # type: ignore[union-attr]
                assert given[1] is not None
                given[1] = self._index(node.input[1], given[1])
            values[node.output[0]] = operator(*given, **attributes)
            for name in done:
                del values[name]
        found = {name: values[name] for name in self.outputs}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def _constant(self, tensor: onnx.TensorProto) -> Tensor:
        if tensor.data_type == TensorProto.BFLOAT16:  # which NumPy has not: its bits are taken
            bits: np.ndarray[Any, Any] = numpy_helper.to_array(tensor).view(np.int16)
            value = torch.from_numpy(bits.copy()).view(torch.bfloat16)
        else:
            value = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
        return value if value.dtype in HOST else value.to(self._device)

    def _index(self, name: str, index: Tensor) -> Tensor:
        """An index on the device. It is carried there once: CUDA graphs capture no copies."""
        if index.device == self._device:
            return index
        key = (name, tuple(index.shape), *index.reshape(-1).tolist())
        if key not in self._indices:
            self._indices[key] = index.to(self._device)
        return self._indices[key]


def _value(attributes: Attributes) -> onnx.TensorProto:
    """The tensor of a `Constant`."""
    if "value" in attributes:
        tensor: onnx.TensorProto = attributes["value"]
        return tensor
    ((kind, value),) = attributes.items()
    return numpy_helper.from_array(np.array(value, np.int64 if "int" in kind else np.float32))
