"""The documents say what the code does. Run as a script it writes their generated parts."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from giqa.errors import all_errors
from giqa.serving._options import CPU_RESOURCE, CPU_SLOTS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "giqa/batch/README.md",
    "training/README.md",
    "training/LOG.md",
    "build/image/README.md",
    "benchmarks/README.md",
)
ERRORS = ("<!-- errors:begin -->", "<!-- errors:end -->")


def error_table() -> str:
    """Make the README's table of error codes from the error classes."""
    rows = ["| code | raised in Python as | meaning | what to do |", "|---|---|---|---|"]
    for code, cls in all_errors().items():
        meaning = inspect.cleandoc(cls.__doc__ or "").splitlines()[0].rstrip(".")
        remedy = cls("").remedy.replace("[]", "[EXTRA]")
        remedy = f"`{remedy}`" if remedy.startswith("pip ") else remedy
        rows.append(f"| `{code}` | `{cls.__name__}` | {meaning} | {remedy} |")
    return "\n".join(rows)


def with_error_table(text: str) -> str:
    """Put the table between its markers."""
    begin, end = ERRORS
    head, rest = text.split(begin)
    return f"{head}{begin}\n{error_table()}\n{end}{rest.split(end)[1]}"


def _commands(tool: str) -> list[str]:
    """Calls of a tool in all documents' shell blocks; of a pipeline, the part that calls it."""
    found = set()
    for name in DOCUMENTS:
        for block in re.findall(r"^```sh\n(.*?)^```", (ROOT / name).read_text(), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                parts = (part.strip() for part in re.split(r"\||&&", line))
                found |= {part for part in parts if part.split()[:1] == [tool]}
    return sorted(found)


def test_error_table_is_current() -> None:
    text = README.read_text()
    assert text == with_error_table(text), "run `make docs`"


def test_readme_shows_commands() -> None:
    assert _commands("giqa")
    assert {"make demo", "make test"} <= set(_commands("make"))


@pytest.mark.parametrize("command", _commands("giqa"))
def test_giqa_commands_parse(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from giqa.cli import main

    # --help is acted on after all options were recognised, and before anything is done.
    monkeypatch.setattr(sys, "argv", [*shlex.split(command, comments=True), "--help"])
    with pytest.raises(SystemExit) as exited:
        sys.exit(main())
    assert exited.value.code in (0, None), capsys.readouterr().err
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize("command", _commands("make"))
def test_make_targets_exist(command: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    words = shlex.split(command, comments=True)[1:]
    assert {word for word in words if "=" not in word} <= targets


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    document = ROOT / name
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    own = [link for link in links if "://" not in link]
    assert [link for link in own if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("command", _commands(".venv/bin/python") + _commands("python"))
def test_checkout_commands_parse(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, module, package, *arguments = shlex.split(command, comments=True)
    assert module == "-m"
    if package not in ("training", "benchmarks"):
        return
    main = importlib.import_module(f"{package}.__main__").main
    with pytest.raises(SystemExit) as exited:
        main([*arguments, "--help"])
    assert exited.value.code in (0, None), capsys.readouterr().err


def test_the_training_guides_recipe_is_one() -> None:
    from training.recipe import Recipe

    blocks = re.findall(
        r"^```toml\n(.*?)^```", (ROOT / "training/README.md").read_text(), re.M | re.S
    )
    assert Recipe.model_validate(tomllib.loads("".join(blocks))).ranking is not None


def test_every_extra_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    table = set(re.findall(r"^\| `(\w+)` \|", README.read_text(), re.M))
    assert set(project["optional-dependencies"]) <= table


def test_exit_codes_are_named() -> None:
    rows = re.findall(r"^\| (\d+) \|", README.read_text(), re.M)
    assert rows == ["0", "1", "2", "3", "4", "5", "130"]


def test_the_readme_names_the_slots_that_the_repository_counts_on() -> None:
    assert f"--rate-limit-resource={CPU_RESOURCE}:{CPU_SLOTS}`" in README.read_text()


if __name__ == "__main__":
    README.write_text(with_error_table(README.read_text()))
