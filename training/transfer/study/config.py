"""A study's file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from giqa.errors import UsageError
from training.data.rounds import ROUNDS

Arm = Literal["none", "saqt", "placebo", "mean", "saqt-joint", "placebo-joint"]
"""`none`: without transferred labels; `placebo`: labels of a reference drawn at random; `mean`: of
all references, by type and level; `-joint`: beside BIQ2021's in every step instead of before."""
ARMS: tuple[Arm, ...] = get_args(Arm)


class Study(BaseModel):
    """One study; relative paths are relative to the working directory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Path = Field(description="of BIQ2021, with backbones, feature cache and context_*")
    out: Path = Field(description="folder of everything that is made; run again to go on")
    kodak: Path = Field(description="folder of Kodak's photographs, 01.png .. 24.png")
    photos: Path = Field(description="folder of photographs that take labels")
    clean: Path = Field(description="folder of photographs for the ranking test")
    photographs: int = Field(gt=1, description="so many of `photos`")
    ranked: int = Field(gt=1, description="so many of `clean`")
    types: tuple[str, ...] = Field(min_length=1, description="ours, that TID2013 has, too")
    first_steps: int = Field(gt=0, description="of stage 1: on transferred labels, or BIQ2021's")
    second_steps: int = Field(gt=0, description="of stage 2: on BIQ2021")
    joint_images: int = Field(default=16, gt=1, description="with transferred labels, a joint step")
    joint_weight: float = Field(default=0.5, gt=0, description="of their loss")
    arms: tuple[Arm, ...] = ARMS
    seeds: int = Field(default=3, gt=0, le=ROUNDS, description="seed s holds round s + 1 out")
    resamples: int = Field(default=1000, gt=0, description="behind each interval")
    workers: int = Field(default=2, gt=0, description="processes that render")

    @property
    def rounds(self) -> range:
        """The rounds of TID2013 whose test references are held out, one a seed."""
        return range(1, self.seeds + 1)


def read(path: Path) -> Study:
    """Read a study's file.

    Raises:
        UsageError: it is not TOML, or a field is missing, unknown or out of range.
    """
    try:
        with path.open("rb") as file:
            return Study.model_validate(tomllib.load(file))
    except ValueError as e:  # pydantic's and tomllib's errors
        raise UsageError(
            str(e), item=str(path), remedy="see training/transfer/study/saqt.toml"
        ) from e
