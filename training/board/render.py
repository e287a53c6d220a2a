"""The board's rendered pictures: resumed after a kill, and refused where made from other sources.

A set is a folder of files, each of which appears whole, and `render.json`, which says what they
are made from.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from giqa import files
from giqa.errors import NotFoundError, UsageError
from training.board import making, native
from training.board.making import Job, Options
from training.board.recipe import BoardRecipe, Sources
from training.distortions import ranked
from training.distortions.groups import LEVELS
from training.processes import alone, begin
from training.progress import Progress

SCHEMA = "giqa.board-pictures/1"
ABOUT = "render.json"


@dataclass(frozen=True)
class Rendering:
    """A set that is rendered.

    Attributes:
        name: of the set.
        folder: of its pictures.
        jobs: its pictures, in order.
        about: what decides them, JSON-serialisable.
    """

    name: str
    folder: Path
    jobs: Sequence[Job]
    about: dict[str, object]

    def check(self) -> None:
        """Refuse a folder of other pictures, or one that is not finished.

        Raises:
            UsageError: its pictures were made from other sources, or otherwise.
            NotFoundError: pictures are missing.
        """
        self._check_about()
        left = len(self.left())
        if left:
            raise NotFoundError(
                f"{left} of {len(self.jobs)} pictures are not rendered yet",
                item=f"set {self.name}",
                remedy="python -m training board BOARD render",
            )

    def left(self) -> list[Job]:
        """Jobs whose picture is not there."""
        there = {p.name for p in self.folder.iterdir()} if self.folder.is_dir() else set()
        return [job for job in self.jobs if job.out.name not in there]

    def run(self, workers: int) -> int:
        """Render what is missing; call again to go on after an interruption.

        Args:
            workers: processes.

        Returns:
            How many pictures were rendered now.

        Raises:
            UsageError: the folder holds other pictures, another process renders there, or a worker
                died.
            StorageFullError: no room; finished pictures stay.
            OSError: a source cannot be read.
        """
        with files.storage(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder):
            self._check_about()
            for path in self.folder.glob(".*.tmp"):  # of a process that was killed
                path.unlink()
            files.write(self.folder / ABOUT, _json(self.about))
            left = self.left()
            with Progress(self.name, len(self.jobs), len(self.jobs) - len(left)) as bar:
                for count in _rendered(left, workers):
                    bar.update(count)
        return len(left)

    def _check_about(self) -> None:
        path = self.folder / ABOUT
        if path.is_file() and path.read_bytes() != _json(self.about):
            raise UsageError(
                f"{self.folder} holds pictures made from other sources, or by another version",
                item=f"set {self.name}",
                remedy="delete that folder and render again, or give another in the recipe",
            )


def _json(about: dict[str, object]) -> bytes:
    return f"{json.dumps(about, indent=1)}\n".encode()


def _rendered(left: Sequence[Job], workers: int) -> Sequence[int]:
    """Render, the pictures of a source one after the other; yields how many are done."""
    groups: dict[tuple[Path | None, int], list[Job]] = {}
    for job in left:
        groups.setdefault((job.source, job.number), []).append(job)
    if workers == 1 or len(groups) < 2:
        return _one_by_one(groups.values())
    return _beside(list(groups.values()), workers)


def _one_by_one(groups):
    for jobs in groups:
        yield making.write(jobs)


def _beside(groups, workers):
    context = multiprocessing.get_context("spawn")  # threads do not survive a fork
    with ProcessPoolExecutor(workers, context, begin, (os.getpid(),)) as pool:
        try:
            for done in as_completed([pool.submit(making.write, jobs) for jobs in groups]):
                yield done.result()
        except BrokenProcessPool as e:
            raise UsageError(
                "a worker died, maybe for want of memory",
                item="--workers",
                remedy="give fewer and run again; finished pictures are kept",
            ) from e
        finally:
            pool.shutdown(cancel_futures=True)


def renderings(recipe: BoardRecipe, chosen: Sequence[str]) -> list[Rendering]:
    """The rendered sets among those that are chosen, in the board's order.

    Raises:
        NotFoundError: a source is missing.
    """
    return [_rendering(recipe, name) for name in recipe.rendered if name in chosen]


def _rendering(recipe: BoardRecipe, name: str) -> Rendering:
    folder = recipe.pictures / name
    options: Options = {}
    kinds: list[tuple[str, int]] = [(making.CLEAN, 0)]
    if name == "native" and recipe.native is not None:
        maker, sources = "native", recipe.native.find(name)
        options = {"pixels": recipe.native.pixels, "whole": recipe.native.whole}
        kinds += product(native.TYPES, range(1, native.LEVELS + 1))
    elif name == "jpeg":
        maker, sources = "jpeg", _all(recipe.jpeg, name)
        kinds += [("jpeg", quality) for quality in making.QUALITIES]
    elif name == "flats" and recipe.flats is not None:
        maker, sources = "flats", recipe.flats.find(name)
        kinds = [("black copy", 0)]
    elif name == "forms" and recipe.forms is not None:
        maker, sources = "forms", recipe.forms.find(name)
        kinds += [(form, 1) for form in making.FORMS]
    else:
        maker, sources = "types", recipe.types[name].find(name)
        options = {"side": recipe.types[name].side or 0}
        kinds += product(ranked.names(), LEVELS[1:])
    jobs = [
        Job(
            maker, source, number, kind, level, making.file_of(folder, number, kind, level), options
        )
        for number, source in enumerate(sources)
        for kind, level in kinds
    ]
    if maker == "flats":
        jobs += making.flat_jobs(folder)
    about: dict[str, object] = {
        "schema": SCHEMA,
        "maker": maker,
        "options": options,
        "pictures": [list(kind) for kind in kinds],
        "sources": [[source.name, _sha256(source)] for source in sources],
    }
    return Rendering(name, folder, jobs, about)


def _all(sources: Sequence[Sources], name: str) -> list[Path]:
    return [path for one in sources for path in one.find(name)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
