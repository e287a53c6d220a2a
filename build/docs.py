"""Documents written from the code, and the site: `python -m build docs`, `python -m build site`.

What restates the code stands between `<!-- name:begin -->` and `<!-- name:end -->` and is never
edited. The site is `build/site`, with the repository's other documents beside its own pages.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Final

import click

from giqa.bundle import DEFAULT, load_bundle
from giqa.cli import group
from giqa.errors import GiqaError, MissingExtraError, all_errors
from giqa.files import write

ROOT: Final = Path(__file__).parents[1]
SITE: Final = ROOT / "build" / "site"
PAGES: Final = SITE / "pages"
RESULTS: Final = ROOT / "benchmarks" / "results"
PROJECT: Final = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/LOG.md": "benchmarks-log.md",
    "benchmarks/README.md": "benchmarks.md",
    "build/image/README.md": "image.md",
    "giqa/batch/README.md": "batch.md",
    "giqa/bundles/giqa-s/README.md": "model-card.md",
    "training/LOG.md": "training-log.md",
    "training/README.md": "training.md",
    "training/distortions/README.md": "distortions.md",
    "training/transfer/README.md": "transfer.md",
}
"""The repository's documents, and what they are called in the site's folder `project`."""
LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
"""A Markdown link or picture: `!`, text, target, anchor."""


def errors() -> str:
    """Every error: code, class, meaning, remedy."""
    rows = ["| code | raised in Python as | meaning | what to do |", "|---|---|---|---|"]
    for code, cls in all_errors().items():
        remedy = cls("").remedy.replace("[]", "[EXTRA]")
        remedy = f"`{remedy}`" if remedy.startswith("pip ") else remedy
        meaning = inspect.cleandoc(cls.__doc__ or "").splitlines()[0].rstrip(".")
        rows.append(f"| `{code}` | `{cls.__name__}` | {meaning} | {remedy} |")
    return "\n".join(rows)


def commands() -> str:
    """Every command of `giqa`: usage, what it does, its options."""
    return "\n\n".join(_commands(group, "giqa", None))


def _commands(one: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    # As wide as it gets: lines are broken by whoever shows the page.
    context = click.Context(one, parent=parent, info_name=name, max_content_width=10_000)
    if not isinstance(one, click.Group):
        usage = " ".join(one.collect_usage_pieces(context))
        yield f"## {context.command_path}"
        yield f"```text\n{context.command_path} {usage}\n```"
        yield _help(one.help or "")
        yield _options(one, context)
        return
    for sub in one.list_commands(context):
        found = one.get_command(context, sub)
        assert found is not None
        yield from _commands(found, sub, context)


def _help(text: str) -> str:
    """Click's help as Markdown: examples become blocks."""
    parts = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.removeprefix("\b\n").splitlines()
        head, *rest = lines
        if head == "Examples:":
            parts.append("\n".join(["```sh", *(line.strip() for line in rest), "```"]))
        elif head.startswith("Example: "):
            parts.append("\n".join(["```sh", head.removeprefix("Example: "), *rest, "```"]))
        else:
            parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _options(one: click.Command, context: click.Context) -> str:
    rows = ["| option | |", "|---|---|"]
    for parameter in one.params:
        record = parameter.get_help_record(context)
        if record is None or not any(record[1:]):
            continue  # an argument: the usage names it
        option, meaning = (part.replace("|", "\\|") for part in record)
        # Brackets would be taken for links.
        meaning = meaning.replace("  [", " [").replace("[", "\\[").replace("]", "\\]")
        rows.append(f"| `{option}` | {meaning} |")
    return "\n".join(rows)


def figures() -> str:
    """Accuracy of the default bundle and speed on record, in six lines."""
    manifest = load_bundle(DEFAULT).manifest
    tests = [found for found in manifest.accuracy if found.split == "test"]
    best = max(tests, key=lambda found: found.srocc)
    others = ", ".join(
        f"{_decimal(found.srocc)} in {found.engine.rpartition('-')[2]}"
        for found in tests
        if found is not best
    )
    low, high = best.srocc_interval or (best.srocc, best.srocc)
    subsets = ", ".join(
        f"{name} {_decimal(subset.srocc)}" for name, subset in (best.subsets or {}).items()
    )
    engine, triton, peers = (_Record(name) for name in ("engine", "triton", "peers"))
    rows = [
        ("", "", "measured with"),
        ("---", "---", "---"),
        (
            f"agreement with people, {best.dataset}, {best.n} test photographs",
            f"SROCC {_decimal(best.srocc)} ({_decimal(low)} .. {_decimal(high)})"
            + (f"; {others}" if others else ""),
            manifest.id,
        ),
        ("the same, by subset", subsets, manifest.id),
        (
            "512x512 JPEG files a second, two cores",
            f"{engine('giqa int8, batch 8/throughput'):.0f} in int8, "
            f"{engine('giqa bf16, batch 8/throughput'):.0f} in bf16; PyTorch "
            f"{engine('PyTorch eager f32, batch 8/throughput'):.0f}",
            engine.bundle,
        ),
        (
            "one image",
            f"{engine('giqa int8/latency p50'):.0f} ms; `giqa score` from a cold start "
            f"{engine('giqa score, cold process/wall time'):.1f} s; "
            f"{engine('giqa int8, batch 8/peak memory'):.0f} MB at most",
            engine.bundle,
        ),
        (
            "a server on the same cores, of scoring in process",
            f"{triton.ratio('in_flight 32/throughput'):.0%} with 32 requests under way",
            triton.bundle,
        ),
        (
            "images a second, beside other scorers",
            f"{1 / peers.ratio('topiq_nr/throughput'):.0f} times TOPIQ, "
            f"{1 / peers.ratio('brisque/throughput'):.0f} times BRISQUE",
            peers.bundle,
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _decimal(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1)


class _Record:
    """A suite's record in `benchmarks/results`: medians over rounds."""

    def __init__(self, suite: str) -> None:
        data = json.loads((RESULTS / f"{suite}.json").read_text(encoding="utf-8"))
        self.bundle = str(data["bundle"])
        self._values = {one["name"]: one["values"] for one in data["series"]}
        self._ratios = {one["series"]: one["ratio"] for one in reversed(data["comparisons"])}

    def __call__(self, name: str) -> float:
        return median(self._values[name])

    def ratio(self, name: str) -> float:
        """How many times as good as the first that it is compared with."""
        return float(self._ratios[name])


GENERATED: Final[dict[str, dict[str, Callable[[], str]]]] = {
    "README.md": {"figures": figures},
    "build/site/pages/reference/commands.md": {"commands": commands},
    "build/site/pages/reference/errors.md": {"errors": errors},
}
"""Document, and what makes each of its generated parts."""


def generated() -> dict[str, str]:
    """What the documents with generated parts should say."""
    return {name: _filled(name, parts) for name, parts in GENERATED.items()}


def _filled(name: str, parts: dict[str, Callable[[], str]]) -> str:
    text = (ROOT / name).read_text(encoding="utf-8")
    for part, make in parts.items():
        begin, end = f"<!-- {part}:begin -->", f"<!-- {part}:end -->"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return text


def documents() -> list[str]:
    """Every document of the repository, by its path from the root."""
    own = sorted(path.relative_to(ROOT).as_posix() for path in PAGES.rglob("*.md"))
    return ["README.md", *PROJECT, *own]


@click.command()
def docs() -> None:
    """Write the generated parts of documents.

    Example: python -m build docs
    """
    for name, text in generated().items():
        write(ROOT / name, text.encode())
        click.echo(name)


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "dist" / "site",
    help="Replaced; the pages are in its folder `html`.  [default: dist/site]",
)
def site(out: Path) -> None:
    """Build the documentation site; a link that leads nowhere is an error.

    Example: python -m build site
    """
    if find_spec("zensical") is None or find_spec("mkdocstrings") is None:
        raise MissingExtraError("the site is built by zensical", extra="docs")
    stage(out)
    config = out / "zensical.toml"
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(config)],
        cwd=out,
        env={**os.environ, "NO_COLOR": "1"},
    )
    if done.returncode:
        raise GiqaError("the site could not be built", item=str(SITE), remedy="")
    click.echo(out / "html")


def stage(out: Path) -> None:
    """Lay out what the site is built of: its pages, and the repository's documents as pages.

    Args:
        out: the folder, replaced.
    """
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(SITE, out)
    config = out / "zensical.toml"
    config.write_text(config.read_text(encoding="utf-8").replace("@ROOT@", str(ROOT)))
    pages = out / "pages"
    places = {PAGES / p.relative_to(pages): p for p in pages.rglob("*") if p.is_file()}
    places |= {ROOT / name: pages / "project" / page for name, page in PROJECT.items()}
    places[ROOT / "README.md"] = pages / "index.md"
    (pages / "project").mkdir()
    for source, target in list(places.items()):
        if source.suffix == ".md":
            text = _relinked(source.read_text(encoding="utf-8"), source, places, pages)
            target.write_text(text, encoding="utf-8")


def _relinked(text: str, source: Path, places: dict[Path, Path], pages: Path) -> str:
    """A document as a page: links follow what moved, links to code become text."""

    def follow(found: re.Match[str]) -> str:
        mark, label, target, anchor = found.groups()
        if not target or "://" in target or target.startswith("mailto:"):
            return found[0]
        path = Path(os.path.normpath(source.parent / target))
        if mark and path not in places:
            # A picture of the repository.
            places[path] = pages / "project" / "-".join(path.relative_to(ROOT).parts)
            shutil.copyfile(path, places[path])
        if path not in places:
            return label if label.startswith("`") else f"`{label}`"
        moved = os.path.relpath(places[path], places[source].parent)
        return f"{mark}[{label}]({moved}{anchor or ''})"

    return LINK.sub(follow, text)
