"""What is rendered: one TOML file, see `example.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from giqa.errors import UsageError

Kind = Literal["kadid", "resample", "codec", "native", "chain", "nothing"]
KINDS: tuple[Kind, ...] = get_args(Kind)

PAGES = "pages"
"""Name of the source that is drawn, see `pages`."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """Clean photographs. Of a table with a column `split` those to train on."""

    photographs: Path = Field(description="folder, glob pattern, or table")
    share: float = Field(default=1.0, gt=0, description="how often, beside the other sources")
    low: float = Field(default=0.0, description="of a table: the worst label")
    high: float = Field(default=100.0, description="of a table: the other end of its labels")
    higher_is_better: bool = True
    least: float = Field(
        default=0.0, ge=0, le=100, description="of a table: only pictures with so much of 0..100"
    )
    mos: float | None = Field(
        default=None, ge=0, le=100, description="of a folder: the opinion that is assumed of all"
    )

    @property
    def is_table(self) -> bool:
        """Whether photographs stand in a table, with opinions."""
        return self.photographs.suffix.lower() in (".csv", ".tsv", ".txt", ".parquet")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.is_table and self.mos is not None:
            raise ValueError(f"{self.photographs}: a table has its own opinions: drop mos")
        if not self.is_table and self.least > 0:
            raise ValueError(f"{self.photographs}: least is for tables")
        return self


class Pages(_Strict):
    """Pages of text and screens, drawn for each group: clean pictures that no photograph is."""

    share: float = Field(default=0.0, ge=0, description="how often, beside the sources")
    mos: float | None = Field(default=None, ge=0, le=100, description="the opinion assumed of them")


class Kinds(_Strict):
    """How often each kind of damage, relative to the others."""

    kadid: float = Field(default=0.28, ge=0)
    resample: float = Field(default=0.24, ge=0)
    codec: float = Field(default=0.22, ge=0)
    native: float = Field(default=0.08, ge=0)
    chain: float = Field(default=0.14, ge=0)
    nothing: float = Field(default=0.04, ge=0)

    def shares(self) -> dict[Kind, float]:
        """Shares by name, in the order of `KINDS`."""
        return {kind: getattr(self, kind) for kind in KINDS}

    @model_validator(mode="after")
    def _some(self) -> Self:
        # On pages and large pictures types of KADID-10k mean nothing: others stand in.
        if not any(share for kind, share in self.shares().items() if kind != "kadid"):
            raise ValueError("a kind besides kadid is needed")
        return self


class Recipe(_Strict):
    """What is rendered.

    Attributes:
        groups: how many groups.
        seed: other numbers give other pictures.
        sources: clean photographs.
        held_out: text files of paths or file names, one a line, or tables with a column `path`:
            photographs that are never used.
        pages: drawn pages and screens.
        kinds: how often each kind of damage.
    """

    groups: int = Field(gt=0)
    seed: int = Field(default=0, ge=0)
    sources: tuple[Source, ...] = Field(min_length=1)
    held_out: tuple[Path, ...] = ()
    pages: Pages = Pages()
    kinds: Kinds = Kinds()


def read(path: Path) -> Recipe:
    """Read a recipe; relative paths in it are relative to the working directory.

    Raises:
        UsageError: it is not TOML, or a field is missing, unknown or out of range.
    """
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text()))
    except ValueError as e:  # pydantic's and tomllib's errors
        raise UsageError(str(e), item=str(path), remedy="see training/rendered/example.toml") from e
