"""What steps, validation and learning on pooled features share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.recipe import Optimisation
from training.sources import Inputs, Source
from training.trainee import Trainee

EVALUATION_BATCH = 32


def use_amp(options: Optimisation, device: torch.device) -> bool:
    """Whether steps run under bfloat16 autocast: asked for, and native on this hardware."""
    if not options.amp:
        return False
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def on(device: torch.device, inputs: Inputs) -> Inputs:
    """Inputs on a device."""
    return [t.to(device) for t in inputs[0]], [t.to(device) for t in inputs[1]]


def joined(first: Inputs, second: Inputs) -> Inputs:
    """Two batches of inputs as one."""
    return (
        [torch.cat(pair) for pair in zip(first[0], second[0], strict=True)],
        [torch.cat(pair) for pair in zip(first[1], second[1], strict=True)],
    )


def batches(source: Source) -> Iterator[tuple[int, int]]:
    """Ranges of samples that fit into one batch of `Source.whole`."""
    size = EVALUATION_BATCH if source.uniform else 1
    for start in range(0, len(source.samples), size):
        yield start, min(start + size, len(source.samples))


@torch.inference_mode()
def predict(trainee: Trainee, source: Source, amp: bool, device: torch.device) -> npt.NDArray[Any]:
    """Scores (n,) float32 of a source's samples, not augmented."""
    trainee.eval()
    parts = []
    for start, end in batches(source):
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            score = trainee(*on(device, source.whole(start, end)))
        parts.append(score.float().cpu().numpy())
    return np.concatenate(parts)


def schedule(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then cosine to zero: the share of the peak learning rate."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


@torch.no_grad()
def assign(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy values into parameters of the same names."""
    for n, p in parameters.items():
        p.copy_(values[n])


@contextmanager
def swapped(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block the parameters hold other values."""
    own = {n: p.detach().clone() for n, p in parameters.items()}
    assign(parameters, values)
    try:
        yield
    finally:
        assign(parameters, own)


class Average:
    """Exponentially averaged parameters; the first steps are averaged over fewer.

    Args:
        parameters: what is averaged, by name.
        decay: share of the average that a step keeps, in the long run.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.values = {n: p.detach().clone() for n, p in parameters.items()}
        self._parameters, self._decay = parameters, decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after `step` steps."""
        decay = min(self._decay, step / (step + 10))
        for n, p in self._parameters.items():
            self.values[n].lerp_(p, 1 - decay)
