"""What numbers were measured on: facts without names of hosts."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from giqa.errors import MissingExtraError
from giqa.openvino import cpu_capabilities, cpu_count

_PACKAGES = ("numpy", "openvino", "nvidia-dali-cuda130", "pillow", "torch", "onnxruntime")


@cache
def machine() -> dict[str, str | int | float]:
    """Processor, memory, system, and versions of what computes, as they are at the first call.

    Returns:
        One flat table; a package that is not installed is left out.
    """
    found: dict[str, str | int | float] = {
        "cpu": _cpu_model(),
        "cpus": cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }
    with suppress(MissingExtraError):  # a GPU machine may have no OpenVINO
        found["capabilities"] = " ".join(cpu_capabilities())
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
