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
from safetensors import safe_open
from safetensors.torch import load_file

from giqa import files
from giqa.errors import UsageError
from training import checkpoint, features, linear, provenance
from training.calibration import calibrate
from training.data import datasets
from training.data.rounds import by_content, round_of
from training.data.table import Sample, hold_out, hold_out_share, read_table
from training.distributed import World, world
from training.loop import Loop, identity
from training.memory import keep_freed_memory
from training.model import PRESETS, Giqa, backbones, create
from training.norms import calibrate_norms
from training.provenance import Origins
from training.ranking import Ranker, read_rendered
from training.recipe import Data, Recipe
from training.rounding import round_weights
from training.sources import CachedSource, ImageSource, Source
from training.trainee import Trainee, freeze

SEEDS = {"validation": 0, "train": 1, "rendered": 3}
ONCE = ("validation", "rendered")  # not augmented

_FEWEST, _CALIBRATED, _ENOUGH = 5, 8, 100
"""Validation images: without which no run, no calibration, and no quiet run."""


def splits(recipe: Recipe) -> tuple[list[Sample], list[Sample]]:
    """The recipe's training and validation samples.

    Raises:
        FileNotFoundError: the data set or one of its images is missing.
        ValueError: a label is not usable; it is named.
    """
    return splits_of(recipe.data)


def splits_of(data: Data) -> tuple[list[Sample], list[Sample]]:
    """As `splits`, of a recipe's data alone."""
    parts = {name: _part(data, name) for name in ("train", "validation")}
    train, validation = parts["train"], parts["validation"]
    if validation:
        if data.validation_share or data.validation_more or data.validation_names:
            raise ValueError(f"{data.root} has a validation split: drop validation_*")
    elif data.validation_share and any(sample.reference for sample in train):
        train, validation = by_content(train, data.validation_share, data.split_seed)
    elif data.validation_share:
        train, validation = hold_out_share(train, data.validation_share, data.split_seed)
    elif data.validation_names is None and not data.validation_more:
        raise ValueError(f"{data.root} has no validation split: give validation_share")
    else:
        train, validation = hold_out(
            train, named_files(data), data.validation_more, data.split_seed
        )
    if data.images and data.images < len(train):
        kept = sorted(random.Random(data.split_seed).sample(range(len(train)), data.images))
        train = [train[i] for i in kept]
    return train, validation


def tested(recipe: Recipe) -> list[Sample]:
    """The recipe's test samples: the official split, its round's, or what its table calls so.

    Raises:
        FileNotFoundError: the data set or one of its images is missing.
        ValueError: a label is not usable, or there is no test split.
    """
    found = _part(recipe.data, "test")
    if not found:
        raise UsageError(
            f"{recipe.data.root} has no test split", remedy="give a column split, or round = 1"
        )
    return found


def _part(data: Data, split: str) -> list[Sample]:
    """A part of the labelled images; `train` may be without the others' only."""
    if data.dataset != "table":
        about = datasets.info(data.dataset)
        if split not in (about.splits or ("train", "test")):
            return []
        return datasets.load(data.dataset, data.root, split, round=data.round)
    samples = read_table(
        data.root,
        low=data.low,
        high=data.high,
        higher_is_better=data.higher_is_better,
        columns=data.columns,
    )
    if any(sample.split for sample in samples):
        if data.round is not None:
            raise ValueError(f"{data.root} has a column split: drop round")
        return [sample for sample in samples if sample.split == split]
    if data.round is None:
        return samples if split == "train" else []
    train, test = round_of(samples, data.round)
    return {"train": train, "test": test}.get(split, [])


def named_files(data: Data) -> set[str]:
    """Names of the files that a recipe puts into validation."""
    if data.validation_names is None:
        return set()
    with data.validation_names.open(newline="", encoding="utf-8") as f:
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
    lists = check(recipe)
    keep_freed_memory()
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.optimisation.seed)
    with world() as team:
        _check_processes(recipe, team)
        model = create(recipe.preset)
        depth = _cached_blocks(recipe, freeze(model, recipe.freeze))
        with files.storage(recipe.output):
            recipe.output.mkdir(parents=True, exist_ok=True)
        # Found early: a run that cannot go on from its checkpoint must not compute features first.
        found = checkpoint.load(recipe.output, recipe.preset)
        origins = _load(recipe, model, team)
        train, validation, ranker = _sources(recipe, model, lists, depth, team)
        run = identity(recipe, train, origins)
        trainee = Trainee(model, depth if recipe.features is not None else None).to(team.device)
        start = recipe.weights.start
        if found is None and (start is None or preset_of(start) != recipe.preset):
            calibrate_norms(trainee, train, team.device)
            round_weights(model)  # what is measured is what the bundle will hold
        loop = Loop(trainee, train, validation, recipe, team, run, found, ranker)
        path = loop.run()
        if recipe.linear is not None:
            assert isinstance(train, CachedSource)
            linear.solve(trainee, train, ranker, recipe.linear)
        round_weights(model)
        if team.main:
            _finish(trainee, validation, recipe, path, team.device)
        team.barrier()
        model.load_state_dict(load_file(path))
    return model.cpu().eval()


def _load(recipe: Recipe, model: Giqa, team: World) -> Origins:
    """Load what the run starts from, and record what that was."""
    weights = recipe.weights
    origins = model.load_backbones(
        weights.global_branch, weights.local_branch, (weights.global_origin, weights.local_origin)
    )
    if weights.start is not None:
        take_over(model, weights.start)
        origins["start"] = provenance.of_file(recipe.preset, weights.start, "")
    round_weights(model)
    if team.main:
        provenance.write(recipe.output, origins)
    return origins


def check(recipe: Recipe) -> dict[str, list[Sample]]:
    """Find what does not fit together before anything is loaded or computed.

    Args:
        recipe: what is to be done.

    Returns:
        Samples of `train` and `validation`.

    Raises:
        FileNotFoundError: data or weights are missing.
        ValueError: labels or options do not fit together.
    """
    if recipe.preset not in PRESETS:
        raise ValueError(f"no preset {recipe.preset!r}; there are {', '.join(sorted(PRESETS))}")
    if recipe.linear is not None and not PRESETS[recipe.preset].linear_term:
        raise ValueError(f"[linear]: {recipe.preset} has no linear term")
    options = recipe.optimisation
    for path in (recipe.weights.global_branch, recipe.weights.local_branch):
        backbones.check_file(path)
    if recipe.weights.start is not None and not recipe.weights.start.is_file():
        raise FileNotFoundError(f"start weights {recipe.weights.start}: no such file")
    train, validation = splits(recipe)
    images = len(train)
    if images < options.batch:
        raise ValueError(f"{images} training images are less than one batch")
    steps = images // options.batch * options.epochs
    if options.warmup_steps >= steps:
        raise ValueError(
            f"warmup_steps is {options.warmup_steps}, but {options.epochs} epochs of {images} "
            f"images in batches of {options.batch} are {steps} steps: give at most {steps // 5}"
        )
    _check_validation(len(validation), recipe.calibrate)
    lists = {"train": train, "validation": validation}
    if recipe.rendered is not None:
        lists["rendered"] = read_rendered(recipe.rendered.table)
    return lists


def _check_validation(images: int, calibrated: bool) -> None:
    """The epoch is chosen on validation, and the calibration fitted there."""
    if images < _FEWEST:
        raise ValueError(f"{images} validation images order nothing: give {_FEWEST} or more")
    if calibrated and images < _CALIBRATED:
        raise ValueError(
            f"{images} validation images are too few to calibrate on: give {_CALIBRATED} or more, "
            "or calibrate = false"
        )
    if images < _ENOUGH:
        # Fisher's interval, with Bonett and Wright's variance of Spearman's.
        half = 1.96 * math.sqrt((1 + 0.9**2 / 2) / (images - 3))
        low, high = (math.tanh(math.atanh(0.9) + sign * half) for sign in (-1, 1))
        print(
            f"giqa: {images} validation images are few: an SROCC of .9 on them may be "
            f"{low:.2f} .. {high:.2f}, and the epoch is chosen by it",
            file=sys.stderr,
        )


def _check_processes(recipe: Recipe, team: World) -> None:
    options = recipe.optimisation
    parts = options.accumulate * team.size
    if options.batch % parts:
        raise ValueError(
            f"a batch of {options.batch} does not divide into {options.accumulate} "
            f"micro-batches for {team.size} processes"
        )


def _cached_blocks(recipe: Recipe, frozen: int) -> int:
    """How many ViT blocks the cache has behind it, where there is one."""
    blocks = None if recipe.features is None else recipe.features.global_blocks
    if blocks is not None and blocks > frozen:
        raise ValueError(f"features.global_blocks is {blocks}, only {frozen} are frozen")
    return frozen if blocks is None else blocks


def _sources(
    recipe: Recipe, model: Giqa, lists: dict[str, list[Sample]], depth: int, team: World
) -> tuple[Source, Source, Ranker | None]:
    """Training and validation images, and groups of damaged ones; rank 0 fills caches."""
    train, validation = lists["train"], lists["validation"]
    options = recipe.optimisation
    if recipe.features is None:
        return (
            ImageSource(train, model.preset, recipe.images, options.seed),
            ImageSource(validation, model.preset, recipe.images, options.seed),
            None,
        )
    folder, found = recipe.features.folder, {}
    for turn in (True, False):  # others read what rank 0 wrote
        if team.main is turn:
            for name, samples in lists.items():
                cache = features.build(
                    folder / name,
                    model,
                    samples,
                    depth=depth,
                    variants=1 if name in ONCE else recipe.features.variants,
                    seed=SEEDS[name],
                    amp=options.amp,
                )
                mirror = recipe.features.mirror and name != "validation"
                found[name] = CachedSource(samples, cache, mirror=mirror, seed=options.seed)
        team.barrier()
    ranker = None
    if recipe.rendered is not None:
        shares = team.size * options.accumulate
        ranker = Ranker(found["rendered"], recipe.rendered, options.seed, shares)
    return found["train"], found["validation"], ranker


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
    if not path.is_file():
        raise FileNotFoundError(f"start weights {path}: no such file")
    own, other = model.state_dict(), load_file(path)
    fitting = {n: v for n, v in other.items() if n in own and own[n].shape == v.shape}
    if not fitting:
        raise ValueError(f"{path}: no tensor fits {model.preset.name}")
    model.load_state_dict(fitting, strict=False)
    return sorted(fitting)


def preset_of(path: Path) -> str:
    """The preset that a run's final weights are of; empty if the file does not say."""
    with safe_open(path, "pt") as f:
        return str((f.metadata() or {}).get("preset", ""))


def _finish(
    trainee: Trainee, validation: Source, recipe: Recipe, path: Path, device: torch.device
) -> None:
    """Calibrate and write the final weights; the file appears whole."""
    if recipe.calibrate:
        found = calibrate(trainee, validation, device)
        if found is not None:
            text = json.dumps(asdict(found))
            print(json.dumps({"calibration": asdict(found)}), file=sys.stderr, flush=True)
            files.write(recipe.output / "calibration.json", (text + "\n").encode())
    checkpoint.write_tensors(path, trainee.model.state_dict(), {"preset": recipe.preset})


def final_weights(output: Path) -> Path:
    """Where a finished run's weights lie.

    Raises:
        FileNotFoundError: the run is not finished.
    """
    path = output / "final.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the run is not finished; run the recipe again")
    return path
