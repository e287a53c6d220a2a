"""Recipes: one TOML file describes one training run."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.data import datasets
from training.data.rounds import ROUNDS
from training.model import presets


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(_Strict):
    """Where the run starts: safetensors files; backbones come from timm's hub where left out.

    What was really used stands in the run's provenance.json.
    """

    global_branch: Path | None = Field(default=None, description="the ViT, timm's names")
    local_branch: Path | None = Field(default=None, description="the CNN, timm's names")
    global_origin: str = Field(
        default="", description="what you know of that file's origin and licence, for the record"
    )
    local_origin: str = Field(default="", description="likewise")
    start: Path | None = Field(
        default=None,
        description="final weights of another run, also of a larger preset: every tensor that "
        "fits by name and shape is taken over after the backbones were loaded",
    )


class Data(_Strict):
    """The labelled images: a public data set as distributed, or a table of paths and scores."""

    dataset: Literal[
        "biq2021", "csiq", "kadid10k", "koniq10k", "live", "live-wild", "spaq", "tid2013", "table"
    ]
    root: Path = Field(description="the data set's folder, or the CSV or Parquet table")
    low: float = Field(default=0.0, description="table: the worst label (best, if lower is better)")
    high: float = Field(default=100.0, description="table: the other end of the labels")
    higher_is_better: bool = True
    columns: dict[str, str] = Field(
        default={},
        description="table: what it calls the columns path, mos, subset, reference, split",
    )
    round: int | None = Field(
        default=None,
        ge=1,
        le=ROUNDS,
        description="a data set or table without a split of its own: which seeded 80/20 one, by "
        "content; a data set has 1 unless given, a table none",
    )
    validation_names: Path | None = Field(
        None, description="CSV whose column source_name lists files that must be in validation"
    )
    validation_more: int = Field(
        0, ge=0, description="training files that join them, drawn at random"
    )
    validation_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="instead: a share, drawn by subset and score; by content "
        "where pictures share one",
    )
    split_seed: int = 0
    images: int = Field(default=0, ge=0, description="use only so many training images; 0: all")


class Freeze(_Strict):
    """What does not learn; frozen BatchNorm keeps its statistics."""

    global_blocks: int | None = Field(
        default=None,
        ge=0,
        description="the patch embedding and so many ViT blocks; None: the whole ViT; "
        "0: only the embedding",
    )
    local: bool = Field(default=True, description="the whole CNN")


class Features(_Strict):
    """The cache of what the frozen part computes."""

    folder: Path
    variants: int = Field(ge=1, description="per image: the whole frame and augmented ones")
    mirror: bool = Field(default=True, description="mirror what is cached half of the time")
    global_blocks: int | None = Field(
        default=None,
        ge=0,
        description="ViT blocks that are in the cache; frozen ones that are not run in every "
        "step, which takes less disk; None: all frozen ones",
    )


class Images(_Strict):
    """Augmentation of views that are made anew in every epoch (no feature cache)."""

    views: Literal["frame", "crops"] = Field(
        default="frame",
        description="frame: a region squashed to the square, the whole frame in validation; "
        "crops: a square of native pixels at a random place (the paper), the fixed grid of "
        "profile precise in validation",
    )
    area: float = Field(default=0.6, gt=0, le=1, description="frame: smallest part of the picture")
    ratio: float = Field(
        default=16 / 9, ge=1, description="frame: largest change of the aspect ratio"
    )
    mirror: float = Field(default=0.5, ge=0, le=1, description="probability of mirroring")


class Rendered(_Strict):
    """Groups of a clean picture and damaged versions of it, as `training rendered` writes them."""

    table: Path = Field(description="its table.csv")
    groups: int = Field(default=6, gt=0, description="that join each step")
    anchors: int = Field(
        default=2, ge=0, description="pictures with a label and no group (black, white) a step"
    )
    weight: float = Field(default=0.5, gt=0, description="of the order within groups")
    anchor_weight: float = Field(default=0.1, gt=0)
    clean: float = Field(
        default=78.0, gt=0, le=100, description="score of a clean picture that has none of its own"
    )


class Linear(_Strict):
    """The linear term, for presets that have one; solved for at the end (`training.linear`)."""

    share: float = Field(gt=0, lt=1, description="of each cell's logit")
    strength: float = Field(
        default=3.4, gt=0, description="of the ridge, an image, on features of variance 1"
    )
    rendered: float = Field(default=1.0, ge=0, description="weight of differences within groups")
    equal: float = Field(default=5.0, ge=0, description="of equal pictures, beside that")
    anchors: float = Field(default=5.0, ge=0, description="of black, white, noise")


class Optimisation(_Strict):
    """How it learns."""

    epochs: int = Field(gt=0)
    batch: int = Field(gt=1, description="images a step, over all processes and micro-batches")
    accumulate: int = Field(
        default=1, ge=1, description="micro-batches a step, each with a loss of its own"
    )
    optimizer: Literal["adamw", "adam"] = "adamw"
    lr: float = Field(gt=0)
    backbone_lr: float | None = Field(default=None, gt=0, description="of unfrozen backbone parts")
    weight_decay: float = Field(ge=0)
    warmup_steps: int = Field(ge=0)
    ema: float = Field(ge=0, lt=1)
    loss: Literal["huber", "l1"] = "huber"
    huber_beta: float = Field(default=0.1, gt=0, description="in units of the whole score range")
    plcc_weight: float = Field(default=0.0, ge=0)
    rank_weight: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    seed: int = 0
    amp: bool = Field(default=True, description="bfloat16 where the hardware computes with it")
    compile: bool = Field(default=False, description="torch.compile the step; needs a C++ compiler")
    save_steps: int = Field(default=0, ge=0, description="a checkpoint every so many steps, too")


class Recipe(_Strict):
    """One training run.

    Attributes:
        preset: name of the preset, or a TOML file that has one.
        output: folder of checkpoints and log.
        threads: CPU threads.
        calibrate: fit the score's calibration on the validation split at the end.
    """

    preset: str
    output: Path
    threads: int = Field(gt=0)
    calibrate: bool = True
    weights: Weights = Weights()
    data: Data
    freeze: Freeze = Freeze()
    features: Features | None = None
    images: Images = Images()
    rendered: Rendered | None = None
    linear: Linear | None = None
    optimisation: Optimisation

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.features is not None and not self.freeze.local:
            raise ValueError("features of a CNN that learns cannot be cached: drop [features]")
        if self.rendered is not None and self.features is None:
            raise ValueError("rendered needs [features]: it learns from cached ones")
        if self.linear is not None and self.features is None:
            raise ValueError("linear needs [features]: it is solved for from cached ones")
        _check_data(self.data)
        return self


def _check_data(data: Data) -> None:
    """What a table itself has (a column split) is known when it is read, see `fit.splits`."""
    listed = data.validation_names is not None or data.validation_more > 0
    if listed and data.validation_share > 0:
        raise ValueError(
            "[data] needs either validation_names and validation_more, or validation_share"
        )
    if data.dataset == "table":
        return
    if data.columns:
        raise ValueError("[data] columns are a table's")
    about = datasets.info(data.dataset)
    if data.round is not None and about.splits:
        raise ValueError("[data] round is for data sets without an official split")
    if "validation" in about.splits:
        if listed or data.validation_share > 0:
            raise ValueError(
                f"[data] {about.title} has an official validation split: drop validation_*"
            )
    elif not listed and not data.validation_share:
        raise ValueError("[data] needs validation_names and validation_more, or validation_share")
    elif listed and about.kind == "synthetic":
        raise ValueError(
            f"[data] {about.title} needs validation_share: pictures of one content stay together"
        )


def read(path: Path) -> Recipe:
    """Read a recipe; relative paths in it are relative to its folder.

    Args:
        path: a TOML file.

    Returns:
        The recipe, its paths absolute.

    Raises:
        FileNotFoundError: no such file.
        pydantic.ValidationError: a field is missing, unknown or out of range.
    """
    with path.open("rb") as f:
        found = _resolved(Recipe.model_validate(tomllib.load(f)), path.resolve().parent)
    if found.preset.endswith(".toml"):
        preset = presets.read(path.resolve().parent / found.preset)
        found = found.model_copy(update={"preset": preset.name})
    return found


_Model = TypeVar("_Model", bound=BaseModel)


def _resolved(model: _Model, folder: Path) -> _Model:
    found = {name: getattr(model, name) for name in type(model).model_fields}
    paths = {n: Path(os.path.normpath(folder / v)) for n, v in found.items() if isinstance(v, Path)}
    parts = {n: _resolved(v, folder) for n, v in found.items() if isinstance(v, BaseModel)}
    return model.model_copy(update={**paths, **parts})
