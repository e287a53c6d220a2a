"""The model in PyTorch as one of parity's runtimes."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from build.parity import Array, Runtime
from giqa.precision import Precision
from giqa.tensors import inputs_of, outputs_of
from training.graphs import sizes_of
from training.model import Giqa


def torch_runtime(model: Giqa, precision: Precision) -> Runtime:
    """PyTorch on the CPU.

    Args:
        model: with the rounded weights of a bundle; is put into evaluation mode.
        precision: `bf16` is autocast, as in training.
    """
    model = model.eval().float()
    sizes = sizes_of(model.preset)

    @torch.inference_mode()
    def run(name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        given = [torch.from_numpy(inputs[tensor]) for tensor in inputs_of(name)]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found = getattr(model, name)(*given)
        tensors = found if isinstance(found, tuple) else (found,)
        names = outputs_of(name, sizes)
        return {n: t.float().numpy() for n, t in zip(names, tensors, strict=True)}

    return Runtime(f"torch-{precision}", precision, graphs=run)
