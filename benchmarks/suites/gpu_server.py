"""Triton with DALI and TensorRT on a GPU, where they are: scores, bad images, perf_analyzer.

Fifth part of `make gpu`: a server as `giqa serve` starts it, but for the gateway. Engines are those
that `gpu_engines` left in `dist/engines`, or are built first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import images
from benchmarks.gpus import device_of, name_of, one
from benchmarks.options import Options
from benchmarks.passes import THROUGHPUT, together
from benchmarks.predict import GPUS, predict, work_of
from benchmarks.record import Series
from benchmarks.rounds import interleave
from benchmarks.served import perf_analyzer
from benchmarks.served.perf_analyzer import Load
from benchmarks.served.server import TIMEOUT_S, serving
from benchmarks.served.sweep import sweeping
from giqa.bundle import Bundle, load_bundle
from giqa.client import TritonScorer
from giqa.errors import MissingExtraError
from giqa.local import LocalScorer
from giqa.precision import Precision
from giqa.scorer import Scorer
from giqa.serving import Server, all_gpus, find_tritonserver

PRECISION: Precision = "f16"
"""What containers serve unless told otherwise."""
SIDE = 512
"""Of the pictures under load: they have no tiles, and stand in the table of predictions."""
_LEVELS = (1, 32, 128)
_ROUNDS = 3


def run(options: Options) -> Iterator[Series]:
    """Measure on this machine's GPUs.

    Raises:
        EngineMismatchError: there is no usable GPU.
        MissingExtraError: there is no TensorRT to build engines with.
        UsageError: tritonserver or perf_analyzer is not there.
    """
    device = device_of("gpu_server")
    # What takes minutes comes last.
    find_tritonserver()
    perf_analyzer.find()
    if find_spec("tensorrt") is None:
        raise MissingExtraError(
            "TensorRT is not installed", item="gpu_server",
            remedy="run it in the image of build/image",
        )  # fmt: skip
    from benchmarks.tensorrt import folder_of

    yield from measure(options, device, folder_of(load_bundle(options.bundle), PRECISION))


def measure(
    options: Options, device: torch.device, engines: Path | None = None
) -> Iterator[Series]:
    """Measure a server; for tests one on a CPU.

    Args:
        options: of the run.
        device: where the server's models run.
        engines: their folder, on a GPU.

    Yields:
        How far scores are from float32's in process, in points; good pictures that bad ones among
        them cost; throughput of our client; throughput and latency under perf_analyzer, next to the
        prediction.
    """
    bundle = load_bundle(options.bundle)
    facts: dict[str, Any] = {"device": name_of(device)}
    how: dict[str, Any] = {"threads": options.threads}
    if device.type == "cuda":
        gpus = len(all_gpus())
        how = {"device": "gpu", "instances": 0, "precision": PRECISION, "gpus": gpus}
        facts["gpus"] = gpus
    count = 4 if options.quick else 64
    mixed = images.mixed(options, count)
    with serving(bundle, engines=engines, **how) as server:
        facts["engine"] = server.repository_options.engine
        with LocalScorer(bundle, precision="f32", threads=options.threads) as local:
            wanted = _scores(local, mixed)
        client = TritonScorer(
            server.connection, bundle=bundle, deadline_s=TIMEOUT_S, in_flight=max(_LEVELS)
        )
        with client as scorer:
            yield from _agreement(scorer, mixed, wanted, facts)
            square = images.sized(options, SIDE, SIDE, count)
            many = square if options.quick else list(islice(cycle(square), 8 * count))

            rounds = range(min(options.rounds, _ROUNDS) + 1)
            passes = [together(many, partial(_scores, scorer)) for _ in rounds][1:]
            yield Series(
                name=f"client/{THROUGHPUT}", unit="images/s", better="higher",
                values=tuple(p.images / p.seconds for p in passes), facts=facts,
            )  # fmt: skip
        yield from _loads(server, square, {**facts, **_predicted(bundle, facts["device"])}, options)


def _scores(scorer: Scorer, files: Sequence[bytes]) -> np.ndarray[Any, Any]:
    """Scores; NaN where there is none."""
    rows = scorer.score(files)
    return np.array([np.nan if row.score is None else row.score for row in rows])


def _agreement(
    scorer: Scorer, files: Sequence[bytes], wanted: np.ndarray[Any, Any], facts: dict[str, Any]
) -> Iterator[Series]:
    about = {**facts, "images": len(files), "against": "in process, f32"}
    alone = _scores(scorer, files)
    apart = np.abs(alone - wanted)
    yield one("server/largest difference", apart.max(), "points", about)
    yield one("server/mean difference", apart.mean(), "points", about)
    bad = [_broken(data) for data in files[: -(-len(files) // 4)]]
    found = _scores(scorer, [*files[::2], *bad, *files[1::2]])
    half = len(files[::2])
    good = np.concatenate([found[:half], found[half + len(bad) :]])
    same = np.concatenate([alone[::2], alone[1::2]])
    yield one("bad among them/good rows lost", float(np.isnan(good).sum()), "", about)
    moved = np.nan_to_num(np.abs(good - same)).max()
    yield one("bad among them/largest difference", moved, "points", about)
    refused = float(np.isnan(found[half : half + len(bad)]).mean())
    yield Series(
        name="bad among them/refused", unit="%", better="higher", values=(100 * refused,),
        facts=about,
    )  # fmt: skip


def _broken(jpeg: bytes) -> bytes:
    """Code lengths of a Huffman table that cannot be: nothing but a decoder sees it."""
    lengths = jpeg.index(b"\xff\xc4") + 5
    return jpeg[:lengths] + b"\xff" * 16 + jpeg[lengths + 16 :]


def _loads(
    server: Server, files: Sequence[bytes], facts: dict[str, Any], options: Options
) -> Iterator[Series]:
    levels = _LEVELS[:1] if options.quick else _LEVELS
    loads = {f"perf_analyzer, concurrency {n}": Load(concurrency=n) for n in levels}
    with sweeping(server, files, *((8,) if options.quick else (2048, 10.0))) as sweep:
        found = interleave(
            {name: sweep.measure(load) for name, load in loads.items()},
            rounds=min(options.rounds, _ROUNDS), seed=options.seed, warmup=0,
        )  # fmt: skip
    for name, met in found.items():
        steps = {
            f"{model} {what}": round(median(value(m.steps[model]) for m in met), 3)
            for model in met[0].steps
            for what, value in _STEPS.items()
        }
        yield Series(
            name=f"{name}/{THROUGHPUT}", unit="images/s", better="higher",
            values=tuple(m.point.rate for m in met), facts={**facts, **steps},
        )  # fmt: skip
        for share in (50, 99):
            yield Series(
                name=f"{name}/latency p{share}", unit="ms", better="lower",
                values=tuple(float(np.percentile(m.point.ms, share)) for m in met),
            )  # fmt: skip


_STEPS: dict[str, Any] = {
    "queue ms": lambda step: step.queue_ms,
    "compute ms": lambda step: step.compute_ms,
    "batch": lambda step: step.requests / step.executions,
}


def _predicted(bundle: Bundle, device: str) -> dict[str, Any]:
    """What `benchmarks.predict` says of one such GPU; nothing of others."""
    gpu = next((one for one in GPUS if one.name in device.split()), None)
    if gpu is None:
        return {}
    found = predict(gpu, work_of(bundle, tiles=0), pixels=SIDE * SIDE, precision=PRECISION)
    return {"predicted images/s": round(found.rate), "predicted limit": found.limit}
