"""Several processes train one model: `torchrun --nproc-per-node N -m training fit RECIPE`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.nn.functional import all_gather


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: this process, 0 .. size - 1; rank 0 writes files and logs.
        size: how many there are.
        device: this process's device.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate (B,) tensors of all processes, with gradients, in rank order.

        Losses over a batch (PLCC, ranking) then see the whole batch. Each process computes the
        same loss; the backward pass sums `size` equal gradients, which DDP divides again.
        """
        return values if self.size == 1 else torch.cat(tuple(all_gather(values)))

    def mean(self, value: float) -> float:
        """The mean of a number over all processes, the same in each."""
        if self.size == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64 if self.device.type == "cpu" else None)
        found = found.to(self.device)
        dist.all_reduce(found)
        return float(found) / self.size

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def world() -> Iterator[World]:
    """Join the processes that torchrun started; alone without torchrun."""
    cuda = torch.cuda.is_available()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, torch.device("cuda" if cuda else "cpu"))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        torch.cuda.set_device(local)
    # Others wait while rank 0 fills caches, which may take hours.
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(days=7))
    try:
        device = torch.device("cuda", local) if cuda else torch.device("cpu")
        yield World(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()
