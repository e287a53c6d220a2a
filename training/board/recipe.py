"""The board's recipe: which sets there are, and where their pictures and tables lie."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from giqa.errors import NotFoundError, UsageError
from training.recipe import Data, Weights

_PATHS = frozenset({"cache", "pictures", "root", "table", "validation_names", "start"})
_WEIGHTS = frozenset({"global_branch", "local_branch"})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sources(_Strict):
    """Photographs: the files of a folder that match patterns, in the patterns' order."""

    root: Path
    files: tuple[str, ...] = Field(min_length=1, description="names or patterns below root")
    count: int = Field(gt=0, description="how many there must be: half a set is not measured")
    every: int = Field(default=1, ge=1, description="take every so many-th of them")

    def find(self, name: str) -> list[Path]:
        """The files.

        Args:
            name: of the set, for errors.

        Raises:
            NotFoundError: a pattern matches nothing, or there are not `count` files.
        """
        found: list[Path] = []
        for pattern in self.files:
            # A name is a name, even where it looks like a pattern.
            exact = self.root / pattern
            some = [exact] if exact.is_file() else sorted(self.root.glob(pattern))
            if not some:
                raise missing(name, f"no file {pattern!r} in {self.root}")
            found += some
        if len(found) != self.count:
            raise missing(name, f"{len(found)} files in {self.root}, not {self.count}")
        return found[:: self.every]


class Opinions(_Strict):
    """A set with opinion scores."""

    table: Path
    root: Path | None = Field(
        default=None, description="folder that its paths are relative to; the table's unless given"
    )
    image: str = Field(default="path", description="column of the pictures' names")
    label: str = Field(default="mos", description="column of the scores")
    low: float = Field(default=0.0, description="the worst label (best, if lower is better)")
    high: float = Field(default=100.0, description="the other end of the labels")
    higher_is_better: bool = True
    reference: str | None = Field(
        default=None,
        description="pattern whose first group, found in a picture's name, says what it was made "
        "from: adds the correlation within pictures of one reference",
    )
    count: int | None = Field(default=None, gt=1, description="rows that there must be")

    @field_validator("reference")
    @classmethod
    def _has_a_group(cls, text: str | None) -> str | None:
        if text is not None and not re.compile(text).groups:
            raise ValueError("the pattern needs a group: what it matches is the reference")
        return text


class Native(Sources):
    """Photographs of megapixels, damaged at native scale by `training.board.native`."""

    pixels: int = Field(default=2_600_000, gt=0, description="of the middle that is cut out")
    whole: int = Field(default=20, ge=1, description="every so many-th photograph stays whole")


class Types(Sources):
    """Photographs damaged by the types that people rank by level, at levels 1, 3 and 5."""

    side: int | None = Field(
        default=None, gt=0, description="larger ones are brought down to this longest side first"
    )


class Steps(_Strict):
    """KonJND-1k's pictures: references and their JPEG and BPG steps 1 (worst) .. 100 (best)."""

    root: Path
    every: int = Field(default=9, ge=1, description="take every so many-th step, from the first on")
    count: int = Field(gt=0, description="pictures that there must be, of all steps taken")


class BoardRecipe(_Strict):
    """What a board measures.

    Attributes:
        cache: folder of features and scores.
        pictures: folder of rendered pictures.
        amp: features of ridge and MLP in bfloat16, where the hardware computes with it.
        threads: CPU threads.
        data: images that the score was trained on and the validation split; as in a run's recipe.
        weights: pretrained backbones of ridge and MLP, as in a run's recipe.
        opinions: sets with opinion scores, by name.
        native: see `Native`.
        steps: see `Steps`.
        jpeg: lossless pictures that are stored as JPEG of several qualities.
        flats: photographs that are made nearly black; flat ones and pages of text join them.
        types: see `Types`, by name.
        forms: photographs stored in other forms, see `training.evaluation.invariance`.
    """

    cache: Path
    pictures: Path
    amp: bool = True
    threads: int = Field(default=2, gt=0)
    data: Data | None = None
    weights: Weights = Weights()
    opinions: dict[str, Opinions] = {}
    native: Native | None = None
    steps: Steps | None = None
    jpeg: list[Sources] = []
    flats: Sources | None = None
    types: dict[str, Types] = {}
    forms: Sources | None = None

    @model_validator(mode="after")
    def _names_are_distinct(self) -> BoardRecipe:
        names = self.names
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"two sets are called {twice}")
        if bad := [n for n in names if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", n)]:
            raise ValueError(f"names of sets are small letters, digits and hyphens: {bad}")
        if not names:
            raise ValueError("no set to measure")
        return self

    @property
    def names(self) -> list[str]:
        """Names of the sets, in the board's order."""
        return [
            *(["validation", "left-out"] if self.data is not None else []),
            *self.opinions,
            *(["native"] if self.native is not None else []),
            *(["steps"] if self.steps is not None else []),
            *(["jpeg"] if self.jpeg else []),
            *(["flats"] if self.flats is not None else []),
            *self.types,
            *(["forms"] if self.forms is not None else []),
        ]

    @property
    def rendered(self) -> list[str]:
        """Names of the sets whose pictures are rendered."""
        alike = ("native", "jpeg", "flats", "forms", *self.types)
        return [name for name in self.names if name in alike]


def missing(name: str, what: str) -> NotFoundError:
    """The error of a set that is not there as the recipe says."""
    return NotFoundError(
        what,
        item=f"set {name}",
        remedy=f"unpack the set whole or mend its paths in the recipe; to measure without it, "
        f"name the others: --sets (all but {name})",
    )


def read(path: Path) -> BoardRecipe:
    """Read a board's recipe; paths in it are relative to its folder.

    Args:
        path: a TOML file.

    Raises:
        UsageError: it is not TOML, or a field is missing, unknown or out of range.
        OSError: it cannot be read.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
        return BoardRecipe.model_validate(_resolved(fields, path.resolve().parent))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UsageError(f"not TOML: {e}", item=str(path), remedy="") from e
    except ValidationError as e:
        told = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in e.errors()[:5])
        raise UsageError(told, item=str(path), remedy="see training/board/recipe.py") from e


def _resolved(fields: Mapping[str, Any], folder: Path, section: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            found[key] = _resolved(value, folder, key)
        elif isinstance(value, list):
            found[key] = [_resolved(v, folder) if isinstance(v, dict) else v for v in value]
        elif isinstance(value, str) and (
            key in _PATHS or (section == "weights" and key in _WEIGHTS)
        ):
            found[key] = folder / value
        else:
            found[key] = value
    return found
