"""The graphs that TensorRT gets, computed by PyTorch on a GPU: what half precision costs there.

Second part of `make gpu`: PyTorch, `onnx` and `onnxruntime` are all it needs, and 64 photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import images
from benchmarks.counting import END_TO_END, work
from benchmarks.gpus import device_of, exact, name_of, one
from benchmarks.options import Options
from benchmarks.record import Series
from benchmarks.rounds import interleave
from benchmarks.suites.gpu import BATCHES, _peak, _seconds, _views
from build.graphs import engine_graph
from build.interpreter import Interpreter
from build.parity import Row, Runtime, compare
from build.runtimes import onnx_runtime
from giqa.bundle import Bundle, load_bundle
from giqa.contract import (
    FUSION,
    GLOBAL_BRANCH,
    GLOBAL_VIEW,
    GRAPHS,
    LOCAL_BRANCH,
    LOCAL_VIEW,
    SCORE,
)
from giqa.decode import Decoder
from giqa.precision import BOUNDS, HALVES, Precision
from giqa.types import Item, Views

_IMAGES = 64


def run(options: Options) -> Iterator[Series]:
    """Measure on this machine's first GPU.

    Raises:
        EngineMismatchError: there is no usable GPU.
    """
    yield from measure(options, device_of("gpu_graphs"))


class Graphs:
    """The three graphs of a bundle in a precision, from views to scores."""

    def __init__(self, bundle: Bundle, precision: Precision, device: torch.device) -> None:
        self._device = device
        self.graphs = {
            name: Interpreter(engine_graph(bundle, name, precision), device) for name in GRAPHS
        }

    def __call__(self, views: Mapping[str, Tensor]) -> Tensor:
        """Scores (B, 1) of views by name on the device."""
        tokens = self.graphs[GLOBAL_BRANCH](views) | self.graphs[LOCAL_BRANCH](views)
        return self.graphs[FUSION](tokens)[SCORE]

    def runtime(self, precision: Precision) -> Runtime:
        """As `build.parity` compares it."""

        def run(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
            graph = self.graphs[name]
            given = {n: torch.from_numpy(np.array(values[n])) for n in graph.inputs}
            found = graph({n: t.to(self._device, graph.types[n]) for n, t in given.items()})
            return {n: t.float().cpu().numpy() for n, t in found.items()}

        return Runtime(f"PyTorch {precision}", precision, graphs=run)


def measure(options: Options, device: torch.device) -> Iterator[Series]:
    """Measure on a device; on a CPU, for tests, in float32: its halves take minutes.

    Yields:
        Of each precision, differences from ONNX Runtime in float32 in points of 100 and SROCC, how
        far a score depends on batch and order, and throughput, with and without CUDA graphs.
    """
    bundle = load_bundle(options.bundle)
    views = _decoded(
        bundle,
        images.sized(options, 512, 512, 2) if options.quick else images.mixed(options, _IMAGES),
        options,
    )
    cuda = device.type == "cuda"
    exact()
    facts: dict[str, Any] = {"device": name_of(device), "images": len(views)}
    precisions: tuple[Precision, ...] = ("f32", *HALVES) if cuda else ("f32",)
    ways = {p: Graphs(bundle, p, device) for p in precisions}
    reference = onnx_runtime(bundle, threads=options.threads)
    runtimes = [graphs.runtime(p) for p, graphs in ways.items()]
    for row in compare(bundle.manifest.id, views, reference, runtimes).rows:
        yield from _agreed(row, reference, facts)
    for precision, graphs in ways.items():
        apart = _dependence(graphs, views, device, (2,) if options.quick else BATCHES)
        yield one(f"PyTorch {precision}/moved by batch and order", apart, "points", facts)
    yield from _speed(bundle, ways, device, options, facts)


def _agreed(row: Row, reference: Runtime, facts: Mapping[str, Any]) -> Iterator[Series]:
    about = {**facts, "against": reference.name, "gate": row.passes}
    yield one(f"{row.runtime}/largest difference", row.score.largest, "points", about)
    yield one(f"{row.runtime}/mean difference", row.score.mean, "points", about)
    if row.srocc is not None:
        yield one(f"{row.runtime}/SROCC", row.srocc, "", about)


def _stacked(views: Sequence[Views], device: torch.device) -> dict[str, Tensor]:
    """Views of several pictures on a device, each of as many squares."""
    given = {
        GLOBAL_VIEW: np.stack([v.global_view for v in views]),
        LOCAL_VIEW: np.stack([v.local_view for v in views]),
    }
    return {name: torch.from_numpy(view).to(device) for name, view in given.items()}


def _decoded(bundle: Bundle, data: Sequence[bytes], options: Options) -> list[Views]:
    decoder = Decoder(bundle.manifest, batch=8, threads=options.threads)
    found = []
    for picture in decoder([Item(str(i), data=d) for i, d in enumerate(data)], "fast"):
        if picture.error is not None:
            raise picture.error
        assert picture.views is not None
        found.append(picture.views)
    return found


def _dependence(
    graphs: Graphs, views: Sequence[Views], device: torch.device, batches: Sequence[int]
) -> float:
    """Largest difference of a picture's scores alone and in batches, in order and against it."""
    like = [v for v in views if v.counts == views[0].counts]

    def scores(order: Sequence[int], batch: int) -> np.ndarray[Any, Any]:
        found = np.empty(len(like))
        for start in range(0, len(order), batch):
            part = list(order[start : start + batch])
            given = _stacked([like[i] for i in part], device)
            found[part] = graphs(given)[:, 0].float().cpu().numpy()
        return found

    forth = range(len(like))
    alone = scores(forth, 1)
    orders = (forth, forth[::-1])
    others = [scores(order, batch) for batch in batches for order in orders]
    return float(max(np.abs(other - alone).max() for other in others))


def _speed(
    bundle: Bundle,
    ways: Mapping[Precision, Graphs],
    device: torch.device,
    options: Options,
    facts: Mapping[str, Any],
) -> Iterator[Series]:
    cuda, flops = device.type == "cuda", work(bundle)[END_TO_END].flops
    timed: dict[str, Callable[[], float]] = {}
    for precision, graphs in ways.items():
        for batch in BATCHES[:1] if options.quick else BATCHES:
            views = _views(bundle, batch, device)
            name = f"PyTorch {precision}, batch {batch}"
            timed[name] = partial(_seconds, graphs, views, batch)
            if cuda:
                timed[f"{name}, CUDA graph"] = partial(
                    _seconds, _captured(graphs, views), views, batch
                )
    peaks = {
        p: max(_peak(getattr(torch, BOUNDS[p].dtype), side, device) for side in _sides(options))
        for p in ways
    }
    for name, seconds in interleave(timed, rounds=options.rounds, seed=options.seed).items():
        precision = next(p for p in ways if name.startswith(f"PyTorch {p},"))
        yield Series(
            name=f"{name}/throughput", unit="images/s", better="higher",
            values=tuple(1 / s for s in seconds), facts=dict(facts),
        )  # fmt: skip
        yield Series(
            name=f"{name}/efficiency", unit="%", better="higher",
            values=tuple(100 * flops / (s * peaks[precision]) for s in seconds),
            facts={**facts, "peak": peaks[precision] / 1e9},
        )  # fmt: skip


def _sides(options: Options) -> Sequence[int]:
    return (256,) if options.quick else (4096, 8192)


def _captured(graphs: Graphs, views: Mapping[str, Tensor]) -> Callable[[Mapping[str, Tensor]], Any]:
    """The same work as one CUDA graph: what launching every kernel costs shows beside it."""
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(3):
            graphs(views)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        graphs(views)
    return lambda _: graph.replay()
