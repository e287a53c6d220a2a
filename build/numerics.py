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

SCORE_TOLERANCE: Final = {"f32": 0.01, "bf16": 4.0, "int8": 5.0}
"""Largest |score difference| (of 100) from PyTorch float32 with the same weights, by precision."""

ONNX_RUNTIME_OPTIONS: Final = {"session.qdq_matmulnbits_accuracy_level": "1"}
"""Session entries that keep ONNX Runtime in float32: by default it sees int8 weights behind a
DequantizeLinear and quantizes the activations, too (up to 0.2 points of 100 in the score)."""

SROCC_GATES: Final = {"fp16": 0.999, "bf16": 0.999, "int8": 0.995}
"""Least SROCC between scores and those of float32, by precision."""

MOS_LOSS: Final = 0.005
"""Most SROCC with opinion scores that a lower precision may cost."""
