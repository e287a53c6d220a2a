"""Runs that are killed while they write maps and pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from tests.report.pages import pictures

# Children of one process that has imported everything: a kill costs no start.
FORKED = """
import os, random, re, signal, sys, time
from collections.abc import Callable
from pathlib import Path

folder, kills = Path(sys.argv[1]), int(sys.argv[2])


def contents() -> dict[str, bytes]:
    # Without the time that pages tell.
    paths = [path for path in folder.rglob("[!.]*") if path.is_file()]
    return {str(p): re.sub(rb"[-\\d]{10} [:\\d]{5} UTC", b"", p.read_bytes()) for p in paths}


def begin(run: Callable[[float], None], what: float) -> int:
    child = os.fork()
    if child == 0:
        try:
            run(what)
            os._exit(0)
        except BaseException as e:
            print(repr(e), file=sys.stderr, flush=True)
            os._exit(1)
    return child


def whole(run: Callable[[float], None], what: float) -> tuple[dict[str, bytes], float]:
    began = time.monotonic()
    _, status = os.waitpid(begin(run, what), 0)
    assert status == 0, status
    return contents(), time.monotonic() - began


def kill_at_random_moments(run: Callable[[float], None]) -> None:
    new, _ = whole(run, 1.0)
    old, took = whole(run, 0.0)
    assert set(old) == set(new)
    assert sum(old[name] != new[name] for name in new) > len(new) / 2
    ended = set()
    for number in range(kills):
        child = begin(run, 1.0)
        # Each in its own part of a run; a machine may be slower now than it was.
        time.sleep(took * random.uniform(number, number + 1) / kills)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = contents()
        assert set(found) == set(old)
        for name, data in found.items():
            assert data in (old[name], new[name]), name
        ended.add(sum(found[name] == new[name] for name in new))
        if number % 4 == 3:
            assert whole(run, 0.0)[0] == old
    print("kills after so many new files:", sorted(ended))
    assert len(ended) > 1 or kills < 8
    assert whole(run, 1.0)[0] == new
    for name in new:
        (folder / name).unlink()
    child = begin(run, 1.0)
    time.sleep(took / 2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert all(data == new[name] for name, data in contents().items())
    assert whole(run, 1.0)[0] == new
"""

WRITERS = """
from giqa.report import ImageReport, MapFolder
from tests.report.pages import ABOUT, ok


def run(what: float) -> None:
    maps = MapFolder(folder / "maps", thumbnails=True)
    with ImageReport(folder / "r.html", **ABOUT) as page:
        for path in sys.argv[3:]:
            row = ok(path, 20 + 60 * what)
            maps.write(row)
            page.write(row)


kill_at_random_moments(run)
"""

COMMAND = """
from giqa.cli import group


def run(what: float) -> None:
    names = [str(path) for path in sorted((folder.parent / ("new" if what else "old")).iterdir())]
    outputs = [f"--{kind}={folder}/r.{kind}" for kind in ("report", "label", "json", "csv")]
    group(["score", *names, f"--map={folder}/maps", *outputs], standalone_mode=False)


kill_at_random_moments(run)
"""


def forked(script: str, kills: int, folder: Path, photos: list[Path]) -> str:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FORKED + script, folder, str(kills), *photos],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_killed_writers_leave_whole_files(tmp_path: Path) -> None:
    """Old or new, whatever the moment; the next run finds nothing in its way."""
    said = forked(WRITERS, 8, tmp_path / "out", pictures(tmp_path, 4))
    assert said.startswith("kills after so many new files")


@pytest.mark.slow
def test_a_killed_command_leaves_whole_files(tmp_path: Path) -> None:
    for name, turned in (("old", False), ("new", True)):
        (tmp_path / name).mkdir()
        for path in pictures(tmp_path / name, 3):
            if turned:
                with Image.open(path) as picture:
                    ImageOps.mirror(picture).save(path)
    said = forked(COMMAND, 4, tmp_path / "out", [])
    assert "kills after so many new files" in said
