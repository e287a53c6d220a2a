"""Which of a data set's distortions are rendered, and with which values."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from giqa.errors import NotFoundError, UsageError
from training.data import kadid10k
from training.distortions import TYPES, by_name
from training.transfer import calibrate

LEVELS = 5

Size = tuple[int, int]
"""Width and height in pixels."""

_SHIPPED = {"tid2013": Path(__file__).with_name("tid2013.toml")}

_Five = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class Target:
    """How one level of a data set's distortion is rendered: by value, or by PSNR.

    Attributes:
        source: the data set's name of the distortion.
        type: name of a type of `training.distortions`.
        level: 1..5.
        value: the type's parameter; None if it is searched for.
        psnr: in decibels; None if the value is given.
    """

    source: str
    type: str
    level: int
    value: float | None = None
    psnr: float | None = None


@dataclass(frozen=True)
class Mapping:
    """What is rendered for a data set.

    Attributes:
        dataset: its name.
        size: the size of its pictures, at which its levels mean what they mean.
        targets: in the order of rendering; no two of one type and level.
    """

    dataset: str
    size: Size
    targets: tuple[Target, ...]

    def only(self, types: Collection[str]) -> Mapping:
        """The same with some types only; all if `types` is empty.

        Raises:
            UsageError: one of them is not there.
        """
        there = {target.type for target in self.targets}
        if unknown := sorted(set(types) - there):
            raise UsageError(
                f"{self.dataset} has no {', '.join(unknown)}", remedy=f"it has {sorted(there)}"
            )
        kept = tuple(t for t in self.targets if not types or t.type in types)
        return Mapping(self.dataset, self.size, kept)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Type(_Strict):
    type: str
    value: Literal["psnr"] | _Five


class _File(_Strict):
    dataset: str
    size: tuple[int, int] = (512, 384)
    psnr: _Five | None = None
    types: dict[str, _Type] = Field(min_length=1)


def of_dataset(name: str) -> Mapping:
    """The mapping that comes with this package.

    Raises:
        UsageError: there is none for that data set.
    """
    if name == "kadid10k":
        pairs = zip(kadid10k.TYPES, TYPES, strict=True)
        targets = (
            Target(source, kind.name, level, float(value))
            for source, kind in pairs
            for level, value in enumerate(kind.levels, 1)
        )
        return Mapping(name, (512, 384), tuple(targets))
    if name not in _SHIPPED:
        known = ", ".join(["kadid10k", *_SHIPPED])
        raise UsageError(
            f"no mapping of {name}; there are {known}", remedy="write one, see tid2013.toml"
        )
    return read(_SHIPPED[name])


def read(path: Path) -> Mapping:
    """Read a mapping; tid2013.toml shows the form.

    Raises:
        NotFoundError: no such file.
        UsageError: it is not such a file, names an unknown type, gives a value out of range or
            asks for a PSNR where none can be searched for, or two distortions have one type.
    """
    try:
        with path.open("rb") as file:
            found = _File.model_validate(tomllib.load(file))
    except FileNotFoundError as e:
        raise NotFoundError("no such mapping", item=str(path)) from e
    except ValueError as e:  # pydantic's and tomllib's errors
        raise UsageError(str(e), item=str(path), remedy="see tid2013.toml for the form") from e
    targets = [
        target for source, how in found.types.items() for target in _targets(found, source, how)
    ]
    keys = [(target.type, target.level) for target in targets]
    if len(set(keys)) < len(keys):
        raise UsageError(
            "two distortions have one type", item=str(path), remedy="give each a type of its own"
        )
    return Mapping(found.dataset, found.size, tuple(targets))


def _targets(file: _File, source: str, how: _Type) -> list[Target]:
    kind = by_name(how.type)
    levels = range(1, LEVELS + 1)
    if how.value != "psnr":
        for value in how.value:
            kind.check(value)
        return [
            Target(source, kind.name, n, value=v) for n, v in zip(levels, how.value, strict=True)
        ]
    calibrate.check(kind)
    if file.psnr is None:
        raise UsageError('value = "psnr" needs the levels', item=source, remedy="add psnr = [...]")
    return [Target(source, kind.name, n, psnr=v) for n, v in zip(levels, file.psnr, strict=True)]
