"""The training loop: steps, averaged weights, checkpoints, validation."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from training import checkpoint, losses, metrics
from training.board import Board
from training.distillation import Distiller
from training.distributed import World
from training.recipe import Optimisation, Recipe
from training.sources import Inputs, Rows, Source
from training.trainee import Outputs, Trainee, groups

_EVALUATION_BATCH = 32


@dataclass
class Progress:
    """What a checkpoint holds beside tensors.

    Attributes:
        preset: name of the preset.
        step: steps done.
        best: highest validation SROCC so far.
        best_epoch: the epoch that reached it, from 1; 0: none yet.
        losses: sum of the losses of this epoch's steps so far.
    """

    preset: str
    step: int = 0
    best: float = -2.0
    best_epoch: int = 0
    losses: float = 0.0


def use_amp(options: Optimisation, device: torch.device) -> bool:
    """Whether steps run under bfloat16 autocast: asked for, and native on this hardware."""
    if not options.amp:
        return False
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@torch.inference_mode()
def predict(trainee: Trainee, source: Source, amp: bool, device: torch.device) -> npt.NDArray[Any]:
    """Scores (n,) float32 of a source's samples, not augmented."""
    trainee.eval()
    size = _EVALUATION_BATCH if source.uniform else 1
    parts = []
    for start in range(0, len(source.samples), size):
        state, stages = source.whole(start, min(start + size, len(source.samples)))
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            outputs = trainee(*on(device, (state, stages)))
        parts.append(outputs.score.float().cpu().numpy())
    return np.concatenate(parts)


def on(device: torch.device, inputs: Inputs) -> Inputs:
    """Inputs on a device."""
    return [t.to(device) for t in inputs[0]], [t.to(device) for t in inputs[1]]


class Loop:
    """Trains until the recipe's last epoch, from its newest checkpoint.

    Args:
        trainee: the model, frozen as the recipe says, on its device.
        train: training images.
        validation: validation images.
        recipe: what to do.
        world: the processes that take part.
        distiller: a teacher's targets, where there is one.

    Raises:
        ValueError: a batch does not divide into micro-batches and processes, there are fewer
            images than one batch, or the checkpoint is of another preset.
    """

    def __init__(
        self,
        trainee: Trainee,
        train: Source,
        validation: Source,
        recipe: Recipe,
        world: World,
        distiller: Distiller | None = None,
    ) -> None:
        options = recipe.optimisation
        self.trainee, self.train, self.validation = trainee, train, validation
        self.recipe, self.options, self.world = recipe, options, world
        self.distiller = distiller
        self.amp = use_amp(options, world.device)
        share = options.accumulate * world.size
        if options.batch % share:
            raise ValueError(
                f"a batch of {options.batch} does not divide into {options.accumulate} "
                f"micro-batches for {world.size} processes"
            )
        self.per_epoch = len(train.samples) // options.batch
        if not self.per_epoch:
            raise ValueError(f"{len(train.samples)} training images are less than one batch")
        self.total = self.per_epoch * options.epochs
        model = trainee.model
        learning = list(model.named_parameters()) + (
            [] if distiller is None else list(distiller.named_parameters())
        )
        self.parameters = {n: p for n, p in learning if p.requires_grad}
        parts = groups(model, options.lr, options.backbone_lr)
        if distiller is not None and (extra := list(distiller.parameters())):
            parts.append({"params": extra, "lr": options.lr, "peak_lr": options.lr})
        kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = kind(
            parts, lr=options.lr, weight_decay=options.weight_decay, betas=(0.9, 0.99)
        )
        self.average = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.best = {n: p.clone() for n, p in self.average.items()}
        self.progress = Progress(recipe.preset)
        self._restore()
        forward: nn.Module = trainee
        if options.compile:
            forward = torch.compile(trainee)  # type: ignore[assignment]
        if world.size > 1:
            forward = DistributedDataParallel(forward)
        self.forward = forward

    def run(self) -> Path:
        """Train.

        Returns:
            The final weights' file, written by rank 0 (`final_weights`).
        """
        output, progress = self.recipe.output, self.progress
        board = Board(output / "tensorboard" if self.world.main else None)
        while progress.step < self.total:
            self._epoch(progress.step // self.per_epoch, board)
        board.close()
        assign(self.parameters, self.best)
        self.trainee.eval()
        return output / "final.safetensors"

    def _epoch(self, epoch: int, board: Board) -> None:
        options, progress, started = self.options, self.progress, time.monotonic()
        order = self.train.plan(np.random.default_rng([options.seed, epoch]))
        self.trainee.train()
        done = progress.step - epoch * self.per_epoch
        quiet = None if self.world.main else True
        bar = tqdm(
            desc=f"epoch {epoch + 1}/{options.epochs}",
            total=self.per_epoch,
            initial=done,
            unit="step",
            disable=quiet,
            file=sys.stderr,
            leave=False,
        )
        for i in range(done, self.per_epoch):
            value = self._step(order[i * options.batch : (i + 1) * options.batch], epoch)
            progress.losses += value
            if not math.isfinite(value):
                raise ValueError(
                    f"the loss is {value} at step {progress.step}: lower lr, or amp = false"
                )
            board.scalar("train/loss", value, progress.step)
            board.scalar("train/lr", self.optimizer.param_groups[-1]["lr"], progress.step)
            bar.update()
            bar.set_postfix(loss=f"{progress.losses / (i + 1):.4f}")
            if options.save_steps and (i + 1) % options.save_steps == 0 and i + 1 < self.per_epoch:
                self._save()
        bar.close()
        if self.world.main:
            self._validate(epoch, time.monotonic() - started, board)
        progress.losses = 0.0
        if self.world.size > 1:
            self._share_best()
        self._save()

    def _step(self, rows: Rows, epoch: int) -> float:
        options, progress, world = self.options, self.progress, self.world
        # Dropout draws the same numbers after a resume, others in each process.
        torch.manual_seed((options.seed * 1_000_003 + progress.step) * 64 + world.rank)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * schedule(
                progress.step, self.total, options.warmup_steps
            )
        self.optimizer.zero_grad(set_to_none=True)
        value = 0.0
        pieces = np.split(rows, options.accumulate)
        for i, piece in enumerate(pieces):
            last = i == len(pieces) - 1
            local = np.split(piece, world.size)[world.rank]
            sync = (
                nullcontext()
                if last or not isinstance(self.forward, DistributedDataParallel)
                else self.forward.no_sync()
            )
            with sync:
                loss = self._loss(local, piece, epoch) / len(pieces)
                loss.backward()
            value += loss.item()
        if self.distiller is not None:  # it is outside of what DDP wraps
            world.average_gradients(self.distiller.parameters())
        nn.utils.clip_grad_norm_(self.parameters.values(), options.clip)
        self.optimizer.step()
        progress.step += 1
        decay = min(options.ema, progress.step / (progress.step + 10))
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                self.average[name].lerp_(parameter, 1 - decay)
        return value

    def _loss(self, local: Rows, whole: Rows, epoch: int) -> Tensor:
        """The loss of this process's rows; terms over a batch see the rows of all processes."""
        device = self.world.device
        inputs = on(device, self.train.batch(local, epoch))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.amp):
            outputs: Outputs = self.forward(*inputs)
        score = self.world.gather(outputs.score)
        weight = 1.0 if self.distiller is None else self.distiller.label_weight
        loss = score.sum() * 0
        if weight:
            mos = self.train.mos(whole).to(device)
            loss = loss + weight * losses.on_scores(score, mos, self.options)
        if self.distiller is not None:
            loss = loss + self.distiller(outputs, score, local, whole, self.options)
        return loss

    def _validate(self, epoch: int, seconds: float, board: Board) -> None:
        progress, mos = self.progress, self.validation.all_mos
        with swapped(self.parameters, self.average):
            predicted = predict(self.trainee, self.validation, self.amp, self.world.device)
        pooled, subsets = metrics.summary(
            predicted, mos, [s.subset for s in self.validation.samples], resamples=1
        )
        if pooled.srocc > progress.best or not progress.best_epoch:
            progress.best, progress.best_epoch = pooled.srocc, epoch + 1
            self.best = {n: p.clone() for n, p in self.average.items()}
        line = {
            "epoch": epoch + 1,
            "loss": round(progress.losses / self.per_epoch, 5),
            "seconds": round(seconds, 1),
            **{
                f"{name}_{key}": round(getattr(row, key), 4)
                for name, row in {"all": pooled, **subsets}.items()
                for key in ("srocc", "plcc", "rmse")
            },
        }
        for key in ("srocc", "plcc", "rmse"):
            board.scalar(f"validation/{key}", getattr(pooled, key), progress.step)
        with (self.recipe.output / "log.jsonl").open("a") as f:
            f.write(json.dumps(line) + "\n")
        print(json.dumps(line), file=sys.stderr, flush=True)

    def _share_best(self) -> None:
        """Give rank 0's choice to all processes, so that they end with the same weights."""
        told = [self.progress.best, self.progress.best_epoch]
        torch.distributed.broadcast_object_list(told, src=0)
        if told[1] != self.progress.best_epoch:  # only others than rank 0 can be behind
            self.best = {n: p.clone() for n, p in self.average.items()}
        self.progress.best, self.progress.best_epoch = float(told[0]), int(told[1])

    def _save(self) -> None:
        if self.world.main:
            checkpoint.save(
                self.recipe.output,
                {
                    "model": {n: p.detach().cpu() for n, p in self.parameters.items()},
                    "average": {n: p.cpu() for n, p in self.average.items()},
                    "best": {n: p.cpu() for n, p in self.best.items()},
                    "optimizer": checkpoint.flatten_optimizer(self.optimizer),
                },
                vars(self.progress),
            )
        self.world.barrier()

    def _restore(self) -> None:
        found = checkpoint.load(self.recipe.output, self.recipe.preset)
        if found is None:
            return
        tensors, state = found
        known = {k: state[k] for k in vars(self.progress)}
        if set(tensors["model"]) != set(self.parameters):
            raise ValueError(f"{self.recipe.output}: the checkpoint learnt other parameters")
        self.progress = Progress(**known)
        device = self.world.device
        assign(self.parameters, tensors["model"])
        self.average = {n: tensors["average"][n].to(device) for n in self.parameters}
        self.best = {n: tensors["best"][n].to(device) for n in self.parameters}
        checkpoint.restore_optimizer(self.optimizer, tensors["optimizer"])


@contextmanager
def swapped(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block the parameters hold other values."""
    own = {n: p.detach().clone() for n, p in parameters.items()}
    assign(parameters, values)
    try:
        yield
    finally:
        assign(parameters, own)


@torch.no_grad()
def assign(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy values into parameters of the same names."""
    for n, p in parameters.items():
        p.copy_(values[n])


def schedule(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then cosine to zero: the share of the peak learning rate."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
