"""Which pretrained weights a run really used: the record goes with it into manifest and card.

Only what the program saw is in it: a file's digest, a tag of timm's hub and what timm says of its
licence. What a recipe says of a file is marked as said.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open

from giqa import files

RECORD = "provenance.json"


class Origin(BaseModel):
    """Where a backbone's weights come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = Field(description="timm's name of the architecture and tag of the preset")
    source: str = Field(description="`file`, or `timm hub`")
    file: str = Field(default="", description="its name")
    sha256: str = Field(description="of the file, or of the tensors that the hub gave")
    licence: str = Field(default="", description="as timm or the file states it, or empty")
    stated: str = Field(default="", description="what the recipe says of it")

    def words(self) -> str:
        """One line for a model card."""
        told = self.licence or "not stated in what was read"
        parts = [f"weights from {self.source} {self.file}".strip(), f"licence: {told}"]
        if self.stated:
            parts.append(f"its user says: {self.stated}")
        return f"`{self.backbone}`: {'; '.join(parts)}; SHA-256 `{self.sha256}`"


Origins = dict[str, Origin]
"""By branch."""


def of_file(backbone: str, path: Path, stated: str) -> Origin:
    """The origin of a safetensors file.

    Its licence is what its own metadata say: the architecture of a file says nothing about who
    trained it on what.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with safe_open(path, "pt") as tensors:
        about = tensors.metadata() or {}
    licence = about.get("license") or about.get("licence") or ""
    return Origin(
        backbone=backbone, source="file", file=path.name, sha256=digest, licence=licence,
        stated=stated,
    )  # fmt: skip


def write(folder: Path, origins: Origins) -> None:
    """Write a run's record. Raises `StorageFullError` if no space is left."""
    text = json.dumps({name: one.model_dump() for name, one in origins.items()}, indent=1)
    files.write(folder / RECORD, f"{text}\n".encode())


def read(folder: Path) -> Origins:
    """Read a run's record; empty if the run wrote none."""
    path = folder / RECORD
    if not path.is_file():
        return {}
    return {name: Origin.model_validate(one) for name, one in json.loads(path.read_text()).items()}
