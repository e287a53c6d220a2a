"""What a GPU server should reach, by arithmetic, and what limits it: to be held against a real one.

Each picture uses four things that work beside each other: the GPU itself (resizing and the three
graphs), the JPEG decoders, the link to the host, and the host. The slowest is the limit. Every
number has a source: NVIDIA's data sheets, a count of the graphs, or an assumption, which says so.
Nothing here was measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.counting import Count, count
from build.graphs import engine_graph
from giqa.bundle import Bundle
from giqa.contract import GRAPHS
from giqa.precision import BOUNDS, Precision
from giqa.serving import BATCH, QUEUE
from giqa.tensors import shape_with

_MEGA, _GIGA, _TERA = 1e6, 1e9, 1e12


@dataclass(frozen=True)
class Gpu:
    """A GPU as its data sheet has it, without sparsity.

    Attributes:
        name: what it is called.
        halves: operations a second in f16 and bf16, in units of 10^12.
        bytes: the same of products of one byte, int8.
        bandwidth: of its memory, GB/s.
        link: to the host, GB/s that are to be had of PCIe 4 or 5 x 16.
        jpeg: hardware engines that decode JPEG.
    """

    name: str
    halves: float
    bytes: float
    bandwidth: float
    link: float
    jpeg: int


GPUS = (
    Gpu("L4", 121, 242, 300, 25, 4),
    Gpu("A10", 125, 250, 600, 25, 0),
    Gpu("H100", 989, 1979, 3350, 50, 7),
    Gpu("H200", 989, 1979, 4800, 50, 7),
)


@dataclass(frozen=True)
class Assumed:
    """What no data sheet says; a first run on a GPU replaces these.

    Attributes:
        share: of the peak that products of such sizes reach.
        moved: share of the products' operands and results that goes through the GPU's memory.
        kernels: kernels for each node of a graph, after fusion.
        launch: seconds that a kernel takes at the least.
        launch_graph: the same in a CUDA graph.
        engine: megapixels a second of a hardware JPEG engine.
        core: megapixels a second of a CPU thread that decodes JPEG.
        cores: CPU threads that decode where there is no engine.
        requests: a second that the server takes in.
        bits: of a file, for each pixel.
    """

    share: float = 0.4
    moved: float = 0.5
    kernels: float = 0.4
    launch: float = 5e-6
    launch_graph: float = 1.5e-6
    engine: float = 400
    core: float = 100
    cores: int = 12
    requests: float = 15_000
    bits: float = 2


@dataclass(frozen=True)
class Prediction:
    """What is predicted.

    Attributes:
        gpu: its name.
        precision: what engines compute in.
        batch: images at once.
        pixels: of a picture.
        seconds: of one image, by what works on it.
        alone: seconds of one image in a server without others.
    """

    gpu: str
    precision: Precision
    batch: int
    pixels: int
    seconds: dict[str, float] = field(repr=False)
    alone: float

    @property
    def limit(self) -> str:
        """What is slowest."""
        return max(self.seconds, key=self.seconds.__getitem__)

    @property
    def rate(self) -> float:
        """Images a second."""
        return 1 / self.seconds[self.limit]

    @property
    def queue(self) -> float:
        """Seconds that the last request of a full queue waits."""
        return QUEUE["gpu"] / self.rate


@dataclass(frozen=True)
class Work:
    """What a picture costs.

    Attributes:
        graphs: work of each graph for one image.
        nodes: operators of each graph, but for those that only shape.
        views: bytes of its views.
    """

    graphs: dict[str, Count]
    nodes: dict[str, int]
    views: int


_SHAPING = (
    "Shape",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Concat",
    "Slice",
    "Gather",
    "Expand",
    "Cast",
)


def work_of(bundle: Bundle, *, tiles: int) -> Work:
    """Count what one image of one view and T tiles costs."""
    sizes = bundle.manifest.tensors
    dimensions = {"batch": 1, "views": 1, "details": 1 + tiles}
    graphs, nodes = {}, {}
    for name in GRAPHS:
        model = engine_graph(bundle, name, "f32")
        graphs[name] = count(model, dimensions)
        nodes[name] = sum(node.op_type not in _SHAPING for node in model.graph.node)
    views = 0
    for name in ("GLOBAL_VIEW", "LOCAL_VIEW"):
        shape = shape_with(name, sizes, 1, tiles)
        views += shape[0] * shape[1] * shape[2] * shape[3]
    return Work(graphs, nodes, views)


def predict(
    gpu: Gpu,
    work: Work,
    *,
    pixels: int,
    precision: Precision = "f16",
    batch: int = BATCH["gpu"],
    cuda_graphs: bool = True,
    assumed: Assumed | None = None,
) -> Prediction:
    """Predict a server with one GPU.

    Args:
        gpu: the GPU.
        work: what a picture costs.
        pixels: of a picture.
        precision: `f16`, `bf16` or `int8`.
        batch: images at once.
        cuda_graphs: of the engines.
        assumed: what no data sheet says.
    """
    assumed = assumed or Assumed()
    graphs = _graphs(gpu, work, precision, batch, cuda_graphs, assumed)
    # Written by the decoder, read by the resizer, three bytes a pixel; then the views.
    resize = (6 * pixels + work.views) / (gpu.bandwidth * _GIGA)
    rate = gpu.jpeg * assumed.engine or assumed.cores * assumed.core
    slowest = assumed.engine if gpu.jpeg else assumed.core
    upload = pixels * assumed.bits / 8 / (gpu.link * _GIGA)
    seconds = {
        "GPU": resize + graphs,
        "JPEG engines" if gpu.jpeg else "CPU decoding": pixels / (rate * _MEGA),
        "link": upload,
        "requests": 1 / assumed.requests,
    }
    one = _graphs(gpu, work, precision, 1, cuda_graphs, assumed)
    alone = pixels / (slowest * _MEGA) + upload + resize + one + 1 / assumed.requests
    return Prediction(gpu.name, precision, batch, pixels, seconds, alone)


def _graphs(
    gpu: Gpu, work: Work, precision: Precision, batch: int, cuda_graphs: bool, assumed: Assumed
) -> float:
    """Seconds of an image in the three graphs: by operations, by bytes or by launches."""
    size = BOUNDS[precision].bytes
    peak = (gpu.bytes if size == 1 else gpu.halves) * _TERA * assumed.share
    launch = assumed.launch_graph if cuda_graphs else assumed.launch
    total = 0.0
    for name, found in work.graphs.items():
        # Between products that take bytes stand halves.
        moved = found.streamed * assumed.moved * max(size, 2)
        total += max(
            found.flops / peak,
            moved / (gpu.bandwidth * _GIGA),
            work.nodes[name] * assumed.kernels * launch / batch,
        )
    return total


PICTURES = ((512 * 512, 0), (1920 * 1080, 4), (4000 * 3000, 4))
"""Pixels and tiles of the table's pictures."""


def table(bundle: Bundle, *, batch: int = BATCH["gpu"], precisions: Sequence[Precision]) -> str:
    """The predictions, as Markdown."""
    works = {tiles: work_of(bundle, tiles=tiles) for tiles in {t for _, t in PICTURES}}
    head = ["GPU", "", *(f"{pixels / _MEGA:.1f} MP" for pixels, _ in PICTURES), "one alone"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for gpu in GPUS:
        for precision in precisions:
            found = [
                predict(gpu, works[tiles], pixels=pixels, precision=precision, batch=batch)
                for pixels, tiles in PICTURES
            ]
            cells = [f"{_rounded(one.rate):,} ({one.limit})" for one in found]
            alone = f"{1e3 * found[0].alone:.1f} ms"
            lines.append(f"| {' | '.join([gpu.name, precision, *cells, alone])} |")
    return "\n".join(lines) + "\n"


def _rounded(value: float) -> int:
    """To two figures: more would say more than is known."""
    digits = len(str(int(value))) - 2
    return int(round(value, -digits))


def ways(bundle: Bundle, gpu: Gpu) -> Iterator[tuple[str, Prediction]]:
    """What each choice of the configuration is worth, by the model: a picture of 0.3 megapixels."""
    work, pixels = work_of(bundle, tiles=0), PICTURES[0][0]
    for batch in (1, 8, 32, 64):
        for graphs in (False, True):
            name = f"batch {batch}, {'CUDA graphs' if graphs else 'launched one by one'}"
            yield name, predict(gpu, work, pixels=pixels, batch=batch, cuda_graphs=graphs)
