"""What this CPU can compute, and in which precision it does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from giqa.bundle import Bundle
from giqa.errors import EngineMismatchError, UsageError
from giqa.openvino._runtime import core
from giqa.precision import CPU_ASKED, Asked, Precision

_WITHOUT_INT8 = ("SSE41", "AVX", "AVX2", "AVX512_CORE")
"""What oneDNN may be held to that has no products of int8."""


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_capabilities() -> list[str]:
    """What OpenVINO can compute natively on this CPU: `FP32`, `BF16`, `INT8`, ...

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    return list(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def int8_is_fast() -> bool:
    """This CPU has instructions for products of int8 (VNNI, AMX), and oneDNN may use them.

    Not asked of OpenVINO, which says INT8 for every CPU.
    """
    held = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", ""))
    if held.upper() in _WITHOUT_INT8:
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False
    return not {"avx512_vnni", "avx_vnni", "amx_int8"}.isdisjoint(flags)


def choose_precision(bundle: Bundle, asked: Asked) -> Precision:
    """Resolve a precision for this bundle and CPU.

    Args:
        bundle: the bundle.
        asked: what the user wants; `auto` takes int8 where the bundle has it and the CPU is fast at
            it, else bf16 where the CPU has it, else f32.

    Returns:
        `f32`, `bf16` or `int8`.

    Raises:
        EngineMismatchError: the CPU has no bf16, or the bundle no int8.
        UsageError: it is none of a CPU's.
    """
    if asked not in CPU_ASKED:
        raise UsageError(
            "is not computed on a CPU",
            item=f"--precision {asked}",
            remedy=f"take {', '.join(CPU_ASKED)}",
        )
    bf16 = "BF16" in cpu_capabilities()
    if asked == "auto":
        if bundle.manifest.int8 is not None and int8_is_fast():
            return "int8"
        return "bf16" if bf16 else "f32"
    if asked == "bf16" and not bf16:
        raise EngineMismatchError("this CPU does not compute bf16", item="--precision bf16")
    if asked == "int8":
        _ = bundle.int8  # raises where there is none
    return asked


def cpu_options(threads: int, *, half: bool) -> dict[str, Any]:
    """What a graph is compiled with for this CPU.

    Args:
        threads: CPU threads.
        half: compute in bfloat16; in float32 otherwise.

    Returns:
        OpenVINO's properties.
    """
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "INFERENCE_NUM_THREADS": threads,
        # Every process would take the same CPUs, the first ones, and leave the others idle: two
        # processes of one thread each were half as fast (benchmarks/LOG.md).
        "ENABLE_CPU_PINNING": False,
    }
