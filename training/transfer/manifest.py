"""What a folder of labels was made from: `manifest.json`, schema `giqa.transfer/1`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import giqa
from giqa import files
from giqa.errors import NotFoundError, TableInvalidError
from training import distortions

SCHEMA = "giqa.transfer/1"
LABELS = "labels.parquet"
MANIFEST = "manifest.json"

_LIBRARIES = ("numpy", "scipy", "pillow")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """The labelled data set."""

    dataset: str
    split: str
    round: int | None
    references: int = Field(description="labelled ones, that photographs are matched with")
    types: list[str] = Field(description="ours")


class Matching(_Strict):
    """How photographs were matched."""

    backbone: str
    pool: str
    weights: str = Field(description="SHA-256 of the tensors")
    floor: float
    similarity: dict[str, float] = Field(description="quantiles, of photographs before the floor")


class Counts(_Strict):
    """How many photographs went where, and labels."""

    photos: int
    labelled: int
    below_floor: int
    leaks: int
    duplicates: int
    too_small: int
    unreadable: int
    labels: int


class Manifest(_Strict):
    """The manifest."""

    schema_: Literal["giqa.transfer/1"] = Field(default="giqa.transfer/1", alias="schema")
    version: str = Field(description="giqa's")
    photos: str = Field(description="folder that paths in the labels are relative to")
    source: Source
    matching: Matching
    size: tuple[int, int] | None = Field(description="of rendered pictures; None: as they are")
    seed: int
    distortions: dict[str, str] = Field(description="digest of the package; libraries' versions")
    counts: Counts
    labels: str = Field(description=f"SHA-256 of {LABELS}")


def of_distortions() -> dict[str, str]:
    """Identify the package of distortions: SHA-256 of its source, and the versions it rests on."""
    digest = hashlib.sha256()
    for path in sorted(Path(distortions.__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"source": digest.hexdigest(), **versions}


def giqa_version() -> str:
    """Version of this package."""
    return giqa.__version__


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: Path, manifest: Manifest) -> None:
    """Write it. Raises `StorageFullError` if no space is left."""
    text = json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=1)
    files.write(folder / MANIFEST, f"{text}\n".encode())


def read(folder: Path) -> Manifest:
    """Read it and check that the labels are those that it is of.

    Raises:
        NotFoundError: the folder lacks a file.
        TableInvalidError: it is no manifest, of another schema, or of other labels.
    """
    path, labels = folder / MANIFEST, folder / LABELS
    for one in (path, labels):
        if not one.is_file():
            raise NotFoundError(
                "no such file", item=str(one), remedy="run `python -m training transfer` first"
            )
    try:
        found = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as e:
        told = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in e.errors()[:3])
        raise TableInvalidError(
            f"no manifest of {SCHEMA}: {told}", item=str(path), remedy="run transfer again"
        ) from e
    if digest_of(labels) != found.labels:
        raise TableInvalidError(
            f"is not the table that {MANIFEST} is of", item=str(labels), remedy="run transfer again"
        )
    return found
