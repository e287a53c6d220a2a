"""Numerics in one table: what is stored how, what stays in float32, how far runtimes may differ."""

from __future__ import annotations

from typing import Final

OPSET: Final = 20

SMOOTH: Final = 0.75
"""SmoothQuant's alpha, how far channels' outliers move from activations into weights: 1 leaves the
channels of activations equally large, 0 those of weights."""

SMALL: Final = 4096
"""Tensors of fewer values are stored as they are."""

FLOAT32_OPS: Final = (
    *("LayerNormalization", "BatchNormalization", "Softmax", "ReduceL2", "Sigmoid"),
    *("ReduceMean", "ReduceSum", "AveragePool", "Sqrt", "Pow"),
)
"""ONNX operators that half-precision graphs keep in float32: the norms and softmaxes, whose sums
overflow or lose small terms, and the head's last steps. Export keeps them as nodes of their own."""

ONNX_RUNTIME_OPTIONS: Final = {"session.qdq_matmulnbits_accuracy_level": "1"}
"""Session entries that keep ONNX Runtime in float32: by default it sees int8 weights behind a
DequantizeLinear and quantizes the activations, too (up to 0.2 points of 100 in the score)."""

ONNX_RUNTIME_INT8: Final = {**ONNX_RUNTIME_OPTIONS, "session.x64quantprecision": "1"}
"""Session entries with which its int8 products do not saturate where the CPU has no VNNI. Not for a
bundle's packed graphs: it then refuses the scales of their weights."""

MOS_LOSS: Final = 0.005
"""Most SROCC with opinion scores that a lower precision may cost."""
