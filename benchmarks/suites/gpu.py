"""On an NVIDIA GPU: throughput, agreement with PyTorch float32 on the CPU, and the limit.

PyTorch, eager and compiled, runs with any GPU: a stand-in, which says what the model costs there,
not what a server reaches. From views to scores. Further parts: `gpu_graphs`, `gpu_decoding`,
`gpu_engines`, `gpu_server`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import images
from benchmarks.contenders import model_of, with_pillow
from benchmarks.counting import END_TO_END, example, work
from benchmarks.gpus import device_of, exact, name_of
from benchmarks.options import Options
from benchmarks.record import Series
from benchmarks.rounds import interleave
from giqa.bundle import Bundle, load_bundle
from giqa.contract import GLOBAL_BRANCH, GLOBAL_VIEW, LOCAL_BRANCH, LOCAL_VIEW
from giqa.precision import BOUNDS, HALVES, Precision

BATCHES = (1, 8, 32)
"""Images at once."""
SIDES = (2048, 4096, 8192)
"""Of the square matrices whose products give the peak."""

_DTYPES: dict[Precision, torch.dtype] = {
    p: getattr(torch, BOUNDS[p].dtype) for p in ("f32", *HALVES)
}
_SECONDS = 0.3
"""Least time of one measurement."""
_IMAGES = 32
"""Whose scores are compared."""
_FLOATS = 1 << 28
"""Numbers in each array of the bandwidth's: 1 GB."""

Run = Callable[[Mapping[str, Tensor]], Tensor]
"""Views by name on the device, (B, 1, side, side, 3) uint8 each, to scores (B, 1)."""


def run(options: Options) -> Iterator[Series]:
    """Measure on this machine's first GPU.

    Args:
        options: of the run.

    Yields:
        See `measure`.

    Raises:
        EngineMismatchError: there is no usable GPU.
    """
    yield from measure(options, device_of("gpu"))


def measure(options: Options, device: torch.device) -> Iterator[Series]:
    """Measure on a device; on a CPU, for tests, PyTorch's eager mode alone.

    Args:
        options: of the run.
        device: where the model runs.

    Yields:
        Peaks (GFLOP/s) and bandwidth (GB/s); of each way and batch throughput, ms an image and
        efficiency; of PyTorch's ways the differences of their scores from float32 on the CPU, in
        points of 100.
    """
    bundle = load_bundle(options.bundle)
    torch.manual_seed(options.seed)
    exact()
    model = model_of(bundle).eval()
    # Drawn weights give all pictures nearly one score, and differences would say nothing.
    torch.nn.init.normal_(model.fusion.head.quality.weight)
    flops = work(bundle)[END_TO_END].flops
    facts: dict[str, Any] = {"device": name_of(device), "torch": torch.__version__}
    yield from _agreement(bundle, model, device, options, facts)

    ways = _ways(model.to(device), device, options)
    batches = BATCHES[:1] if options.quick else BATCHES
    timed: dict[str, Callable[[], float]] = {
        f"{name}, batch {batch}": partial(_seconds, way, _views(bundle, batch, device), batch)
        for name, way in ways.items()
        for batch in batches
    }
    peaks: dict[str, Callable[[], float]] = {
        f"{precision}, {side} x {side}": partial(_peak, dtype, side, device)
        for precision, dtype in _DTYPES.items()
        for side in ((256,) if options.quick else SIDES)
    }
    memory: dict[str, Callable[[], float]] = {
        "copy": partial(_copy, _FLOATS >> (8 if options.quick else 0), device)
    }
    found = interleave({**timed, **peaks, **memory}, rounds=options.rounds, seed=options.seed)
    yield Series(
        name="memory, copy/bandwidth", unit="GB/s", better="neither",
        values=tuple(v / 1e9 for v in found["copy"]), facts=facts,
    )  # fmt: skip
    best: dict[str, float] = {}
    for name in peaks:
        yield Series(
            name=f"{name}/peak", unit="GFLOP/s", better="neither",
            values=tuple(v / 1e9 for v in found[name]), facts=facts,
        )  # fmt: skip
        precision = name.partition(",")[0]
        best[precision] = max(best.get(precision, 0.0), median(found[name]))
    for name in timed:
        way, _, batch = name.rpartition(", batch ")
        seconds, peak = found[name], best[way.rpartition(" ")[2]]
        about = {**facts, "batch": int(batch)}
        reference = f"{EAGER}, batch {batch}/throughput"
        yield Series(
            name=f"{name}/throughput", unit="images/s", better="higher",
            values=tuple(1 / s for s in seconds), facts=about,
            against=() if way == EAGER else (reference,),
        )  # fmt: skip
        yield Series(
            name=f"{name}/time", unit="ms/image", better="lower",
            values=tuple(1e3 * s for s in seconds), facts=about,
        )  # fmt: skip
        yield Series(
            name=f"{name}/efficiency", unit="%", better="higher",
            values=tuple(100 * flops / (s * peak) for s in seconds),
            facts={**about, "peak": peak / 1e9},
        )  # fmt: skip


EAGER = "PyTorch eager f32"


def _ways(model: Any, device: torch.device, options: Options) -> dict[str, Run]:
    """The model in PyTorch, in each precision; compiled in f16, but on a CPU."""
    ways: dict[str, Run] = {}
    for precision, dtype in _DTYPES.items():
        if device.type == "cpu" and precision == "f16":
            continue  # a CPU has no products in it
        ways[f"PyTorch eager {precision}"] = partial(_call, model, dtype)
    # One is compiled, for each batch anew: PyTorch gives up beyond eight forms, without a word, and
    # each takes a good part of a minute. It needs Triton's compiler and a C compiler.
    if device.type == "cuda" and not options.quick and find_spec("triton") and shutil.which("cc"):
        compiled = torch.compile(model, dynamic=False)
        ways["torch.compile f16"] = partial(_call, compiled, torch.float16)
    return ways


@torch.inference_mode()
def _call(model: Any, dtype: torch.dtype, views: Mapping[str, Tensor]) -> Tensor:
    coarse, fine = views[GLOBAL_VIEW], views[LOCAL_VIEW]
    with torch.autocast(coarse.device.type, dtype, enabled=dtype != torch.float32):
        score: Tensor = model(coarse, fine)[0]
    return score.float()


def _agreement(
    bundle: Bundle, model: Any, device: torch.device, options: Options, facts: dict[str, Any]
) -> Iterator[Series]:
    count = 4 if options.quick else _IMAGES
    data = images.mixed(options, count)

    def scores(way: Run, on: torch.device) -> np.ndarray[Any, Any]:
        def call(views: Mapping[str, Any]) -> Any:
            found = way({n: torch.from_numpy(v).to(on) for n, v in views.items()})
            return found.cpu().numpy()

        return np.array(with_pillow(bundle.manifest.tensors, call, min(8, count))(data))

    cpu = torch.device("cpu")
    wanted = scores(partial(_call, model.to(cpu), torch.float32), cpu)
    for name, way in _ways(model.to(device), device, options).items():
        apart = np.abs(scores(way, device) - wanted)
        for metric, value in (("largest", apart.max()), ("mean", apart.mean())):
            yield Series(
                name=f"{name}/{metric} difference", unit="points", better="lower",
                values=(float(value),), facts={**facts, "images": count, "spread": wanted.std()},
            )  # fmt: skip


def _views(bundle: Bundle, batch: int, device: torch.device) -> dict[str, Tensor]:
    found = example(bundle, GLOBAL_BRANCH, batch) | example(bundle, LOCAL_BRANCH, batch)
    return {name: torch.from_numpy(view).to(device) for name, view in found.items()}


def _seconds(way: Run, views: Mapping[str, Tensor], batch: int) -> float:
    """Of one image, mean of as many calls as fill the least time."""
    way(views)
    calls, start, passed = 0, time.perf_counter(), 0.0
    while passed < _SECONDS:
        way(views)
        _wait(views[GLOBAL_VIEW].device)
        calls += 1
        passed = time.perf_counter() - start
    return passed / (calls * batch)


def _peak(dtype: torch.dtype, side: int, device: torch.device) -> float:
    """Operations a second of one matrix product, the best of those that fill the least time."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / _best(partial(torch.mm, a, b), device)


def _copy(floats: int, device: torch.device) -> float:
    """Bytes a second, read and written."""
    a, b = (torch.zeros(floats, device=device) for _ in range(2))
    return 2 * a.element_size() * floats / _best(partial(a.copy_, b), device)


def _best(call: Callable[[], object], device: torch.device) -> float:
    call()
    _wait(device)
    times: list[float] = []
    start = time.perf_counter()
    while not times or time.perf_counter() - start < _SECONDS:
        begin = time.perf_counter()
        call()
        _wait(device)
        times.append(time.perf_counter() - begin)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
