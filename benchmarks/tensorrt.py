"""TensorRT engines of a bundle, run without a server. Only where TensorRT and a GPU are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from build.engines import build_engines, runs_on
from build.graphs import precisions_of
from build.parser import Settings
from giqa.bundle import Bundle
from giqa.contract import FUSION, GLOBAL_BRANCH, GRAPHS, LOCAL_BRANCH, LOCAL_VIEW, SCORE, TILES
from giqa.errors import EngineMismatchError
from giqa.precision import PRECISIONS, Precision
from giqa.serving import BATCH, PLAN, load_engines, this_machine

KEPT = Path(__file__).parents[1] / "dist" / "engines"
"""Where engines stay from run to run: a part that ended early goes on with the next precision."""
FIRST: tuple[Precision, ...] = (*PRECISIONS[1:], PRECISIONS[0])
"""In this order: float32, which nobody serves, last."""
_BUILDING = 150.0
"""Seconds after which no further precision is begun: a part of `make gpu` ends in five minutes."""


def folder_of(
    bundle: Bundle, precision: Precision, *, max_batch: int = BATCH["gpu"], kept: Path | None = None
) -> Path:
    """The folder of a bundle's engines for this GPU: those that are kept, or new ones.

    Args:
        bundle: a verified bundle.
        precision: what they compute in.
        max_batch: largest batch.
        kept: where engines stay; `KEPT` unless given.

    Raises:
        GiqaError: see `build.engines.build_engines`.
    """
    machine = this_machine()
    place = (kept or KEPT) / machine.key
    folder = place / f"{bundle.manifest.name}-{precision}"
    try:
        load_engines(folder, bundle, machine, max_batch=max_batch)
    except EngineMismatchError:
        place.mkdir(parents=True, exist_ok=True)
        settings = Settings(timing_cache=place / "timing.cache")
        build_engines(bundle, folder, precision=precision, max_batch=max_batch, settings=settings)
    return folder


def engines(bundle: Bundle, max_batch: int) -> Iterator[tuple[str, Engines]]:
    """A bundle's engines for this GPU, in each precision that both have.

    Args:
        bundle: a verified bundle.
        max_batch: largest batch.

    Yields:
        A name, and what takes views by name on the GPU, (B, 1, side, side, 3) uint8 each, and gives
        scores (B, 1). Precisions for which there is no time are left out, and kept engines cost
        none: the next run has more.

    Raises:
        GiqaError: see `build.engines.build_engines`.
    """
    machine, started = this_machine(), time.monotonic()
    there = precisions_of(bundle)
    for precision in FIRST:
        if precision not in there or not runs_on(precision, machine):
            continue
        if time.monotonic() - started > _BUILDING:
            return
        folder = folder_of(bundle, precision, max_batch=max_batch)
        yield f"TensorRT {precision}", Engines(folder, precision)


class Engines:
    """The three engines of a precision."""

    def __init__(self, folder: Path, precision: Precision) -> None:
        self.precision = precision
        self._graphs = {name: _Engine((folder / name / PLAN).read_bytes()) for name in GRAPHS}

    def __call__(self, views: Mapping[str, Tensor]) -> Tensor:
        tokens = self._graphs[GLOBAL_BRANCH](views) | self._graphs[LOCAL_BRANCH](views)
        return self._graphs[FUSION](tokens)[SCORE]


class _Engine:
    def __init__(self, plan: bytes) -> None:
        import tensorrt

        self._dtypes = {
            tensorrt.DataType.UINT8: torch.uint8,
            tensorrt.DataType.FLOAT: torch.float32,
            tensorrt.DataType.HALF: torch.float16,
            tensorrt.DataType.BF16: torch.bfloat16,
        }
        self._input = tensorrt.TensorIOMode.INPUT
        # They have to outlive what is made of them.
        self._logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        self._runtime = runtime = tensorrt.Runtime(self._logger)
        self._engine: Any = runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineMismatchError("TensorRT does not read the plan", item="gpu_engines")
        # One a profile: of one view, and of several.
        self._contexts: list[Any] = []
        for i in range(self._engine.num_optimization_profiles):
            context = self._engine.create_execution_context()
            context.set_optimization_profile_async(i, torch.cuda.current_stream().cuda_stream)
            self._contexts.append(context)

    def __call__(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == self._input]
        tensors = {n: given[n].contiguous() for n in inputs}
        coarse = [t.shape[1] for n, t in tensors.items() if n.startswith("GLOBAL")]
        several = max(coarse) > 1 if coarse else tensors[LOCAL_VIEW].shape[1] > 1 + TILES
        context = self._contexts[min(int(several), len(self._contexts) - 1)]
        for name in inputs:
            context.set_input_shape(name, tuple(tensors[name].shape))
        outputs = [n for n in names if n not in inputs]
        for name in outputs:
            dtype = self._dtypes[engine.get_tensor_dtype(name)]
            shape = tuple(context.get_tensor_shape(name))
            tensors[name] = torch.empty(shape, dtype=dtype, device="cuda")
        for name, tensor in tensors.items():
            context.set_tensor_address(name, tensor.data_ptr())
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        return {name: tensors[name] for name in outputs}
