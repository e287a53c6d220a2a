"""A CPU Triton server next to the in-process engine: speed, latency, batching, overload.

All in one run on one machine, client and server sharing its cores. Where two things are compared
they alternate, so that a slow spell hits both, and ratios are taken round by round.
"""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load import TIMEOUT_S, loading
from benchmarks.machine import machine
from giqa.bundle import Bundle, load_bundle
from giqa.engine import LocalScorer
from giqa.errors import OverloadedError
from giqa.graphs import choose_precision
from giqa.results import ImageResult
from giqa.triton.binary import find_tritonserver
from giqa.triton.client import TritonScorer
from giqa.triton.options import ServerOptions
from giqa.triton.repository import Options
from giqa.triton.server import Server
from giqa.triton.tensors import composing_models
from giqa.triton.wire import messages

_IN_FLIGHT = (1, 2, 4, 8, 16, 32)
_CLIENTS: dict[str, dict[str, Any]] = {
    **{f"in_flight {n}": {"in_flight": n} for n in _IN_FLIGHT},
    "in_flight 16, stream": {"in_flight": 16, "transport": "stream"},
    "in_flight 16, shared memory": {"in_flight": 16, "shared_memory": True},
    "in_flight 16, batch 8": {"in_flight": 16, "batch": 8},
}
_BURST = 64
_BLOCK = 20
_FACTOR = 1.5


def measure(
    images: Sequence[bytes], *, rounds: int, seconds: float
) -> Generator[tuple[str, dict[str, Any]], None, None]:
    """Measure everything, section by section; close it to stop the servers early.

    Args:
        images: encoded images.
        rounds: how often throughputs and bursts are measured.
        seconds: length of the overload.

    Yields:
        Name and result of each section: the machine, then `throughput`, `latency`, `overload`
        and `batching`, each the result of the function of that name.

    Raises:
        GiqaError: a server does not start, or is not what it should be.
        RuntimeError: an image could not be scored.
    """
    bundle = load_bundle()
    with _server(bundle) as server:
        with LocalScorer(bundle) as local:
            yield "machine", machine() | {"engine": local.engine}
            yield "throughput", throughput(local, server, images, rounds)
            yield "latency", latency(local, server, images)
        yield "overload", overload(server, images, seconds)
    # The burst fits into the queue, and is answered: nothing but the batch differs.
    room = {"max_queue": _BURST, "timeout_s": TIMEOUT_S}
    with _server(bundle, **room) as batched, _server(bundle, **room, max_batch=1) as single:
        yield "batching", batching(batched, single, images, rounds)


def throughput(
    local: LocalScorer, server: Server, images: Sequence[bytes], rounds: int
) -> dict[str, Any]:
    """Images a second of each way to use the server; before each pass one in process.

    Returns:
        Spreads, and the ratios server / in process of each round, by client; `best` is the one of
        the unary clients without batch whose median ratio is highest.
    """
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in _CLIENTS}
    with ExitStack() as stack:
        clients = {
            name: stack.enter_context(
                TritonScorer(
                    server.connection, bundle=server.bundle, deadline_s=TIMEOUT_S, **options
                )
            )
            for name, options in _CLIENTS.items()
        }
        wanted = _scores(local.score(images))  # also the warm-up
        difference = 0.0
        for client in clients.values():
            scores = _scores(client.score(images[:32]))
            difference = max(
                difference, *(abs(a - b) for a, b in zip(scores, wanted, strict=False))
            )
        for _ in range(rounds):
            for name, client in clients.items():
                here = _rate(local, images)
                rates[name].append((here, _rate(client, images)))
    rows: dict[str, Any] = {}
    for name, pairs in rates.items():
        ratios = [there / here for here, there in pairs]
        rows[name] = {
            "images_per_s": _spread([there for _, there in pairs]),
            "ratio": _spread(ratios),
            "ratios": [round(r, 3) for r in ratios],
        }
    best = max((f"in_flight {n}" for n in _IN_FLIGHT), key=lambda n: rows[n]["ratio"]["median"])
    return {
        "in_process_images_per_s": _spread([here for v in rates.values() for here, _ in v]),
        "clients": rows,
        "best": {"client": best, "ratio": rows[best]["ratio"]},
        "largest_score_difference": round(difference, 4),
    }


def latency(
    local: LocalScorer, server: Server, images: Sequence[bytes], count: int = 100
) -> dict[str, Any]:
    """Milliseconds for one image at a time, in process and on the server in turn."""
    here: list[float] = []
    there: list[float] = []
    with TritonScorer(
        server.connection, bundle=server.bundle, in_flight=1, deadline_s=TIMEOUT_S
    ) as client:
        source = list(islice(cycle(images), count + _BLOCK))
        for begin in range(0, len(source), _BLOCK):
            # In blocks: one after the other, each would find its weights gone from the caches.
            for scorer, times in ((local, here), (client, there)):
                for data in source[begin : begin + _BLOCK]:
                    start = time.perf_counter()
                    _scores([next(scorer.score([data]))])
                    times.append(1e3 * (time.perf_counter() - start))
    here, there = here[_BLOCK:], there[_BLOCK:]  # the first block warms up
    differences = [b - a for a, b in zip(here, there, strict=True)]
    return {
        "images": count,
        "in_process_ms": _tail(here),
        "server_ms": _tail(there),
        "median_difference_ms": round(statistics.median(differences), 3),
    }


def batching(
    batched: Server, single: Server, images: Sequence[bytes], rounds: int
) -> dict[str, Any]:
    """Executions and latency of bursts of images of differing length, with and without batches.

    Returns:
        By kind of server: executions a burst of each composing model that took part, and
        latencies; and how many times fewer executions batching needs.
    """
    ragged = list({len(data): data for data in images}.values())
    burst = list(islice(cycle(ragged), _BURST))
    servers = {"batched": batched, "unbatched": single}
    executions: dict[str, list[dict[str, int]]] = {name: [] for name in servers}
    times: dict[str, list[float]] = {name: [] for name in servers}
    lengths: dict[str, list[float]] = {name: [] for name in servers}
    failed: dict[str, Counter[str]] = {name: Counter() for name in servers}
    with ExitStack() as stack:
        loads = {n: stack.enter_context(loading(s, burst)) for n, s in servers.items()}
        for n in range(rounds + 1):
            for name, server in servers.items():
                before = _executions(server)
                replies = loads[name].burst().replies
                if len(replies) < _BURST:
                    raise RuntimeError(f"{name}: {len(replies)} of {_BURST} answered")
                if n:  # the first one warms up
                    after = _executions(server)
                    executions[name].append({m: c - before[m] for m, c in after.items()})
                    times[name] += [r.ms for r in replies if r.error is None]
                    failed[name].update(r.error.code for r in replies if r.error is not None)
                    first, last = min(r.sent for r in replies), max(r.done for r in replies)
                    lengths[name].append(1e3 * (last - first))
    totals = {name: [sum(row.values()) for row in rows] for name, rows in executions.items()}
    found: dict[str, Any] = {
        "requests": _BURST,
        "different_lengths": len({len(data) for data in burst}),
        "bytes": [min(map(len, burst)), max(map(len, burst))],
    }
    for name, server in servers.items():
        found[name] = {
            "max_batch": server.repository.max_batch,
            "max_queue": server.repository.max_queue,
            "executions": {
                model: _spread([row[model] for row in executions[name]])
                for model in executions[name][0]
                if any(row[model] for row in executions[name])
            },
            "latency_ms": _tail(times[name]),
            "burst_ms": _spread(lengths[name]),
            "failed": dict(failed[name]),
        }
    pairs = zip(totals["unbatched"], totals["batched"], strict=True)
    found["times_fewer_executions"] = _spread([a / b for a, b in pairs])
    return found


def overload(server: Server, images: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """What the server does when more is asked of it than it can do.

    Capacity is measured with 32 requests in flight (and again at the end: a shared machine
    changes); then requests arrive on a fixed schedule, 1.5 times as many, whatever comes back;
    nothing is sent again.

    Returns:
        Rates, errors by code, times to rejection, the server's memory, the request afterwards.
        Good answers a second are those that came while the load lasted.
    """
    with loading(server, images) as load:
        load.closed(in_flight=32, seconds=3)
        capacity = load.closed(in_flight=32, seconds=10)
        if not capacity.good_rate:
            first = next((r.error for r in capacity.replies), "no answer")
            raise RuntimeError(f"the server scored nothing: {first}")
        memory = {"warm_mb": _memory_mb(server)}
        middle = threading.Timer(seconds / 2, lambda: memory.update(middle_mb=_memory_mb(server)))
        middle.start()
        try:
            found = load.open(_FACTOR * capacity.good_rate, seconds)
        finally:
            middle.cancel()
        memory["end_mb"] = _memory_mb(server)
        start = time.perf_counter()
        difference = server.known_answer(TIMEOUT_S)
        next_ms = 1e3 * (time.perf_counter() - start)
        after = load.closed(in_flight=32, seconds=10)
    bad = [r.error for r in found.replies if r.error is not None]
    return {
        "capacity_images_per_s": round(capacity.good_rate, 2),
        "capacity_afterwards_images_per_s": round(after.good_rate, 2),
        "capacity_errors": dict(Counter(r.error.code for r in capacity.replies if r.error)),
        "asked_images_per_s": round(_FACTOR * capacity.good_rate, 2),
        "seconds": seconds,
        "sent": found.sent,
        "largest_lag_ms": round(1e3 * found.lag, 1),
        "good": len(found.replies) - len(bad),
        "good_images_per_s": round(found.good_rate, 2),
        "goodput": round(found.good_rate / capacity.good_rate, 4),
        "good_ms": _tail([r.ms for r in found.replies if r.error is None]),
        "errors": dict(Counter(e.code for e in bad)),
        "rejection_ms": _tail(
            [r.ms for r in found.replies if isinstance(r.error, OverloadedError)]
        ),
        "other_errors": {e.code: str(e) for e in bad if not isinstance(e, OverloadedError)},
        "unanswered": found.sent - len(found.replies),
        "memory": memory,
        "memory_growth": round(memory["end_mb"] / memory["warm_mb"] - 1, 4),
        "next_request": {"score_difference": round(difference, 4), "ms": round(next_ms, 1)},
    }


def summary(name: str, found: dict[str, Any]) -> str:
    """A section in a few words."""
    if name == "throughput":
        lines = [f"in process: {found['in_process_images_per_s']['median']:.1f} images/s"]
        for client, row in found["clients"].items():
            r = row["ratio"]
            lines.append(
                f"{client}: {row['images_per_s']['median']:.1f} images/s, "
                f"x{r['median']:.2f} ({r['min']:.2f} .. {r['max']:.2f})"
            )
        return "\n".join(lines)
    if name == "latency":
        here, there = found["in_process_ms"], found["server_ms"]
        return (
            f"one image: {here['median']:.1f} ms in process (p95 {here['p95']:.1f}), "
            f"{there['median']:.1f} on the server (p95 {there['p95']:.1f})"
        )
    if name == "overload":
        slowest = found["rejection_ms"].get("max", 0)
        return (
            f"overload: {found['good_images_per_s']:.1f} good/s of "
            f"{found['asked_images_per_s']:.1f} asked, {100 * found['goodput']:.0f} % of capacity; "
            f"errors {found['errors']}, rejected within {slowest:.0f} ms; "
            f"memory {100 * found['memory_growth']:+.1f} %; "
            f"next request {found['next_request']['ms']:.0f} ms"
        )
    if name == "batching":
        p95 = [found[n]["latency_ms"].get("p95", 0) for n in ("batched", "unbatched")]
        return (
            f"bursts of {found['requests']}: "
            f"{found['times_fewer_executions']['median']:.2f} times fewer executions; "
            f"p95 {p95[0]:.0f} ms, without batches {p95[1]:.0f}"
        )
    return f"{name}: {found}"


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


@contextmanager
def _server(bundle: Bundle, **repository: Any) -> Iterator[Server]:
    """A server with the default repository, but for what is given."""
    binary = find_tritonserver()
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        port, metrics = a.getsockname()[1], b.getsockname()[1]
    options = Options(
        bundle=str(bundle.folder.resolve()),
        precision=choose_precision(bundle, "auto"),
        server=binary.version,
        **repository,
    )
    listen = ServerOptions(port=port, metrics_port=metrics, drain_s=10.0)
    server = Server(bundle, binary, listen, options)
    try:
        server.start()
        server.known_answer(TIMEOUT_S)
        yield server
    finally:
        server.stop()


def _executions(server: Server) -> dict[str, int]:
    """Executions of each composing model until now."""
    message = messages().ModelStatisticsRequest()
    found = server.call("ModelStatistics", message, TIMEOUT_S).model_stats
    models = composing_models(server.repository.device)
    return {m.name: m.execution_count for m in found if m.name in models}


def _memory_mb(server: Server) -> float:
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


def _scores(results: Iterable[ImageResult]) -> list[float]:
    """The scores; the first failure ends the benchmark."""
    found = []
    for result in results:
        if result.score is None:
            raise RuntimeError(f"not scored: {result.error}")
        found.append(result.score)
    return found


def _rate(scorer: LocalScorer | TritonScorer, images: Sequence[bytes]) -> float:
    start = time.perf_counter()
    _scores(scorer.score(images))
    return len(images) / (time.perf_counter() - start)


def _tail(times: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum; nothing of nothing."""
    if not times:
        return {}
    shares = {"median": 50, "p95": 95, "max": 100}
    return {name: round(float(np.percentile(times, n)), 2) for name, n in shares.items()}
