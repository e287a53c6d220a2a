"""TensorRT engines of a bundle, run without a server. Only where TensorRT and a GPU are."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from build.engines import build_engines
from giqa.bundle import Bundle
from giqa.contract import FUSION, GLOBAL_BRANCH, LOCAL_BRANCH, LOCAL_VIEW, SCORE, TILES
from giqa.precision import HALVES, Precision
from giqa.serving import PLAN


def engines(bundle: Bundle, max_batch: int) -> dict[str, Engines]:
    """Build a bundle's engines for this GPU, in each precision.

    Args:
        bundle: a verified bundle.
        max_batch: largest batch.

    Returns:
        Name to what takes views by name on the GPU, (B, 1, side, side, 3) uint8 each, and gives
        scores (B, 1).

    Raises:
        GiqaError: see `build.engines.build_engines`.
    """
    return {
        f"TensorRT {precision}": Engines(bundle, precision, max_batch)
        for precision in ("f32", *HALVES)
    }


class Engines:
    """The three engines of a precision."""

    def __init__(self, bundle: Bundle, precision: Precision, max_batch: int) -> None:
        self.precision = precision
        with tempfile.TemporaryDirectory() as name:
            build_engines(bundle, Path(name), precision=precision, max_batch=max_batch)
            plans = {p.parent.name: p.read_bytes() for p in Path(name).glob(f"*/{PLAN}")}
        self._graphs = {graph: _Engine(plan) for graph, plan in plans.items()}

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
        runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engine: Any = runtime.deserialize_cuda_engine(plan)
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
