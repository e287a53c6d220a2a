"""JPEG bytes to score in process, next to the same model in PyTorch and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from benchmarks import images, passes
from benchmarks.contenders import EAGER, OTHERS, Setup, opened, own, precisions
from benchmarks.options import Options
from benchmarks.record import Series
from benchmarks.rounds import interleave
from giqa.bundle import load_bundle

SIDE = 512
"""Width and height of the images, in pixels."""


def run(options: Options) -> Iterator[Series]:
    """Measure contenders in turn.

    Args:
        options: of the run.

    Yields:
        See `passes.series`.
    """
    data = images.sized(options, SIDE, SIDE, 8 if options.quick else 32)
    names = [*map(own, precisions(load_bundle(options.bundle))), *OTHERS]
    setup = Setup(options.bundle, options.threads, batch=1)
    with ExitStack() as stack:
        scores = {name: stack.enter_context(opened(name, setup)) for name in names}
        found = interleave(
            {name: partial(passes.one_by_one, data, score) for name, score in scores.items()},
            rounds=options.rounds,
            seed=options.seed,
        )
    for name, measured in found.items():
        yield from passes.series(name, measured, against=() if name == EAGER else (EAGER,))
