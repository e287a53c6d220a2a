"""Finding a tritonserver, and what it needs around it to run here."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from giqa.errors import MissingExtraError, UsageError

BUNDLED_VERSION = (2, 51)
"""Triton in the wheel that the extra `server` pins."""

_WHEEL = "nvidia-pytriton"


@dataclass(frozen=True)
class Binary:
    """A tritonserver that runs here.

    Attributes:
        path: the executable.
        version: Triton's version, major and minor.
        bundled: it comes from the wheel of the extra `server` (Python backend only, no GPU).
    """

    path: Path
    version: tuple[int, int]
    bundled: bool

    @property
    def root(self) -> Path:
        """Where backends and caches lie."""
        return self.path.resolve().parent.parent

    def environment(self) -> dict[str, str]:
        """The environment to start it in: its libraries, and this Python for its stubs."""
        found = dict(os.environ)
        # The stubs of the Python backend take the `python3` that comes first.
        found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found.get('PATH', '')}"
        found["OMP_WAIT_POLICY"] = "PASSIVE"  # many processes share the cores
        if self.bundled:
            libraries = [
                str(self.root.parent.parent / "nvidia_pytriton.libs"),
                str(sysconfig.get_config_var("LIBDIR")),
                found.get("LD_LIBRARY_PATH", ""),
            ]
            found["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
        return found

    def lay_out(self, folder: Path) -> list[str]:
        """Make the folders that the server loads backends and caches from.

        Args:
            folder: a place for them.

        Returns:
            The server's arguments that name them.

        Raises:
            MissingExtraError: the wheel has no stub for this Python.
        """
        if not self.bundled:
            return []
        backend = folder / "backends" / "python"
        backend.parent.mkdir(parents=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(self.root / "backends" / "python", backend, ignore=ignored)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        name = "triton_python_backend_stub"
        source = self.root / "python_backend_stubs" / version / name
        if not source.is_file():
            raise MissingExtraError(
                f"{_WHEEL} has no stub for Python {version}",
                remedy="use Python 3.11 or 3.12, or a tritonserver of your own",
            )
        stub = backend / name
        shutil.copyfile(source, stub)
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
        return [
            f"--backend-directory={folder / 'backends'}",
            f"--cache-directory={self.root / 'caches'}",
        ]


def find_tritonserver(path: str | Path | None = None) -> Binary:
    """Find a tritonserver: the given one, one on PATH, or the extra `server`'s.

    Args:
        path: an executable; None to look for one.

    Returns:
        The binary.

    Raises:
        UsageError: `path` is not an executable.
        MissingExtraError: there is none.
    """
    if path is not None:
        if not os.access(path, os.X_OK) or not Path(path).is_file():
            raise UsageError("is not an executable", item=str(path))
        return _of(Path(path))
    if found := shutil.which("tritonserver"):
        return _of(Path(found))
    if bundled := _bundled():
        return bundled
    raise MissingExtraError("no tritonserver on PATH, and none installed", extra="server")


def _bundled() -> Binary | None:
    try:
        files = metadata.files(_WHEEL) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if str(file).endswith("tritonserver/bin/tritonserver"):
            return Binary(Path(str(file.locate())), BUNDLED_VERSION, bundled=True)
    return None


def _of(path: Path) -> Binary:
    bundled = _bundled()
    if bundled is not None and path.resolve() == bundled.path.resolve():
        return bundled
    return Binary(path, _version(path), bundled=False)


def _version(path: Path) -> tuple[int, int]:
    """NVIDIA's installations say it in a file and in the environment; else the oldest we know."""
    said = os.environ.get("TRITON_SERVER_VERSION", "")
    file = path.resolve().parent.parent / "TRITON_VERSION"
    if file.is_file():
        said = file.read_text(encoding="utf-8", errors="replace")
    match = re.match(r"\s*(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else BUNDLED_VERSION
