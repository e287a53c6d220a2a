"""Triton's own load generator: runs it against a server, reads what it exports.

One point of a sweep is one call: only so can it warm up first.
"""

from __future__ import annotations

import base64
import csv
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from giqa.contract import GIQA, IMAGE
from giqa.errors import ServerFailedError, UsageError
from giqa.files import write

NAME = "perf_analyzer"
_PATIENCE_S = 600
_CLIENT = {"send": "Client Send", "receive": "Client Recv"}
"""Columns of the CSV export, in microseconds a request. Those of the server add up all composing
models, as if they never ran beside each other; `benchmarks.served.server` asks it itself."""


@dataclass(frozen=True)
class Load:
    """How requests are sent: so many at a time, or so many a second.

    Attributes:
        concurrency: requests in flight; 0 if `rate` is given.
        rate: requests a second, arrivals of a Poisson process; 0 if `concurrency` is given.
        shared_memory: images and scores go through system shared memory.
    """

    concurrency: int = 0
    rate: float = 0.0
    shared_memory: bool = False

    def __post_init__(self) -> None:
        """Refuse both and none."""
        if (self.concurrency > 0) == (self.rate > 0):
            raise UsageError("a load has either a concurrency or a rate")

    def __str__(self) -> str:
        """Name of the point."""
        how = f"concurrency {self.concurrency}" if self.concurrency else f"{self.rate:.3g} a second"
        return how + (", shared memory" if self.shared_memory else "")

    def arguments(self) -> list[str]:
        """perf_analyzer's options."""
        if self.concurrency:
            found = ["--concurrency-range", str(self.concurrency)]
        else:
            found = ["--request-rate-range", f"{self.rate:.3f}"]
            found += ["--request-distribution", "poisson"]
        return found + (["--shared-memory", "system"] if self.shared_memory else [])


@dataclass(frozen=True)
class Point:
    """What one load met.

    Attributes:
        rate: answers a second, from the first request to the last answer. perf_analyzer's own
            figure counts whole seconds when it is told a number of requests.
        ms: milliseconds of each request, in the order they were sent.
        client_us: mean microseconds of a request's packing (`send`) and unpacking (`receive`).
    """

    rate: float
    ms: tuple[float, ...]
    client_us: dict[str, float]


def find() -> Path:
    """The program, beside this Python or on PATH.

    Raises:
        UsageError: it is not there.
    """
    beside = Path(sys.executable).with_name(NAME)
    found = str(beside) if beside.exists() else shutil.which(NAME)
    if found is None:
        raise UsageError("not found", item=NAME, remedy="`make analyzer` fetches it")
    return Path(found)


def write_input(path: Path, images: Sequence[bytes]) -> None:
    """Write encoded images as input data; requests take them in turn.

    Args:
        path: the JSON file.
        images: encoded images of any length.
    """
    data = [
        {IMAGE: {"content": {"b64": base64.b64encode(i).decode()}, "shape": [len(i)]}}
        for i in images
    ]
    write(path, json.dumps({"data": data}).encode())


def measure(
    program: Path,
    address: str,
    data: Path,
    load: Load,
    *,
    requests: int,
    warm_up: int,
    metadata: Sequence[tuple[str, str]] = (),
) -> Point:
    """Put one load on a server's main ensemble, over gRPC.

    Args:
        program: see `find`.
        address: HOST:PORT.
        data: what `write_input` wrote.
        load: how requests are sent.
        requests: how many are counted.
        warm_up: how many go before them.
        metadata: goes along with each; shared memory wants the server's admin key.

    Returns:
        What it met.

    Raises:
        ServerFailedError: a request failed, or nothing was measured.
    """
    with tempfile.TemporaryDirectory(prefix="giqa-load-") as folder:
        profile, table = Path(folder) / "profile.json", Path(folder) / "table.csv"
        command = [str(program), "-m", GIQA, "-i", "grpc", "-u", address, "--async"]
        command += [part for key, value in metadata for part in ("-H", f"{key}:{value}")]
        command += ["--input-data", str(data), *load.arguments()]
        command += ["--request-count", str(requests), "--warmup-request-count", str(warm_up)]
        command += ["--profile-export-file", str(profile), "-f", str(table), "--verbose-csv"]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired as e:
            raise ServerFailedError(f"no end after {_PATIENCE_S} s", item=f"{NAME}: {load}") from e
        if ran.returncode or not profile.exists() or not table.exists():
            lines = (ran.stderr.strip() or ran.stdout.strip()).splitlines()
            said = lines[-1] if lines else "it said nothing"
            raise ServerFailedError(f"exit code {ran.returncode}: {said}", item=f"{NAME}: {load}")
        return read_point(profile.read_text(), table.read_text())


def read_point(profile: str, table: str) -> Point:
    """Read the exports of one point.

    Args:
        profile: text of `--profile-export-file`: every request with its times.
        table: text of `-f` with `--verbose-csv`: means.

    Returns:
        The point.

    Raises:
        ServerFailedError: they do not hold exactly one point with answers.
    """
    experiments = json.loads(profile)["experiments"]
    rows = list(csv.DictReader(table.splitlines()))
    if len(experiments) != 1 or len(rows) != 1 or not experiments[0]["requests"]:
        raise ServerFailedError("not one point with answers", item=NAME)
    requests = sorted(experiments[0]["requests"], key=lambda r: r["timestamp"])
    ms = tuple((r["response_timestamps"][-1] - r["timestamp"]) / 1e6 for r in requests)
    client = {name: float(rows[0][column]) for name, column in _CLIENT.items()}
    end = max(r["response_timestamps"][-1] for r in requests)
    return Point(1e9 * len(requests) / (end - requests[0]["timestamp"]), ms, client)
