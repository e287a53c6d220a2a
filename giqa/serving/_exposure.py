"""What a server must not be exposed to: known faults of its version, and memory that it lacks."""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from giqa.contract import IMAGE
from giqa.errors import StorageFullError, UsageError
from giqa.manifest import Manifest
from giqa.serving._repository_options import RepositoryOptions, instances_on_cpu
from giqa.tensors import (
    composing_models,
    inputs_of,
    max_batch_of,
    outputs_of,
    shape_with,
    tensor_shapes,
)

_SHM = "/dev/shm"
_ITEM_BYTES = {"UINT8": 1, "FP16": 2, "FP32": 4}
_POOL = 1 << 20
"""What Triton's Python backend takes for each model from the start."""
_HANDED_OVER = 2
"""How often a full batch of each model may lie there; after warming up it is once."""


@dataclass(frozen=True)
class Fault:
    """A fault of tritonserver that is public, or was seen here.

    Attributes:
        name: its number, or `seen`.
        mended: first version without it; None: not known to us.
        way: what it comes through.
        what: what happens.
    """

    name: str
    mended: tuple[int, int] | None
    way: Literal["http", "grpc", "shared memory", "admin"]
    what: str

    def in_version(self, version: tuple[int, int]) -> bool:
        """Whether a version has it, as far as is known."""
        return self.mended is None or version < self.mended


FAULTS = (
    Fault("CVE-2025-23310", (2, 60), "http", "chunked bodies overflow the stack: crash, code"),
    Fault("CVE-2025-23311", (2, 60), "http", "chunked bodies overflow the stack: crash, code"),
    Fault("seen", (2, 60), "http", "2^64-1 in a shape, or deeply nested JSON: crash"),
    Fault("seen", None, "http", "a compressed body is unpacked without a limit"),
    Fault("CVE-2025-23319", (2, 60), "shared memory", "writes into the Python backend's memory"),
    Fault("CVE-2025-23320", (2, 60), "shared memory", "an error tells the name of that memory"),
    Fault("CVE-2025-23334", (2, 60), "shared memory", "reads the Python backend's memory"),
    Fault("CVE-2026-24146", None, "grpc", "very many outputs in a request: crash"),
    Fault("CVE-2026-24173", None, "grpc", "a malformed request: crash"),
    Fault("CVE-2026-24206", None, "admin", "Triton's own keys are passed by"),
    Fault("CVE-2026-24207", None, "admin", "Triton's own keys are passed by: code"),
    Fault("CVE-2026-24208", None, "admin", "paths out of the repository: crash"),
    Fault("seen", (2, 60), "grpc", "a cancelled call or a client that is killed: crash"),
)
"""Where no version is given, NVIDIA's bulletins (5828 of May 2026 and before) say which to take."""


def faults_of(version: tuple[int, int]) -> list[Fault]:
    """List the known faults of a version of tritonserver."""
    return [fault for fault in FAULTS if fault.in_version(version)]


def describe_faults(version: tuple[int, int]) -> str:
    """One line on a version and its known faults."""
    names = {f.name for f in faults_of(version)} - {"seen"}
    text = f"tritonserver {version[0]}.{version[1]}"
    if not names:
        return f"{text}: no known faults"
    return (
        f"{text} has {', '.join(sorted(names))} or is not known to be without: keep clients to "
        "giqa's own ports (SECURITY.md)"
    )


def is_loopback(address: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def refuse_exposed_http(version: tuple[int, int], address: str) -> None:
    """Refuse to offer Triton's own HTTP to a network that it would not survive.

    Raises:
        UsageError: the version has known faults, and others than this machine reach the address.
    """
    known = [f.name for f in faults_of(version) if f.way == "http"]
    if known and not is_loopback(address):
        raise UsageError(
            f"tritonserver {version[0]}.{version[1]} crashes of HTTP ({', '.join(known)})",
            item=f"--http-port on {address}",
            remedy="use the HTTP of `giqa serve`, or listen on 127.0.0.1",
        )


def shared_memory_needed(manifest: Manifest, options: RepositoryOptions) -> int:
    """Bytes of /dev/shm that the CPU's models take when they work with full batches.

    Args:
        manifest: for the tensors' sizes and the number of tiles.
        options: for batch and instances.
    """
    return sum(
        instances_on_cpu(name, options) * (_POOL + _HANDED_OVER * size)
        for name, size in _batches(manifest, options)
    )


def check_shared_memory(manifest: Manifest, options: RepositoryOptions) -> None:
    """Refuse to start where /dev/shm is too small: Triton says so after minutes, in its words.

    Raises:
        StorageFullError: it is, and how much is needed.
    """
    found = os.statvfs(_SHM)
    free = found.f_bavail * found.f_frsize
    needed = shared_memory_needed(manifest, options)
    if free < needed:
        fits = [
            batch
            for batch in range(1, options.max_batch)
            if shared_memory_needed(manifest, replace(options, max_batch=batch)) <= free
        ]
        less = f"; --max-batch {max(fits)} needs less" if fits else ""
        raise StorageFullError(
            f"{free / 2**20:.0f} MiB of shared memory are free, the models need "
            f"{needed / 2**20:.0f} MiB",
            item=_SHM,
            remedy=f"docker run --shm-size 1g, or an emptyDir with medium Memory{less}",
        )


def _batches(manifest: Manifest, options: RepositoryOptions) -> Iterator[tuple[str, int]]:
    shapes = tensor_shapes(manifest.tensors)
    for name in composing_models("cpu"):
        tensors = (*inputs_of(name), *outputs_of(name, manifest.tensors))
        one = sum(
            _ITEM_BYTES[shapes[t][0]]
            * math.prod(shape_with(t, manifest.tensors, 1, manifest.tiles))
            for t in tensors
            if t != IMAGE
        )
        yield name, one * max_batch_of(name, options.max_batch)
