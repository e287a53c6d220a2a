"""JPEG bytes to score in process, next to the same model in PyTorch and ONNX Runtime."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import images, passes
from benchmarks.child import timed, usage
from benchmarks.contenders import (
    EAGER,
    OTHERS,
    Score,
    Setup,
    opened,
    others,
    own,
    precisions,
    yardsticks,
)
from benchmarks.options import Options
from benchmarks.passes import PEAK_MEMORY, Pass
from benchmarks.record import Series
from benchmarks.rounds import interleave
from giqa.bundle import load_bundle
from giqa.openvino import choose_precision

SIDE = 512
"""Width and height of the images, in pixels."""
BATCH = 8
BATCHES = (1, 4, 8, 16)

_IMAGES, _QUICK_IMAGES = 24, 2
_FEW_IMAGES = 8
"""For what is several times slower."""
_COLD = "cold process"


def run(options: Options) -> Iterator[Series]:
    """Measure one image at a time, batches, a sweep of batches and threads, memory, cold starts.

    Args:
        options: of the run.

    Yields:
        `passes.series` of each contender, `NAME` one image at a time and `NAME, batch B`; of giqa
        also `NAME, batch B, threads T`; peak memory while scoring batches; the wall time of a
        fresh process that scores one image.
    """
    bundle = load_bundle(options.bundle)
    names = [*map(own, precisions(bundle)), *others(bundle)]
    if options.quick:  # compiling takes minutes
        names = [name for name in names if not name.startswith("torch.compile")]
    data = images.sized(options, SIDE, SIDE, _QUICK_IMAGES if options.quick else _IMAGES)
    yield from _singly(names, data, options)
    yield from _together(names, data, options)
    with tempfile.TemporaryDirectory(prefix="giqa-benchmark-") as folder:
        images.write(data, Path(folder))
        yield from _fresh(names, Path(folder), options)


def _singly(names: Sequence[str], data: list[bytes], options: Options) -> Iterator[Series]:
    setup = Setup(options.bundle, options.threads, 1)
    with ExitStack() as stack:
        scores = {name: stack.enter_context(opened(name, setup)) for name in names}
        found = interleave(
            {
                n: partial(passes.one_by_one, _share(n, data), score, _least(options))
                for n, score in scores.items()
            },
            rounds=options.rounds,
            seed=options.seed,
        )
    yield from passes.without_missing(
        one
        for name, measured in found.items()
        for one in passes.series(
            name,
            measured,
            against=yardsticks(name),
            facts={"batch": 1, "threads": options.threads},
        )
    )


def _together(names: Sequence[str], data: list[bytes], options: Options) -> Iterator[Series]:
    """Batches of all contenders, and the sweep of giqa as it is by default."""
    best = own(choose_precision(load_bundle(options.bundle), "auto"))
    setups = {f"{name}, batch {BATCH}": (name, BATCH, options.threads) for name in names}
    for threads in range(1, options.threads + 1):
        for batch in BATCHES[-1:] if options.quick else BATCHES:
            setups[f"{best}, batch {batch}, threads {threads}"] = (best, batch, threads)
    with ExitStack() as stack:
        timers: dict[str, Callable[[], Pass]] = {}
        for subject, (name, batch, threads) in setups.items():
            score: Score = stack.enter_context(opened(name, Setup(options.bundle, threads, batch)))
            timers[subject] = partial(passes.together, _share(name, data), score, _least(options))
        found = interleave(timers, rounds=options.rounds, seed=options.seed)
    for subject, measured in found.items():
        name, batch, threads = setups[subject]
        yield from passes.series(
            subject,
            measured,
            against=tuple(f"{other}, batch {BATCH}" for other in yardsticks(name)),
            facts={"engine": name, "batch": batch, "threads": threads},
        )


def _least(options: Options) -> float:
    return 0.0 if options.quick else passes.LEAST_S


def _share(name: str, data: list[bytes]) -> list[bytes]:
    return data[:_FEW_IMAGES] if name in OTHERS else data


def _fresh(names: Sequence[str], folder: Path, options: Options) -> Iterator[Series]:
    """What only fresh processes show."""
    rounds = min(options.rounds, 1 if options.quick else 2)
    setup = Setup(options.bundle, options.threads, BATCH)
    chosen = [names[0], EAGER] if options.quick else names
    count = len(list(folder.iterdir()))
    used = interleave(
        {name: partial(usage, name, setup, folder, count) for name in chosen},
        rounds=rounds,
        seed=options.seed,
        warmup=0,
    )
    for name, found in used.items():
        yield Series(
            name=f"{name}, batch {BATCH}/{PEAK_MEMORY}",
            unit="MB",
            better="lower",
            values=tuple(one.peak_mb for one in found),
            against=tuple(
                f"{other}, batch {BATCH}/{PEAK_MEMORY}"
                for other in yardsticks(name)
                if other in chosen
            ),
            facts={"images": count, "batch": BATCH, "threads": options.threads},
        )
    command = [sys.executable, "-m", "giqa", "score", str(folder / "0000.jpg")]
    command += ["--bundle", options.bundle] if options.bundle else []
    one = Setup(options.bundle, options.threads, 1)
    cold = interleave(
        {
            "giqa score": lambda: timed(command)[1],
            EAGER: lambda: usage(EAGER, one, folder, 1).seconds,
        },
        rounds=rounds if options.quick else options.rounds,
        seed=options.seed,
    )
    for name, seconds in cold.items():
        yield Series(
            name=f"{name}, {_COLD}/wall time",
            unit="s",
            better="lower",
            values=tuple(seconds),
            against=() if name == EAGER else (f"{EAGER}, {_COLD}/wall time",),
            facts={"images": 1},
        )
