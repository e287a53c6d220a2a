"""Packages are entered through their doors, and what stands there changes on purpose only."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import giqa
from giqa.errors import all_errors
from tests import api

ROOT = Path(__file__).parents[2]
PACKAGES = api.packages()[1:]


def test_the_public_api_is_as_written_down() -> None:
    assert api.api() == api.FILE.read_text(encoding="utf-8"), "meant? `make docs` writes it anew"


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_of_a_package_are_private(package: str) -> None:
    folder = ROOT / package.replace(".", "/")
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert modules
    assert [name for name in sorted(modules) if not name.startswith("_")] == []


def imports() -> Iterator[tuple[Path, str]]:
    """What is imported from giqa, other than by tests: they may look behind doors."""
    for top in ("giqa", "build", "training", "benchmarks"):
        for path in (ROOT / top).rglob("*.py"):
            if path.name.startswith("test_"):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    yield from ((path, f"{node.module}.{alias.name}") for alias in node.names)
                elif isinstance(node, ast.Import):
                    yield from ((path, alias.name) for alias in node.names)


def test_nobody_passes_a_door_by() -> None:
    found = []
    for path, name in imports():
        package, *rest = (p for p in [".".join(name.split(".")[:2]), *name.split(".")[2:]])
        inside = path.parent == ROOT / package.replace(".", "/")
        if package in PACKAGES and not inside:
            door = importlib.import_module(package).__all__
            found += [f"{path.relative_to(ROOT)}: {name}" for n in rest[:1] if n not in door]
    assert found == []


def test_every_error_is_public() -> None:
    assert {cls.__name__ for cls in all_errors().values()} <= set(giqa.__all__)


@pytest.mark.parametrize("package", ["giqa", *PACKAGES])
def test_import_needs_no_extra_and_is_silent(package: str) -> None:
    """What an extra brings is imported when it is needed."""
    extras = {"av", "fsspec", "grpc", "jinja2", "nvidia", "openvino", "ray", "scenedetect"}
    program = f"import sys, {package}; sys.exit(' '.join({extras!r} & set(sys.modules)) or 0)"
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
