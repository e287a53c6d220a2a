"""Precisions have one set of names, which stands in one place with their bounds."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from build.__main__ import OF_DEVICES
from build.commands import check, engines
from giqa.bundle import load_bundle
from giqa.errors import UsageError
from giqa.openvino import choose_precision
from giqa.precision import BOUNDS, CPU_ASKED, CPU_PRECISIONS, HALVES, PRECISIONS, Precision
from giqa.serving import Engine

OTHERS = {"fp32", "fp16", "fp8"}


def test_every_precision_has_bounds() -> None:
    assert tuple(BOUNDS) == PRECISIONS == get_args(Precision)
    assert {*CPU_PRECISIONS, *HALVES} <= set(PRECISIONS)
    tolerances = [BOUNDS[p].tolerance for p in ("f32", "f16", "bf16", "int8")]
    assert tolerances == sorted(tolerances)


def lists(path: Path) -> list[str]:
    """Places where source lists several precisions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            parts = list(ast.iter_child_nodes(node))
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        names = {p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)}
        if len(names & (set(PRECISIONS) | OTHERS)) > 1:
            found.append(f"{path}:{node.lineno}")  # type: ignore[attr-defined]
    return found


def test_no_other_module_lists_them(checkout: Path) -> None:
    folders = ("giqa", "build", "training", "benchmarks")
    modules = [path for folder in folders for path in (checkout / folder).rglob("*.py")]
    found = [place for path in modules for place in lists(path)]
    assert len(modules) > 100
    here = str(checkout / "giqa" / "precision.py")
    assert found
    assert [place for place in found if not place.startswith(here)] == []


def test_commands_and_descriptions_take_the_same_names() -> None:
    for command in (check, engines):
        (choice,) = (p.type for p in command.params if "--precision" in p.opts)
        assert tuple(choice.choices) == PRECISIONS  # type: ignore[attr-defined]
    assert get_args(Engine.model_fields["precision"].annotation) == PRECISIONS
    assert set(OF_DEVICES.values()) <= set(PRECISIONS)


@pytest.mark.parametrize("asked", ["f16", "fp8", "fp32", "float", ""])
def test_a_cpu_says_what_it_computes(asked: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_precision(load_bundle(), asked)  # type: ignore[arg-type]
    assert asked in caught.value.item
    assert all(name in caught.value.remedy for name in CPU_ASKED)
