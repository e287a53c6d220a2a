"""The bundle: what crosses from training to serving.

A folder with `manifest.json` (schema below), three ONNX graphs, a self-test image and a model
card. Loading is strict: the manifest must parse without unknown fields, every listed file must be
there with its SHA-256, and nothing unlisted may lie beside them but `engines/` (compiled engines,
which carry their own descriptions).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from giqa.contract import GRAPHS, GRID, MAX_VIEWS, PROFILES, SCORE_MAX, SCORE_MIN, Profile
from giqa.errors import BundleInvalidError, EngineMismatchError

SCHEMA = "giqa.bundle/1"
MANIFEST = "manifest.json"
ENGINES = "engines"
DEFAULT = "giqa-s"

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Triple = tuple[float, float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tensors(_Strict):
    """Sizes of the contract's tensors."""

    global_side: int = Field(gt=0, description="side of GLOBAL_VIEW in pixels")
    local_side: int = Field(gt=0, description="side of LOCAL_VIEW in pixels")
    grid: Literal[GRID] = Field(GRID, description="cells per side of the token grid")  # type: ignore[valid-type]
    stages: int = Field(gt=0, description="S, tapped ViT blocks in GLOBAL_TOKENS")
    dim: int = Field(gt=0, description="D, token width")
    context_tokens: int = Field(
        0, ge=0, description="tokens behind those of the grid's cells, of the picture as a whole"
    )
    token_dtype: Literal["FP32", "FP16"]
    quality_map: bool = Field(description="the fusion graph has QUALITY_MAP")

    @property
    def tokens(self) -> int:
        """Tokens of a set: the grid's cells, then `context_tokens`."""
        return int(self.grid) ** 2 + self.context_tokens


class Normalization(_Strict):
    """What the branch graphs do with uint8 pixels (for information: it is inside the graphs)."""

    mean: Triple
    std: Triple


class ViewProfile(_Strict):
    """How a picture becomes views."""

    max_views: int = Field(ge=1, le=MAX_VIEWS)


class Calibration(_Strict):
    """How raw outputs became 0..100 (for information: it is inside the fusion graph)."""

    method: str
    parameters: dict[str, float]
    fitted_on: str


class Score(_Strict):
    """The score's scale."""

    minimum: Literal[SCORE_MIN] = SCORE_MIN  # type: ignore[valid-type]
    maximum: Literal[SCORE_MAX] = SCORE_MAX  # type: ignore[valid-type]
    calibration: Calibration


class SelfTest(_Strict):
    """A known answer: `image` scored with profile `fast` must give `score`."""

    image: FileName
    score: float = Field(ge=SCORE_MIN, le=SCORE_MAX)
    tolerance: dict[str, float] = Field(description="largest |difference| per precision")


class Correlation(_Strict):
    """Agreement with human scores."""

    n: int = Field(gt=1)
    srocc: float
    srocc_interval: tuple[float, float] | None = Field(None, description="bootstrap, 95 %")
    plcc: float
    rmse: float | None = None
    krcc: float | None = None
    plcc_logistic: float | None = Field(None, description="after a 4-parameter logistic")

    @model_serializer(mode="wrap")
    def _without_later_fields(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        # They came after the first bundles, whose manifests must stay the same bytes.
        fields: dict[str, object] = write(self)
        for name in ("krcc", "plcc_logistic"):
            if fields.get(name) is None:
                fields.pop(name, None)
        return fields


class Accuracy(Correlation):
    """One measured accuracy with its protocol."""

    dataset: str
    split: str
    profile: Profile
    engine: str
    protocol: str
    subsets: dict[str, Correlation] = {}


class Licences(_Strict):
    """Terms of code, weights and training data."""

    code: str
    weights: str
    data: dict[str, str]


class File(_Strict):
    """One file of the bundle."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class Manifest(_Strict):
    """The manifest of a bundle."""

    schema_: Literal[SCHEMA] = Field(SCHEMA, alias="schema")  # type: ignore[valid-type]
    name: Name
    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
    preset: dict[str, object] = Field(description="the model as data, for information")
    tensors: Tensors
    normalization: dict[Literal["global_branch", "local_branch"], Normalization]
    profiles: dict[Profile, ViewProfile]
    score: Score
    graphs: dict[Literal["global_branch", "local_branch", "fusion"], FileName]
    int8: FileName | None = Field(
        None, description="what int8 adds to the graphs (giqa.int8), where the bundle has it"
    )
    compile_mode: Literal["dynamic", "static"] = Field(
        "dynamic", description="batch dimension that quantized graphs are compiled with"
    )
    self_test: SelfTest
    accuracy: list[Accuracy]
    training: dict[str, object]
    licences: Licences
    files: dict[FileName, File]

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _without_int8_graphs(cls, fields: object) -> object:
        # Manifests before `int8` say that there are none.
        if isinstance(fields, dict) and fields.get("int8_graphs", ...) is None:
            return {name: value for name, value in fields.items() if name != "int8_graphs"}
        return fields

    @property
    def id(self) -> str:
        """Name and version, as it stands in result rows: `giqa-s@0.1.0`."""
        return f"{self.name}@{self.version}"

    def to_json(self) -> str:
        """The manifest as it is written to disk."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"


@dataclass(frozen=True)
class Bundle:
    """A loaded, verified bundle.

    Attributes:
        folder: where it lies.
        manifest: its manifest.
    """

    folder: Path
    manifest: Manifest

    def graph(self, name: str) -> Path:
        """Path of a graph's ONNX file.

        Args:
            name: `global_branch`, `local_branch` or `fusion`.
        """
        return self.folder / self.manifest.graphs[name]  # type: ignore[index]

    @property
    def int8(self) -> Path:
        """The file of what int8 adds to the graphs.

        Raises:
            EngineMismatchError: the bundle has none.
        """
        if self.manifest.int8 is None:
            raise EngineMismatchError(
                f"{self.manifest.id} has no int8",
                item="--precision int8",
                remedy="add it: python -m build quantize",
            )
        return self.folder / self.manifest.int8

    @property
    def self_test_image(self) -> Path:
        """The encoded image of the self-test."""
        return self.folder / self.manifest.self_test.image

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest, which names every file's: identifies the bundle's bytes."""
        return _sha256(self.folder / MANIFEST)


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _packaged() -> Path:
    return Path(__file__).parent / "bundles"


def list_bundles() -> list[Path]:
    """Folders of the bundles that ship with the package, sorted by name."""
    return sorted(p.parent for p in _packaged().glob(f"*/{MANIFEST}"))


def find_bundle(spec: str | Path | None = None) -> Path:
    """Find a bundle's folder.

    Args:
        spec: a folder, the name of a bundle that ships with the package, or None for the default.

    Returns:
        The folder.

    Raises:
        BundleInvalidError: there is no such bundle.
    """
    spec = DEFAULT if spec is None else spec
    for folder in (Path(spec), _packaged() / spec):
        if (folder / MANIFEST).is_file():
            return folder
    known = ", ".join(p.name for p in list_bundles()) or "none"
    raise BundleInvalidError(
        "no such bundle", item=str(spec), remedy=f"give a bundle's folder or one of: {known}"
    )


def load_bundle(spec: str | Path | None = None) -> Bundle:
    """Load a bundle and verify it.

    Args:
        spec: a folder, the name of a bundle that ships with the package, or None for the default.

    Returns:
        The bundle.

    Raises:
        BundleInvalidError: not found, manifest not valid, a file missing, altered or unlisted.
    """
    folder = find_bundle(spec)
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (ValidationError, OSError) as e:
        if isinstance(e, ValidationError):
            first = e.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            reason = f"manifest: {where}: {first['msg']}"
        else:
            reason = f"manifest: {e.strerror}"
        raise BundleInvalidError(reason, item=str(folder)) from e
    _check_complete(folder, manifest)
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise BundleInvalidError(f"{name} is missing", item=str(folder))
        if path.stat().st_size != entry.bytes or _sha256(path) != entry.sha256:
            raise BundleInvalidError(
                f"{name} was altered (SHA-256 differs from the manifest's)", item=str(folder)
            )
    return Bundle(folder, manifest)


def _check_complete(folder: Path, manifest: Manifest) -> None:
    needed = {manifest.self_test.image, *manifest.graphs.values()}
    if manifest.int8 is not None:
        needed.add(manifest.int8)
    if set(manifest.graphs) != set(GRAPHS):
        raise BundleInvalidError(
            f"manifest names graphs {sorted(manifest.graphs)}", item=str(folder)
        )
    if set(manifest.profiles) != set(PROFILES):
        raise BundleInvalidError(
            f"manifest names profiles {sorted(manifest.profiles)}", item=str(folder)
        )
    if unlisted := needed - set(manifest.files):
        raise BundleInvalidError(f"manifest lists no hash of {sorted(unlisted)}", item=str(folder))
    beside = {p.name for p in folder.iterdir()} - set(manifest.files) - {MANIFEST, ENGINES}
    if beside:
        raise BundleInvalidError(f"unlisted files {sorted(beside)[:5]}", item=str(folder))


def write_bundle(folder: Path, fields: Mapping[str, object], files: Mapping[str, Path]) -> Bundle:
    """Write a bundle: all of it or nothing.

    Args:
        folder: its place; must not exist yet.
        fields: the manifest without `files`.
        files: contents by name in the bundle.

    Returns:
        The bundle, loaded from where it was written.

    Raises:
        BundleInvalidError: the manifest would not be valid.
        FileExistsError: `folder` exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists")
    folder.parent.mkdir(parents=True, exist_ok=True)
    entries = {n: File(sha256=_sha256(p), bytes=p.stat().st_size) for n, p in files.items()}
    try:
        manifest = Manifest.model_validate({**fields, "files": entries})
    except ValidationError as e:
        raise BundleInvalidError(str(e), item=str(folder)) from e
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, source in files.items():
            shutil.copyfile(source, staging / name)
        (staging / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        load_bundle(staging)
        staging.chmod(0o755)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return Bundle(folder, manifest)
