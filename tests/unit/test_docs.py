"""The documents say what the code does."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from PIL import Image

import giqa
from build.docs import GENERATED, LINK, PAGES, SITE, documents, generated, stage
from build.long_description import standing_alone
from giqa.cli import group
from giqa.errors import GiqaError, all_errors
from giqa.serving._repository_options import CPU_RESOURCE, CPU_SLOTS

ROOT = Path(__file__).parents[2]
DOCUMENTS = documents()
REFERENCE = PAGES / "reference"


def _commands(*tool: str) -> list[str]:
    """Calls of a tool in all documents' shell blocks; of a pipeline, the part that calls it."""
    found = set()
    for name in DOCUMENTS:
        for block in re.findall(r"^```sh\n(.*?)^```", (ROOT / name).read_text(), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                parts = (part.strip() for part in re.split(r"\|{1,2}|&&", line))
                found |= {part for part in parts if tuple(part.split()[: len(tool)]) == tool}
    return sorted(found)


@pytest.mark.parametrize("name", GENERATED)
def test_generated_parts_are_current(name: str) -> None:
    assert (ROOT / name).read_text() == generated()[name], "run `make docs`"


def test_every_document_is_known() -> None:
    kept = {p.relative_to(ROOT).as_posix() for p in ROOT.glob("*/**/*.md")} | {"README.md"}
    hidden = {name for name in kept if name.startswith((".", "dist/", "runs/"))}
    assert kept - hidden <= set(DOCUMENTS)


def test_the_readme_is_short_and_shows_commands() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
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
    targets = [target for _, _, target, _ in LINK.findall(document.read_text()) if target]
    own = [target for target in targets if "://" not in target]
    assert [target for target in own if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("command", _commands(".venv/bin/python") + _commands("python"))
def test_checkout_commands_parse(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, module, package, *arguments = shlex.split(command, comments=True)
    assert module == "-m"
    if "." in package:
        assert importlib.util.find_spec(package) is not None
        return
    main = importlib.import_module(f"{package}.__main__").main
    monkeypatch.setattr(sys, "argv", [package, *arguments, "--help"])
    with pytest.raises(SystemExit) as exited:
        sys.exit(main() if package == "build" else main([*arguments, "--help"]))
    assert exited.value.code in (0, None), capsys.readouterr().err


def test_the_training_guides_recipe_is_one() -> None:
    from training.recipe import Recipe

    blocks = re.findall(
        r"^```toml\n(.*?)^```", (ROOT / "training/README.md").read_text(), re.M | re.S
    )
    assert Recipe.model_validate(tomllib.loads("".join(blocks))).rendered is not None


def test_every_extra_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    table = set(re.findall(r"^\| `(\w+)` \|", (PAGES / "install.md").read_text(), re.M))
    assert table == set(project["optional-dependencies"])


def test_exit_codes_are_named() -> None:
    rows = re.findall(r"^\| (\d+) \|", (REFERENCE / "results.md").read_text(), re.M)
    assert rows == ["0", "1", "2", "3", "4", "5", "130"]


def test_the_slots_are_those_that_the_repository_counts_on() -> None:
    guide = (PAGES / "guides/triton.md").read_text()
    assert f"--rate-limit-resource={CPU_RESOURCE}:{CPU_SLOTS}`" in guide


def test_the_python_reference_has_every_public_name() -> None:
    page = (REFERENCE / "python.md").read_text()
    written = set(re.findall(r"^::: giqa\.(?:errors\.)?(\w+)$", page, re.M))
    in_table = {cls.__name__ for cls in all_errors().values()}
    assert issubclass(GiqaError, Exception)
    assert set(giqa.__all__) - {"__version__"} <= written | in_table


def test_the_glossary_is_short() -> None:
    rows = re.findall(r"^\| (?!word|---)", (PAGES / "glossary.md").read_text(), re.M)
    assert 18 <= len(rows) <= 25


@pytest.mark.parametrize("name", ["damage.jpg", "failures.jpg", "map.jpg"])
def test_pictures_are_small(name: str) -> None:
    path = PAGES / "pictures" / name
    assert path.stat().st_size < 300_000
    with Image.open(path) as picture:
        assert picture.width <= 1200


def _named(nav: list[dict]) -> list[str]:
    entries = [entry for item in nav for entry in item.values()]
    return [n for e in entries for n in ([e] if isinstance(e, str) else _named(e))]


def test_every_page_is_in_the_sites_contents(tmp_path: Path) -> None:
    nav = tomllib.loads((SITE / "zensical.toml").read_text())["project"]["nav"]
    stage(tmp_path / "site")
    pages = tmp_path / "site" / "pages"
    assert sorted(_named(nav)) == sorted(
        page.relative_to(pages).as_posix() for page in pages.rglob("*.md")
    )


def test_links_of_the_site_stay_inside(tmp_path: Path) -> None:
    """And what they name is there; that anchors exist, too, the site's own build checks."""
    stage(tmp_path / "site")
    pages = tmp_path / "site" / "pages"
    for page in pages.rglob("*.md"):
        for _, _, target, _ in LINK.findall(page.read_text()):
            if target and "://" not in target:
                path = (page.parent / target).resolve()
                assert path.is_relative_to(pages), (page, target)
                assert path.is_file(), (page, target)


def test_the_long_description_links_nowhere_into_the_repository() -> None:
    text = standing_alone("a ![b](c.jpg) [d](e.md#f) [g](https://h.org/) [`i`](j.py)")
    assert text == "a  d [g](https://h.org/) `i`"
    readme = standing_alone((ROOT / "README.md").read_text())
    assert [target for _, _, target, _ in LINK.findall(readme) if "://" not in target] == []


def test_faults_of_others_name_files_that_are_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = text[text.index("## Faults of others") :].splitlines()[6:]
    assert len(rows) > 20
    for row in rows:
        assert row.count(" | ") == 5, row
        named = re.findall(r"`([\w./-]+\.py|pyproject\.toml|\.ci/\w+)`", row)
        assert named, row
        assert [name for name in named if not (ROOT / name).is_file()] == []


def test_decisions_name_modules_that_are_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = text[text.index("## Decisions") : text.index("## Faults of others")]
    for row in table.splitlines()[6:]:
        if "|" not in row:
            continue
        for folder, names in re.findall(r"`([\w/]+)`: ((?:`\w+`(?:, )?)+)", row):
            for name in re.findall(r"`(\w+)`", names):
                assert (ROOT / folder / f"{name}.py").is_file(), (folder, name)


def _parameters(
    command: click.Command, path: str = "giqa"
) -> Iterator[tuple[str, click.Parameter]]:
    for parameter in command.params:
        yield path, parameter
    for name, sub in getattr(command, "commands", {}).items():
        yield from _parameters(sub, f"{path} {name}")


def test_every_option_has_help() -> None:
    options = [(path, p) for path, p in _parameters(group) if isinstance(p, click.Option)]
    assert len(options) > 60
    assert [(path, p.name) for path, p in options if not p.help] == []
