"""The bundle: what crosses from training to serving.

A folder with `manifest.json` (`giqa.manifest`), three ONNX graphs, a self-test image and a model
card. Loading is strict: the manifest must parse without unknown fields, every listed file must be
there with its SHA-256, and nothing unlisted may lie beside them but `engines/` (compiled engines,
which carry their own descriptions).
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

from pydantic import (
    ValidationError,
)

from giqa import checks
from giqa.contract import GRAPHS, PROFILES
from giqa.errors import BundleInvalidError, EngineMismatchError
from giqa.manifest import File, Manifest

MANIFEST = "manifest.json"
ENGINES = "engines"
DEFAULT = "giqa-s"


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
    checks.instance("bundle", spec, str, PathLike)
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
