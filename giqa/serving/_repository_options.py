"""What can be chosen of a repository, and what follows from it: batches, queues, instances."""

from __future__ import annotations

from dataclasses import dataclass, field

from giqa.contract import (
    GIQA,
    GIQA_BYTES,
    GIQA_ISOLATED,
    GIQA_MAP,
    GIQA_PRECISE,
    GIQA_VIEWS,
    PREPROCESS,
    PREPROCESS_BYTES,
    PREPROCESS_ISOLATED,
    PREPROCESS_PRECISE,
    PREPROCESSES,
)
from giqa.manifest import Manifest
from giqa.precision import Precision
from giqa.serving._gpu import DECODERS, SPARE, Memory, Road, batch_on_gpu, plan, road
from giqa.tensors import Device, engine_tensors, ensembles, max_batch_of
from giqa.types import Limits

INFLIGHT_SINCE = (2, 64)
"""First Triton that knows `max_inflight_requests` of ensembles; older ones refuse the config."""
SAFE_REJECTION_SINCE = (2, 69)
"""First Triton whose ensembles survive a full queue between two steps (core pull requests 466 and
483): in older ones a worker thread then waits for ever on a freed lock. What is rendered limits no
queue between steps, but an operator may."""
CPU_RESOURCE = "giqa_cpu"
"""Rate limiter's resource: who executes on the CPU."""
CPU_SLOTS = 3
"""How much of it there is for each of `RepositoryOptions.instances`; an instance of a branch or of
fusion takes one. An instance of preprocessing takes two, so it starts only when no more than one
other works: the queue builds up, and refuses, where work comes in. With less, a branch could not
begin while preprocessing hands over, and both branches not together: a release wakes one of those
that wait."""


PREPROCESS_OF = {
    GIQA: PREPROCESS,
    GIQA_MAP: PREPROCESS,
    GIQA_PRECISE: PREPROCESS_PRECISE,
    GIQA_ISOLATED: PREPROCESS_ISOLATED,
    GIQA_BYTES: PREPROCESS_BYTES,
}
BATCH: dict[Device, int] = {"cpu": 8, "gpu": 32}
"""Most images a composing model takes at once, unless told otherwise. A GPU's products are of a
size with 32: see `python -m benchmarks predict`."""
QUEUE: dict[Device, int] = {"cpu": 64, "gpu": 128}
"""Most requests that wait for preprocessing, unless told otherwise: a few batches of all
instances."""


@dataclass(frozen=True, kw_only=True)
class RepositoryOptions:
    """What a repository is rendered for.

    Attributes:
        device: `cpu` or `gpu`.
        bundle: how the server's models find the bundle: a packaged name or a folder.
        precision: the engines' precision, as it stands in result rows (`openvino-bf16`).
        threads: CPU threads a model uses; 0: all.
        limits: limits on what is decoded (CPU; on a GPU the client keeps them).
        max_batch: most images a composing model takes at once; 0: `BATCH`'s.
        max_queue: most requests that wait for a preprocess model, more are rejected; 0: `QUEUE`'s.
        timeout_s: longest wait for preprocessing in seconds; a request may ask for less.
        instances: instances of each composing model that work at the same time, see
            `instances_on_cpu`; 0, on a GPU only: chosen by `_gpu.plan`.
        memory: most bytes that tensors and pictures may take on a GPU; None: what they need.
        cuda_graphs: capture CUDA graphs of the engines (GPU).
        profiles: optimisation profiles that the engines have (GPU).
        version_compatible: the engines are of an earlier TensorRT than the server's may be (GPU).
        gpus: how many there are.
        cache: let Triton answer repeated requests of `giqa` from its cache.
        server: Triton's version.
    """

    device: Device = "cpu"
    bundle: str = "giqa-s"
    precision: Precision = "f32"
    threads: int = 0
    limits: Limits = field(default_factory=Limits)
    max_batch: int = 0
    max_queue: int = 0
    timeout_s: float = 10.0
    instances: int = 1
    memory: int | None = None
    cuda_graphs: bool = True
    profiles: int = 2
    version_compatible: bool = False
    gpus: int = 1
    cache: bool = False
    server: tuple[int, int] = (2, 51)

    def __post_init__(self) -> None:
        """Fill in what follows from the device."""
        object.__setattr__(self, "max_batch", self.max_batch or BATCH[self.device])
        object.__setattr__(self, "max_queue", self.max_queue or QUEUE[self.device])

    @property
    def engine(self) -> str:
        """Runtime and precision, such as `openvino-bf16`."""
        return f"{'openvino' if self.device == 'cpu' else 'tensorrt'}-{self.precision}"


MAIN_ROAD = (GIQA, GIQA_MAP, GIQA_VIEWS)
"""Ensembles that need `PREPROCESS` and the graphs alone: a server loads them first, and half of a
CPU's processes later. What was killed scores again in two thirds of the time."""


def memory_of(manifest: Manifest, options: RepositoryOptions) -> Memory:
    """Plan a GPU's instances and the memory of what lies there.

    Args:
        manifest: for the tensors' sizes and the number of tiles.
        options: for batch, queue, instances and the limit.

    Raises:
        UsageError: they do not fit into the limit.
    """
    return plan(
        engine_tensors(manifest.tensors, options.precision),
        manifest.tiles,
        max_batch=options.max_batch,
        in_flight={name: in_flight_of(name, options) for name in ensembles("gpu")},
        max_pixels=options.limits.max_pixels,
        threads=options.threads,
        instances=options.instances,
        limit=options.memory,
    )


def road_of(name: str, options: RepositoryOptions) -> Road:
    """How pictures go through a preprocess model on a GPU."""
    return road(
        name,
        max_batch=options.max_batch,
        max_pixels=options.limits.max_pixels,
        threads=options.threads,
    )


def instances_on_cpu(name: str, options: RepositoryOptions) -> int:
    """Tell how many instances, and so processes, a composing model has on a CPU.

    Preprocessing has a spare: Triton looks at a queue with a policy when a request comes in while
    an instance is idle, or after half a second; so a queue stood still although nothing ran. With
    the spare, and without policies between steps, 16 in flight went from 26 to 35 images/s on two
    cores, 64 at once from 3.9 to 1.8 s. It costs 160 MB. `preprocess_isolated`, for a bad batch's
    second try, has none.

    Args:
        name: the model.
        options: for `instances`.
    """
    return options.instances + (name in PREPROCESSES and name != PREPROCESS_ISOLATED)


def in_flight_of(name: str, options: RepositoryOptions) -> int:
    """Most requests of an ensemble in one of its steps, its queue included.

    Triton counts them at every step, in the thread that took the request in, and waits where there
    are more: unary calls of all clients with it. So the limit is above what the first step's queue
    and instances hold; what is too much finds that queue full and is refused. A further batch may
    come together between two steps.

    Args:
        name: the ensemble.
        options: for batch, queue and instances.
    """
    first = PREPROCESS_OF.get(name, PREPROCESS)
    if options.device == "cpu":
        count, batch = instances_on_cpu(first, options), max_batch_of(first, options.max_batch)
    else:
        count = options.instances or (DECODERS if first == PREPROCESS else SPARE)
        batch = batch_on_gpu(first, options.max_batch)
    return options.max_queue + (count + 1) * batch
