"""Groups as files: pictures, and a table of what each loses.

A group is done once its part `parts/000/000000.json` is there; its pictures are written before. A
group that was interrupted is rendered again, to the same bytes under the same names.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from giqa import files
from giqa.errors import UsageError
from training import processes
from training.board import native
from training.fidelity import measure
from training.progress import Progress
from training.rendered import sources
from training.rendered.damage import NOTHING
from training.rendered.estimate import encode, estimate
from training.rendered.groups import Group, Plan, each, group
from training.rendered.recipe import Recipe
from training.transfer.manifest import of_distortions

SCHEMA = "giqa.rendered/1"
ABOUT = "rendered.json"
SOURCES = "sources.csv"
TABLE = "table.csv"
COLUMNS = ("path", "group", "loss", "mos", "kind", "reference")

_FOLDER = 1000  # groups a folder
_PARTS, _IMAGES = "parts", "images"


@dataclass(frozen=True)
class Done:
    """What there is after rendering.

    Attributes:
        pictures: how many were rendered, now and before.
        failed: photographs that could not be read, as `group: why`.
        table: the table of pictures; None after a dry run.
    """

    pictures: int
    failed: list[str]
    table: Path | None


def render(
    recipe: Recipe,
    out: Path,
    *,
    workers: int = 1,
    dry_run: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Done:
    """Render a recipe's groups as PNG files; call again to go on after an interruption.

    Args:
        recipe: what is rendered.
        out: where pictures go; made if it does not exist.
        workers: processes.
        dry_run: only estimate; nothing is written.
        tell: called with lines about sources, time and room, before rendering.

    Returns:
        What there is.

    Raises:
        NotFoundError: a folder, table or photograph is missing, or one has vanished since.
        InputError: a photograph's header cannot be read.
        TableInvalidError: a table cannot be used.
        UsageError: `out` holds pictures of another recipe, other sources or versions, another
            process renders there, or a worker died.
        StorageFullError: no room; finished groups stay.
    """
    plan = Plan(recipe, sources.find(recipe))
    photos = sum(len(pool.photos) for pool in plan.sources.pools)
    tell(
        f"{photos} photographs in {len(plan.sources.pools)} sources; left out: "
        f"{plan.sources.held_out}, by lists that name {plan.sources.named}"
    )
    if dry_run:
        tell(estimate(plan, out, _left(out, recipe), workers))
        return Done(0, [], None)
    with files.storage(out):
        out.mkdir(parents=True, exist_ok=True)
    with processes.alone(out):
        _claim(out, plan)
        for path in (*out.glob(".*.tmp"), *out.glob("*/*/.*.tmp")):
            path.unlink(missing_ok=True)  # what a killed run was writing
        left = _left(out, recipe)
        tell(estimate(plan, out, left, workers))
        done = each(functools.partial(_write, out), plan, left, workers)
        with Progress("groups", recipe.groups, recipe.groups - len(left)) as bar:
            for _ in done:
                bar.update()
        return _finish(out, recipe)


def _left(out: Path, recipe: Recipe) -> list[int]:
    return [number for number in range(recipe.groups) if not _part(out, number).is_file()]


def _part(out: Path, number: int) -> Path:
    return out / _PARTS / f"{number // _FOLDER:03}" / f"{number:06}.json"


def _claim(out: Path, plan: Plan) -> None:
    """Pictures of two recipes, of other sources or versions must not lie in one folder."""
    about: dict[str, Any] = {
        "schema": SCHEMA,
        # More groups of the same recipe go on where fewer ended.
        "recipe": plan.recipe.model_dump(mode="json", exclude={"groups"}),
        "source": _digest(),
        "distortions": of_distortions(),
        "versions": {name: version(name) for name in ("av", "opencv-python")},
    }
    path, listing = out / ABOUT, out / SOURCES
    if not path.is_file():
        files.write(listing, plan.sources.listing().encode())
        files.write(path, f"{json.dumps(about, indent=1)}\n".encode())
        return
    try:
        then = json.loads(path.read_text())
    except ValueError:
        then = None
    if then != about:
        raise UsageError(
            "holds pictures of another recipe or other versions",
            item=str(out),
            remedy="give another --out",
        )
    sources.check_same(listing.read_text(), plan.sources)


def _digest() -> str:
    """SHA-256 of what makes pictures and losses, beside `of_distortions`."""
    digest = hashlib.sha256(Path(native.__file__).read_bytes())
    for inside in (measure.__file__, sources.__file__):
        folder = Path(inside).parent
        for path in sorted([*folder.glob("*.py"), *folder.glob("*.json")]):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _write(out: Path, plan: Plan, number: int) -> None:
    found = group(plan, number)
    folder = out / _IMAGES / f"{number // _FOLDER:03}"
    part = _part(out, number)
    with files.storage(out):
        folder.mkdir(parents=True, exist_ok=True)
        part.parent.mkdir(parents=True, exist_ok=True)
    names = []
    for place, item in enumerate(found.pictures):
        name = f"{number:06}-{place}.png"
        files.write(folder / name, encode(item.pixels))
        names.append(f"{_IMAGES}/{folder.name}/{name}")
    files.write(part, json.dumps(_about(found, names)).encode())


def _about(found: Group, names: Sequence[str]) -> dict[str, Any]:
    rows = []
    for name, item in zip(names, found.pictures, strict=True):
        row = {"path": name, "group": found.number, "loss": round(item.loss, 5), "mos": found.mos}
        if item.kind.startswith(NOTHING):
            # Worth the same whatever was there: a label of its own, no member of the group.
            row |= {"group": "", "loss": "", "mos": round(100 * (1 - item.loss), 3)}
        rows.append({**row, "kind": item.kind, "reference": found.reference})
    return {"error": found.error, "pictures": rows}


def _finish(out: Path, recipe: Recipe) -> Done:
    """Write the table of all pictures."""
    failed, count = [], 0
    table = out / TABLE
    with files.replacing(table) as raw:
        lines = io.TextIOWrapper(raw, "utf-8", newline="", write_through=True)
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for number in range(recipe.groups):
            about = json.loads(_part(out, number).read_text())
            if about["error"]:
                failed.append(f"{number}: {about['error']}")
            count += len(about["pictures"])
            writer.writerows(about["pictures"])
        lines.detach()  # the file is flushed and closed by its owner
    return Done(count, failed, table)
