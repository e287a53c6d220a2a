"""Curves for TensorBoard: `tensorboard --logdir runs`."""

from __future__ import annotations

from pathlib import Path


class Curves:
    """Writes scalars.

    Args:
        folder: where the event files go; None writes nothing.
        step: where the run goes on; points after it, of a run that was killed, are dropped.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._writer = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(folder, flush_secs=30, purge_step=step + 1)

    def scalar(self, name: str, value: float, step: int) -> None:
        """Add one point to a curve."""
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
