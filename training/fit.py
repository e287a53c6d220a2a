"""`fit`: from a recipe to trained weights."""

from __future__ import annotations

import csv
import json
import math
import random
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from training import checkpoint, features, teacher
from training.calibration import calibrate
from training.data import biq2021
from training.data.table import Sample, hold_out, hold_out_share, read_table
from training.data.unlabelled import list_images
from training.distillation import Distiller
from training.distributed import World, world
from training.loop import Loop
from training.memory import keep_freed_memory
from training.model import PRESETS, Giqa, create
from training.recipe import Recipe
from training.rounding import round_weights
from training.sources import CachedSource, ImageSource, Source
from training.trainee import Trainee, freeze

_NORM_ROWS = 1024
_SEEDS = {"validation": 0, "train": 1, "unlabelled": 2}


def splits(recipe: Recipe) -> tuple[list[Sample], list[Sample]]:
    """The recipe's training and validation samples.

    Raises:
        FileNotFoundError: the data set or one of its images is missing.
        ValueError: a label is not usable; it is named.
    """
    data = recipe.data
    if data.dataset == "biq2021":
        samples = biq2021.load(data.root, "train")
    else:
        samples = read_table(
            data.root, low=data.low, high=data.high, higher_is_better=data.higher_is_better
        )
    if data.validation_share:
        train, validation = hold_out_share(samples, data.validation_share, data.split_seed)
    else:
        train, validation = hold_out(
            samples, named_files(recipe), data.validation_more, data.split_seed
        )
    if data.images and data.images < len(train):
        kept = sorted(random.Random(data.split_seed).sample(range(len(train)), data.images))
        train = [train[i] for i in kept]
    return train, validation


def named_files(recipe: Recipe) -> set[str]:
    """Names of the files that the recipe puts into validation."""
    if recipe.data.validation_names is None:
        return set()
    with recipe.data.validation_names.open(newline="", encoding="utf-8") as f:
        return {row["source_name"] for row in csv.DictReader(f)}


def fit(recipe: Recipe) -> Giqa:
    """Run a recipe, or go on where an interrupted run stopped.

    Writes to the recipe's folder `log.jsonl` (one line an epoch), curves for TensorBoard,
    resumable checkpoints and, at the end, `final.safetensors`: the averaged weights of the epoch
    with the highest validation SROCC, rounded to what a bundle stores and calibrated.

    Under `torchrun` the processes share every batch.

    Args:
        recipe: what to do.

    Returns:
        The trained model in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: data or weights are missing.
        ValueError: labels, caches, checkpoints or options do not fit together.
        GiqaError: an image cannot be decoded (it is named), or the disk is full. Run the recipe
            again after mending it: nothing finished is lost.
    """
    if recipe.preset not in PRESETS:
        raise ValueError(f"no preset {recipe.preset!r}; there are {', '.join(sorted(PRESETS))}")
    keep_freed_memory()
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.optimisation.seed)
    model = create(recipe.preset)
    model.load_backbones(recipe.weights.global_branch, recipe.weights.local_branch)
    depth = freeze(model, recipe.freeze)
    round_weights(model)
    with world() as team:
        recipe.output.mkdir(parents=True, exist_ok=True)
        # Found early: a run that cannot go on from its checkpoint must not compute features first.
        checkpoint.load(recipe.output, recipe.preset)
        train, validation, distiller = _sources(recipe, model, depth, team)
        trainee = Trainee(model, depth if recipe.features is not None else None).to(team.device)
        calibrate_norms(trainee, train)
        if recipe.weights.start is not None:
            take_over(model, recipe.weights.start)
        if distiller is not None:
            distiller.to(team.device)
        loop = Loop(trainee, train, validation, recipe, team, distiller)
        path = loop.run()
        round_weights(model)
        if team.main:
            _finish(trainee, validation, recipe, path, team.device)
        team.barrier()
    return model.cpu().eval()


def _sources(
    recipe: Recipe, model: Giqa, depth: int, team: World
) -> tuple[Source, Source, Distiller | None]:
    """Training and validation images, and the teacher; rank 0 fills caches, others wait."""
    train, validation = splits(recipe)
    if recipe.features is None:
        seed = recipe.optimisation.seed
        return (
            ImageSource(train, model.preset, recipe.images, seed),
            ImageSource(validation, model.preset, recipe.images, seed),
            None,
        )
    distil = recipe.distillation
    lists = {"validation": validation, "train": train}
    if distil is not None and distil.unlabelled is not None:
        lists["unlabelled"] = [Sample(p, math.nan) for p in list_images(distil.unlabelled)]
    caches, answers = {}, []
    for turn in (True, False):
        if team.main is turn:
            for name, samples in lists.items():
                variants = 1 if name == "validation" else recipe.features.variants
                caches[name] = features.build(
                    recipe.features.folder / name,
                    model,
                    samples,
                    depth=depth,
                    variants=variants,
                    seed=_SEEDS[name],
                    amp=recipe.optimisation.amp,
                )
                if distil is None or name == "validation":
                    continue
                answers.append(
                    teacher.ask(
                        distil.folder / name,
                        distil.teacher,
                        samples,
                        variants=variants,
                        seed=_SEEDS[name],
                        tokens=distil.token_weight > 0,
                        threads=recipe.threads,
                    )
                )
        team.barrier()
    learnt = [(lists[name], caches[name]) for name in lists if name != "validation"]
    return (
        CachedSource(learnt),
        CachedSource([(validation, caches["validation"])]),
        None if distil is None else Distiller(distil, answers, model.preset.dim),
    )


@torch.no_grad()
def calibrate_norms(trainee: Trainee, train: Source) -> None:
    """Set the local branch's BatchNorm statistics from the training images, once for all."""
    model = trainee.model
    if not model.preset.local_branch.normalize:
        return
    device = model.local_branch.reduce.weight.device
    step = max(1, len(train.samples) // _NORM_ROWS)
    picked = range(0, len(train.samples), step)
    sums: list[Tensor] = []
    for sample in picked:
        inputs = train.whole(sample, sample + 1)
        stages = inputs[1]
        if trainee.depth is None:
            stages = model.local_branch.stages(stages[0].to(device))
        for i, x in enumerate(stages):
            axes = tuple(range(2, x.ndim))
            moments = torch.stack([x.mean(axes), x.square().mean(axes)]).double().sum(1)
            if len(sums) <= i:
                sums.append(moments)
            else:
                sums[i] += moments
    for norm, total in zip(model.local_branch.norm, sums, strict=True):
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, square = total / len(picked)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((square - mean.square()).clamp(min=1e-6))


def take_over(model: Giqa, path: Path) -> list[str]:
    """Start from another run's weights where names and shapes agree.

    Args:
        model: the model.
        path: final weights of another run.

    Returns:
        Names of the tensors that were taken over.

    Raises:
        FileNotFoundError: no such file.
        ValueError: nothing fits.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"start weights {path}: no such file")
    own, other = model.state_dict(), load_file(path)
    fitting = {n: v for n, v in other.items() if n in own and own[n].shape == v.shape}
    if not fitting:
        raise ValueError(f"{path}: no tensor fits {model.preset.name}")
    model.load_state_dict(fitting, strict=False)
    return sorted(fitting)


def _finish(
    trainee: Trainee, validation: Source, recipe: Recipe, path: Path, device: torch.device
) -> None:
    """Calibrate and write the final weights; the file appears whole."""
    from safetensors.torch import save_file

    if recipe.calibrate:
        found = calibrate(trainee, validation, device)
        if found is not None:
            line = json.dumps({"calibration": asdict(found)})
            print(line, file=sys.stderr, flush=True)
            (recipe.output / "calibration.json").write_text(
                json.dumps(asdict(found), indent=1) + "\n"
            )
    temporary = path.with_suffix(".tmp")
    state = trainee.model.state_dict()
    save_file(
        {k: v.cpu().contiguous() for k, v in state.items()}, temporary, {"preset": recipe.preset}
    )
    temporary.replace(path)


def final_weights(output: Path) -> Path:
    """Where a finished run's weights lie.

    Raises:
        FileNotFoundError: the run is not finished.
    """
    path = output / "final.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the run is not finished; run the recipe again")
    return path
