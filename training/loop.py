"""The training loop: steps, averaged weights, checkpoints, validation."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from giqa import files
from training import checkpoint, losses, metrics
from training.curves import Curves
from training.distributed import World
from training.model import Giqa
from training.progress import Progress as Bar
from training.provenance import Origins
from training.ranking import Ranker
from training.recipe import Recipe
from training.sources import Rows, Source
from training.steps import Average, assign, joined, on, predict, schedule, swapped, use_amp
from training.trainee import Trainee, groups

_STREAM = 17  # of the random numbers, apart from those of other draws


@dataclass
class Progress:
    """What a checkpoint holds beside tensors.

    Attributes:
        preset: name of the preset.
        step: steps done.
        best: highest validation SROCC so far.
        best_epoch: the epoch that reached it, from 1; -1: none yet.
        recipe: digest of what the run is made of, see `identity`.
        losses: sum of the losses of this epoch's steps so far.
    """

    preset: str
    step: int = 0
    best: float = -2.0
    best_epoch: int = -1
    recipe: str = ""
    losses: float = 0.0


class Loop:
    """Trains until the recipe's last epoch, from its newest checkpoint.

    Args:
        trainee: the model, frozen as the recipe says, on its device.
        train: training images.
        validation: validation images.
        recipe: what to do.
        world: the processes that take part.
        run: what the run is made of, see `identity`.
        found: the checkpoint to go on from, where there is one.
        ranker: groups of damaged pictures that join each step, where there are some.

    Raises:
        ValueError: the checkpoint is of another recipe.
    """

    def __init__(
        self,
        trainee: Trainee,
        train: Source,
        validation: Source,
        recipe: Recipe,
        world: World,
        run: str,
        found: checkpoint.Found | None = None,
        ranker: Ranker | None = None,
    ) -> None:
        options = recipe.optimisation
        self.trainee, self.train, self.validation = trainee, train, validation
        self.recipe, self.options, self.world = recipe, options, world
        self.ranker = ranker
        self.amp = use_amp(options, world.device)
        self.per_epoch = len(train.samples) // options.batch
        self.total = self.per_epoch * options.epochs
        model = trainee.model
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = kind(
            groups(model, options),
            lr=options.lr,
            weight_decay=options.weight_decay,
            betas=(0.9, 0.99),
        )
        self.progress = Progress(recipe.preset, recipe=run)
        if found is not None:
            self._restore_model(found)
        self.average = Average(self.parameters, options.ema)
        self.best = {n: p.clone() for n, p in self.average.values.items()}
        if found is not None:
            self._restore_rest(found)
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
        folder = output / "tensorboard" if self.world.main else None
        with closing(Curves(folder, progress.step)) as curves:
            while progress.step < self.total:
                self._epoch(progress.step // self.per_epoch, curves)
        assign(self.parameters, self.best)
        self.trainee.eval()
        return output / "final.safetensors"

    def _epoch(self, epoch: int, curves: Curves) -> None:
        options, progress, started = self.options, self.progress, time.monotonic()
        order = self.train.plan(np.random.default_rng([options.seed, epoch]))
        self.trainee.train()
        done = progress.step - epoch * self.per_epoch
        with Bar(
            f"epoch {epoch + 1} of {options.epochs}", self.per_epoch, done,
            unit="steps", quiet=not self.world.main,
        ) as bar:  # fmt: skip
            for i in range(done, self.per_epoch):
                value = self._step(order[i * options.batch : (i + 1) * options.batch], epoch)
                progress.losses += value
                curves.scalar("train/loss", value, progress.step)
                curves.scalar("train/lr", self.optimizer.param_groups[0]["lr"], progress.step)
                bar.update(note=f"loss {progress.losses / (i + 1):.4f}")
                last = i + 1 == self.per_epoch
                if options.save_steps and (i + 1) % options.save_steps == 0 and not last:
                    self._save()
        self._end_epoch(epoch, time.monotonic() - started, curves)

    def _end_epoch(self, epoch: int, seconds: float, curves: Curves) -> None:
        if self.world.main:
            self._validate(epoch, seconds, curves)
        self.progress.losses = 0.0
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
            local = self._own(piece)
            sync = (
                nullcontext()
                if last or not isinstance(self.forward, DistributedDataParallel)
                else self.forward.no_sync()
            )
            with sync:
                number = progress.step * len(pieces) + i
                loss = self._loss(local, piece, epoch, number) / len(pieces)
                loss.backward()
            value += world.mean(loss.item())
        norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), options.clip))
        if not math.isfinite(value) or not math.isfinite(norm):
            raise ValueError(
                f"the loss is {value}, its gradient {norm} at step {progress.step + 1}: "
                "lower lr, or amp = false"
            )
        self.optimizer.step()
        progress.step += 1
        self.average.update(progress.step)
        return value

    def _loss(self, local: Rows, whole: Rows, epoch: int, number: int) -> Tensor:
        """The loss of this process's rows; terms over a batch see the rows of all processes."""
        device, ranker = self.world.device, self.ranker
        inputs = self.train.batch(local, epoch)
        if ranker is not None:
            drawn = ranker.draw(number, self.options.accumulate)
            inputs = joined(inputs, ranker.batch(self._own(drawn), epoch))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.amp):
            both: Tensor = self.forward(*on(device, inputs))
        # One forward for both: DDP wants one a backward.
        score = self.world.gather(both[: len(local)])
        loss = losses.on_scores(score, self.train.mos(whole).to(device), self.options)
        if ranker is not None:
            loss = loss + ranker.loss(self.world.gather(both[len(local) :]), drawn)
        return loss

    def _own(self, rows: Rows) -> Rows:
        """This process's share of rows that all processes know."""
        return np.split(rows, self.world.size)[self.world.rank]

    def _validate(self, epoch: int, seconds: float, curves: Curves) -> None:
        progress, mos = self.progress, self.validation.all_mos
        with swapped(self.parameters, self.average.values):
            predicted = predict(self.trainee, self.validation, self.amp, self.world.device)
        pooled, subsets = metrics.summary(
            predicted, mos, [s.subset for s in self.validation.samples], resamples=1
        )
        reached = pooled.srocc if math.isfinite(pooled.srocc) else -1.0  # NaN: it says one thing
        if reached >= progress.best:  # of few images many epochs order the same: the last of them
            progress.best, progress.best_epoch = reached, epoch + 1
            self.best = {n: p.clone() for n, p in self.average.values.items()}
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
            curves.scalar(f"validation/{key}", getattr(pooled, key), progress.step)
        _append(self.recipe.output / "log.jsonl", line)
        print(json.dumps(line), file=sys.stderr, flush=True)

    def _share_best(self) -> None:
        """Give rank 0's choice to all processes, so that they end with the same weights."""
        told = [self.progress.best, self.progress.best_epoch]
        torch.distributed.broadcast_object_list(told, src=0)
        if told[1] != self.progress.best_epoch:  # only others than rank 0 can be behind
            self.best = {n: p.clone() for n, p in self.average.values.items()}
        self.progress.best, self.progress.best_epoch = float(told[0]), int(told[1])

    def _save(self) -> None:
        if self.world.main:
            checkpoint.save(
                self.recipe.output,
                {
                    "model": self.parameters,
                    "norms": norm_buffers(self.trainee.model),
                    "average": self.average.values,
                    "best": self.best,
                    "optimizer": checkpoint.flatten_optimizer(self.optimizer),
                },
                vars(self.progress),
            )
        self.world.barrier()

    def _restore_model(self, found: checkpoint.Found) -> None:
        tensors, state = found
        if state["recipe"] != self.progress.recipe or set(tensors["model"]) != set(self.parameters):
            raise ValueError(
                f"{self.recipe.output} holds a checkpoint of another recipe (data or options "
                "differ): choose another output folder"
            )
        self.progress = Progress(**state)
        assign(self.parameters, tensors["model"])
        assign(norm_buffers(self.trainee.model), tensors["norms"])

    def _restore_rest(self, found: checkpoint.Found) -> None:
        tensors, _ = found
        assign(self.average.values, tensors["average"])
        assign(self.best, tensors["best"])
        checkpoint.restore_optimizer(self.optimizer, tensors["optimizer"])


def identity(recipe: Recipe, train: Source, origins: Origins) -> str:
    """Digest of what decides a run's steps; how often it saves, and where files lie, does not."""
    what = recipe.model_dump(
        mode="json",
        exclude={
            "output": True,
            "threads": True,
            "calibrate": True,
            "weights": True,
            "data": {"root", "validation_names"},
            "features": {"folder"},
            "optimisation": {"save_steps", "compile"},
        },
    )
    what["samples"] = [[s.path.name, s.mos] for s in train.samples]
    what["backbones"] = {name: origin.sha256 for name, origin in origins.items()}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def norm_buffers(model: Giqa) -> dict[str, Tensor]:
    """Measured statistics of the model's own norms, and the head's calibration, by name."""
    return {
        n: b
        for n, b in model.named_buffers()
        if ".backbone." not in n and b.is_floating_point() and ".normalize." not in n
    }


def _append(log: Path, line: dict[str, Any]) -> None:
    """Add an epoch's line; one that was written just before a kill is replaced."""
    lines = log.read_text().splitlines() if log.exists() else []
    kept = [x for x in lines if json.loads(x)["epoch"] < line["epoch"]]
    files.write(log, "".join(x + "\n" for x in [*kept, json.dumps(line)]).encode())
