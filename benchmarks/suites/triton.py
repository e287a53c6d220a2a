"""A Triton server on this CPU: next to scoring in process, under sweeps of load, overloaded.

Client and server share the machine's cores, as does scoring in process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median

import numpy as np

from benchmarks.images import mixed
from benchmarks.options import Options
from benchmarks.passes import THROUGHPUT, one_by_one, percentiles, series, together
from benchmarks.record import Facts, Series
from benchmarks.rounds import interleave
from benchmarks.served.beside import ALONE, IN_PROCESS, QUICK, score_all, ways
from benchmarks.served.server import memory_mb, serving
from benchmarks.served.stress import BURST, Burst, bursting, overload
from benchmarks.served.sweep import Met, concurrencies, rates, sweeping
from giqa.bundle import Bundle, load_bundle
from giqa.local import LocalScorer
from giqa.serving import Server

_LEVELS = (1, 4, 8, 16)
_SWEEP_ROUNDS = 4


def run(options: Options) -> Iterator[Series]:
    """Measure everything, section by section.

    Raises:
        GiqaError: a server does not start or fails, or perf_analyzer is not there.
        RuntimeError: an image could not be scored.
    """
    bundle = load_bundle(options.bundle)
    images = mixed(options, 16 if options.quick else 48)
    with serving(bundle, threads=options.threads) as server:
        with LocalScorer(bundle, threads=options.threads) as local:
            yield from _beside(local, server, images, options)
        yield from _sweep(server, images, options)
        yield from _overload(server, images, options)
    yield from _bursts(bundle, images, options)


def _beside(
    local: LocalScorer, server: Server, images: Sequence[bytes], options: Options
) -> Iterator[Series]:
    """Throughput of each way, and latency of one image at a time, against scoring in process."""
    turns = {"rounds": options.rounds, "seed": options.seed}
    with ways(local, server, QUICK if options.quick else None) as scorers:
        found = interleave(
            {n: partial(together, images, partial(score_all, s)) for n, s in scorers.items()},
            **turns,
        )
        few = images[:20]
        alone = interleave(
            {
                n: partial(one_by_one, few, partial(score_all, scorers[n]))
                for n in (IN_PROCESS, ALONE)
            },
            **turns,
        )
    for name, passes in found.items():
        against = () if name == IN_PROCESS else (IN_PROCESS,)
        yield from _without_cpu(series(name, passes, against=against))
    for name, passes in alone.items():
        against = () if name == IN_PROCESS else (f"{IN_PROCESS}, one at a time",)
        yield from _without_cpu(series(f"{name}, one at a time", passes, against=against))
    yield Series(
        name="server/memory",
        unit="MB",
        better="lower",
        values=(memory_mb(server),),
        facts={"of": "the server and its models' processes, shared pages divided"},
    )


def _sweep(server: Server, images: Sequence[bytes], options: Options) -> Iterator[Series]:
    """perf_analyzer's loads: concurrencies with and without shared memory, then rates."""
    levels = _LEVELS[::2] if options.quick else _LEVELS
    rounds = min(options.rounds, _SWEEP_ROUNDS)
    turns = {"rounds": rounds, "seed": options.seed, "warmup": 0}  # it warms up itself
    requests, seconds = (12, 0.0) if options.quick else (128, 10.0)
    with sweeping(server, images, requests, seconds) as sweep:
        loads = concurrencies(levels)
        found = interleave({n: sweep.measure(load) for n, load in loads.items()}, **turns)
        for name, load in loads.items():
            plain = str(load).removesuffix(", shared memory")
            yield from _point(name, found[name], (plain,) if load.shared_memory else ())
        capacity = max(median(m.point.rate for m in met) for met in found.values())
        paced = rates(capacity)
        found = interleave({n: sweep.measure(load) for n, load in paced.items()}, **turns)
        for name, load in paced.items():
            yield from _point(
                name, found[name], (), {"asked_per_s": round(load.rate, 2), "arrivals": "poisson"}
            )


def _point(
    name: str, met: Sequence[Met], against: Sequence[str], facts: Facts | None = None
) -> Iterator[Series]:
    prefix = "perf_analyzer, "
    shared: Facts = {"requests": len(met[0].point.ms), **(facts or {})}
    for part in met[0].point.client_us:
        shared[f"client {part} ms"] = _median(m.point.client_us[part] / 1e3 for m in met)
    for model in met[0].steps:
        done = [m.steps[model] for m in met]
        shared[f"{model} queue ms"] = _median(step.queue_ms for step in done)
        shared[f"{model} compute ms"] = _median(step.compute_ms for step in done)
        shared[f"{model} batch"] = _median(step.requests / step.executions for step in done)
    yield Series(
        name=f"{prefix}{name}/{THROUGHPUT}",
        unit="images/s",
        better="higher",
        values=tuple(m.point.rate for m in met),
        against=tuple(f"{prefix}{other}/{THROUGHPUT}" for other in against),
        facts=shared,
    )
    for metric, values in percentiles([m.point.ms for m in met]):
        yield Series(
            name=f"{prefix}{name}/{metric}",
            unit="ms",
            better="lower",
            values=values,
            against=tuple(f"{prefix}{other}/{metric}" for other in against),
        )


def _overload(server: Server, images: Sequence[bytes], options: Options) -> Iterator[Series]:
    found = overload(server, images, 60.0 if options.full else 10.0 if options.quick else 30.0)
    facts: Facts = {
        "asked_per_s": round(found.asked, 2),
        "capacity_per_s": round(found.capacity, 2),
        "capacity_afterwards_per_s": round(found.capacity_after, 2),
        "largest lag ms": round(found.lag_ms, 1),
        "unanswered": found.unanswered,
        **{f"error {code}": count for code, count in found.errors.items()},
    }
    times = {"score p95": found.good_ms, "rejection p95": found.rejected_ms}
    yield _one("goodput", "%", "higher", 100 * found.good / found.capacity, facts)
    for metric, ms in times.items():
        if ms:
            yield _one(metric, "ms", "lower", float(np.percentile(ms, 95)))
    warm, end = found.memory_mb
    yield _one("memory growth", "%", "neither", 100 * (end / warm - 1))
    yield _one("next request", "ms", "lower", found.next_ms)


def _one(metric: str, unit: str, better: str, value: float, facts: Facts | None = None) -> Series:
    return Series.model_validate(
        {
            "name": f"overload/{metric}",
            "unit": unit,
            "better": better,
            "values": (value,),
            "facts": facts or {},
        }
    )


def _bursts(bundle: Bundle, images: Sequence[bytes], options: Options) -> Iterator[Series]:
    """Bursts with batches against bursts without: nothing else differs."""
    threads = options.threads
    single, batched = "burst, no batches", "burst, batches"
    with ExitStack() as stack:
        enter = stack.enter_context
        found = interleave(
            {
                single: enter(bursting(bundle, images, threads=threads, max_batch=1)),
                batched: enter(bursting(bundle, images, threads=threads)),
            },
            rounds=min(options.rounds, _SWEEP_ROUNDS),
            seed=options.seed,
        )
    measures = {
        ("executions", ""): lambda b: b.executions,
        ("duration", "ms"): lambda b: 1e3 * b.seconds,
        ("latency p95", "ms"): lambda b: float(np.percentile(b.ms, 95)),
    }
    for name, bursts in found.items():
        for (metric, unit), value in measures.items():
            yield Series(
                name=f"{name}/{metric}",
                unit=unit,
                better="lower",
                values=tuple(map(value, bursts)),
                against=(f"{single}/{metric}",) if name == batched else (),
                facts={"requests": BURST, "failed": _failed(bursts)},
            )


def _failed(bursts: Sequence[Burst]) -> int:
    return sum(sum(burst.errors.values()) for burst in bursts)


def _without_cpu(found: Iterator[Series]) -> Iterator[Series]:
    """Leave out this process's CPU time: most of a served request's is the server's."""
    return (one for one in found if one.unit != "ms/image")


def _median(values: Iterator[float]) -> float:
    return round(median(values), 3)
