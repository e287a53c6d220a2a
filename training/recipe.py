"""Recipes: one TOML file describes one training run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(_Strict):
    """Backbone weights: safetensors files with timm's names; timm's hub where left out."""

    global_branch: Path | None = None
    local_branch: Path | None = None


class Data(_Strict):
    """The labelled images."""

    dataset: Literal["biq2021"]
    root: Path
    validation_names: Path | None = Field(
        None, description="CSV whose column source_name lists files that must be in validation"
    )
    validation_more: int = Field(ge=0, description="training files that join them, drawn at random")
    split_seed: int = 0


class Features(_Strict):
    """The cache of frozen features."""

    folder: Path
    variants: int = Field(ge=1)


class Optimisation(_Strict):
    """How it learns."""

    epochs: int = Field(gt=0)
    batch: int = Field(gt=1)
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup_steps: int = Field(ge=0)
    ema: float = Field(ge=0, lt=1)
    huber_beta: float = Field(gt=0, description="in units of the whole score range")
    plcc_weight: float = Field(ge=0)
    seed: int = 0
    amp: bool = True
    compile: bool = Field(False, description="torch.compile the step; needs a C++ compiler")


class Recipe(_Strict):
    """One training run.

    Attributes:
        preset: name of the preset.
        output: folder of checkpoints and log.
        threads: CPU threads.
    """

    preset: str
    output: Path
    threads: int = Field(gt=0)
    weights: Weights
    data: Data
    features: Features
    optimisation: Optimisation


def read(path: Path) -> Recipe:
    """Read a recipe; relative paths in it are relative to the working directory.

    Args:
        path: a TOML file.

    Returns:
        The recipe.

    Raises:
        FileNotFoundError: no such file.
        pydantic.ValidationError: a field is missing, unknown or out of range.
    """
    with path.open("rb") as f:
        return Recipe.model_validate(tomllib.load(f))
