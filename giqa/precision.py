"""What graphs compute in: names, and how far each may be from float32. They stand here alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

Precision = Literal["f32", "f16", "bf16", "int8"]
Asked = Precision | Literal["auto"]
"""What one may ask for: `auto` is the best that is there."""


@dataclass(frozen=True)
class Bounds:
    """What holds in a precision.

    Attributes:
        dtype: PyTorch's name of the type of weights and activations.
        bytes: of one of them.
        tolerance: largest |difference| of the known image's score from PyTorch float32's with the
            same weights, in points of 100.
        srocc: least SROCC with float32's scores; None: no gate.
        rest: what is computed in it where only products with constant weights are in this one.
        least_sm: least compute capability of a GPU that has it.
    """

    dtype: str
    bytes: int
    tolerance: float
    srocc: float | None
    rest: Precision
    least_sm: str = "7.5"


# Of 24 photographs, giqa-s 0.4.0 by `build.interpreter`: f16 is .06 off at most, .015 in the
# mean, bf16 .72 and .18. The known image is one more, on kernels that sum in another order.
BOUNDS: Final[dict[Precision, Bounds]] = {
    "f32": Bounds("float32", 4, 0.01, None, "f32"),
    "f16": Bounds("float16", 2, 0.25, 0.999, "f16"),
    "bf16": Bounds("bfloat16", 2, 2.0, 0.999, "bf16", "8.0"),
    "int8": Bounds("int8", 1, 5.0, 0.995, "f16"),
}
# There was 8-bit floating point (e4m3). Of 24 crops of six photographs, the rest in float32: SROCC
# with float32 .984, 9.5 points off at most, 2.3 in the mean; int8 .993, 1.7 and .46.
OTHER_PIXELS: Final = 0.5
"""Further tolerance where something else than DALI on a CPU decodes and resizes: the known image is
.06 points off decoded by Pillow, .15 by a faster inverse transform."""
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
CPU_PRECISIONS: Final[tuple[Precision, ...]] = ("f32", "bf16", "int8")
"""Those that OpenVINO computes in on a CPU."""
GPU_PREDICTED: Final[tuple[Precision, ...]] = ("f16", "int8")
"""Those whose speed is predicted, see `benchmarks.predict`."""
CPU_ASKED: Final[tuple[Asked, ...]] = ("auto", *CPU_PRECISIONS)
HALVES: Final[tuple[Precision, ...]] = ("f16", "bf16")
