"""Starting a server for a measurement, and what it tells of itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from giqa.bundle import Bundle
from giqa.kserve import messages
from giqa.openvino import choose_precision
from giqa.serving import RepositoryOptions, Server, ServerOptions, find_tritonserver
from giqa.tensors import composing_models

TIMEOUT_S = 300.0
"""Longest wait for any answer. Longer than any burst takes: Triton 2.51 can crash when a client
gives up a request."""
_START_S = 900.0  # a benchmark may share its cores with others


@dataclass(frozen=True)
class Step:
    """What a composing model did, in all or on average.

    Attributes:
        requests: requests that it answered.
        executions: how often it ran; fewer than requests where they went in batches.
        queue_ms: milliseconds that requests waited for it.
        compute_ms: milliseconds that requests were in it; each one has its whole batch's.
    """

    requests: int
    executions: int
    queue_ms: float
    compute_ms: float


@contextmanager
def serving(bundle: Bundle, *, engines: Path | None = None, **repository: Any) -> Iterator[Server]:
    """A server with the default repository, but for what is given.

    Args:
        bundle: what it serves.
        engines: on a GPU, their folder.
        **repository: fields of `giqa.serving.RepositoryOptions`.

    Yields:
        The server, once it has given the known answer.

    Raises:
        GiqaError: it does not start, or is not what it should be.
    """
    binary = find_tritonserver()
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        port, metrics = a.getsockname()[1], b.getsockname()[1]
    options = RepositoryOptions(
        bundle=str(bundle.folder.resolve()),
        server=binary.version,
        **{"precision": choose_precision(bundle, "auto"), **repository},
    )
    listen = ServerOptions(
        port=port,
        metrics_port=metrics,
        client_shared_memory=True,
        drain_s=10.0,
        start_s=_START_S,
    )
    server = Server(bundle, binary, listen, options, engines=engines)
    try:
        server.start()
        server.known_answer(TIMEOUT_S)
        yield server
    finally:
        server.stop()


def totals(server: Server) -> dict[str, Step]:
    """What each composing model did until now, in all.

    Raises:
        GiqaError: the request failed.
    """
    asked = messages().ModelStatisticsRequest()
    found = server.call("ModelStatistics", asked, TIMEOUT_S).model_stats
    models = composing_models(server.repository_options.device)
    return {m.name: _total(m) for m in found if m.name in models}


def steps(before: Mapping[str, Step], after: Mapping[str, Step]) -> dict[str, Step]:
    """What each composing model did between two looks at `totals`.

    Args:
        before: the first look.
        after: the second one.

    Returns:
        Counts, and times a request; models that did nothing are left out.
    """
    found = {}
    for name, end in after.items():
        start = before[name]
        count = end.requests - start.requests
        if count:
            found[name] = Step(
                requests=count,
                executions=end.executions - start.executions,
                queue_ms=(end.queue_ms - start.queue_ms) / count,
                compute_ms=(end.compute_ms - start.compute_ms) / count,
            )
    return found


def executions(server: Server) -> dict[str, int]:
    """Executions of each composing model until now.

    Raises:
        GiqaError: the request failed.
    """
    return {name: step.executions for name, step in totals(server).items()}


def memory_mb(server: Server) -> float:
    """Proportional resident memory of the server's process group: its stubs are in it."""
    total = 0
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and os.getpgid(int(folder.name)) == server.pid:
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except OSError:
            continue  # it ended meanwhile
    return round(total / 1024, 1)


def _total(model: Any) -> Step:
    stats = model.inference_stats
    compute = stats.compute_input.ns + stats.compute_infer.ns + stats.compute_output.ns
    return Step(
        requests=stats.success.count,
        executions=model.execution_count,
        queue_ms=stats.queue.ns / 1e6,
        compute_ms=compute / 1e6,
    )
