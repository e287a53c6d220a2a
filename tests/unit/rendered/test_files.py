"""Groups of rendered pictures as files: killed, continued, on a full disk."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from giqa import files
from giqa.errors import NotFoundError, StorageFullError, UsageError
from tests.photos import photo
from tests.unit.rendered.test_groups import SMALL, plan_of, recipe_of
from training.__main__ import main
from training.ranking import read_rendered
from training.rendered import groups, writing
from training.rendered import recipe as recipes


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_files_and_table(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = writing.render(recipe_of(photos), out)
    assert done.pictures == 20
    with (out / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == writing.COLUMNS
    plan = plan_of(photos)
    for number in range(4):
        found = groups.group(plan, number)
        mine = rows[5 * number : 5 * number + 5]
        for row, item in zip(mine, found.pictures, strict=True):
            with Image.open(out / row["path"]) as image:
                np.testing.assert_array_equal(np.asarray(image), item.pixels)
            assert row["reference"] == found.reference
            if item.kind.startswith("nothing"):
                assert (row["group"], row["loss"]) == ("", "")
                assert float(row["mos"]) == pytest.approx(100 * (1 - item.loss), abs=1e-2)
            else:
                assert float(row["loss"]) == pytest.approx(item.loss, abs=1e-5)
                assert row["mos"] == "70.0"
    samples = read_rendered(out / "table.csv")  # what `fit` takes
    assert len(samples) == 20
    assert {s.reference for s in samples} <= {"", "0", "1", "2", "3"}


def test_more_groups_go_on_where_fewer_ended(photos: Path, tmp_path: Path) -> None:
    writing.render(recipe_of(photos, groups=2), tmp_path / "a")
    writing.render(recipe_of(photos, groups=3), tmp_path / "a")
    writing.render(recipe_of(photos, groups=3), tmp_path / "b", workers=2)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


KILLED = """
import os, signal, sys
from training.__main__ import main

def hook(event, arguments):
    if event == "os.rename" and sys.argv[-1] in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    sys.addaudithook(hook)
    main(["rendered", *sys.argv[1:-1]])
"""
"""`rendered` that is killed with a file written and not yet renamed."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")
@pytest.mark.parametrize("at", ["000002-3.png", "000001.json", "rendered.json", "table.csv"])
def test_kill_9_changes_nothing(at: str, photos: Path, tmp_path: Path, checkout: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    (tmp_path / "r.toml").write_text(
        f"groups = 4\n[[sources]]\nphotographs = '{photos}'\nmos = 70\n[kinds]\n"
        + "".join(f"{kind} = {share}\n" for kind, share in SMALL.items())
    )
    recipe = recipes.read(tmp_path / "r.toml")
    writing.render(recipe, straight)
    (program := tmp_path / "killed.py").write_text(KILLED)
    child = subprocess.run(
        [sys.executable, program, tmp_path / "r.toml", "--out", broken, at],
        capture_output=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)},
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert list(broken.rglob(".*.tmp"))
    writing.render(recipe, broken)
    assert snapshot(broken) == snapshot(straight)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")
def test_a_killed_parent_takes_its_workers_along(
    photos: Path, tmp_path: Path, checkout: Path
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(f"groups = 5000\n[[sources]]\nphotographs = '{photos}'\n")
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-m", "training", "rendered", recipe, "--out", out, "--workers", "2"],
        cwd=checkout,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)},
    )
    deadline = time.monotonic() + 300
    while not list(out.glob("parts/*/*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    child.kill()
    child.wait()
    time.sleep(0.5)
    before = snapshot(out)
    assert before
    time.sleep(1.5)
    assert snapshot(out) == before


def test_a_full_disk_keeps_finished_groups(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, straight = tmp_path / "out", tmp_path / "straight"
    writing.render(recipe_of(photos), straight)
    write = files.write

    def full(path: Path, data: bytes, **options: str) -> None:
        if path.name == "000002-1.png":
            with files.storage(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data, **options)

    monkeypatch.setattr(writing.files, "write", full)
    with pytest.raises(StorageFullError, match="000002-1.png: no space left"):
        writing.render(recipe_of(photos), out)
    monkeypatch.undo()
    writing.render(recipe_of(photos), out)
    assert snapshot(out) == snapshot(straight)


def copied(photos: Path, to: Path) -> Path:
    to.mkdir()
    for path in photos.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_a_source_that_vanished_is_named(photos: Path, tmp_path: Path) -> None:
    folder, out = copied(photos, tmp_path / "photos"), tmp_path / "out"
    writing.render(recipe_of(folder, groups=2), out)
    plan = plan_of(folder)
    (folder / "1.png").rename(tmp_path / "away.png")
    with pytest.raises(NotFoundError, match=r"1\.png: was a source when rendering began"):
        writing.render(recipe_of(folder, groups=4), out)
    with pytest.raises(NotFoundError, match=r"1\.png"):
        list(groups.groups(plan))
    (tmp_path / "away.png").rename(folder / "1.png")
    writing.render(recipe_of(folder, groups=4), out)
    Image.fromarray(photo(120, 100, 9)).save(folder / "9.png")
    with pytest.raises(UsageError, match="came or changed"):
        writing.render(recipe_of(folder, groups=5), out)


def test_one_folder_one_recipe(photos: Path, tmp_path: Path) -> None:
    writing.render(recipe_of(photos, groups=1), tmp_path / "out")
    with pytest.raises(UsageError, match="another recipe"):
        writing.render(recipe_of(photos, groups=1, seed=2), tmp_path / "out")


def test_a_broken_photograph_costs_its_groups_only(photos: Path, tmp_path: Path) -> None:
    folder = copied(photos, tmp_path / "photos")
    data = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(data[: len(data) // 2])  # its header says nothing of it
    (tmp_path / "r.toml").write_text(
        f"groups = 3\n[[sources]]\nphotographs = '{folder}'\n[kinds]\n"
        + "".join(f"{kind} = {share}\n" for kind, share in SMALL.items())
    )
    result = CliRunner().invoke(
        main, ["rendered", str(tmp_path / "r.toml"), "--out", str(tmp_path / "out")]
    )
    assert result.exception is not None
    assert "1.png" in result.output
    assert "1 groups could not be made" in result.output
    assert len((tmp_path / "out" / "table.csv").read_text().splitlines()) == 1 + 10


def test_a_dry_run_announces_and_writes_nothing(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f"groups = 40\n[[sources]]\nphotographs = '{photos}'\n")
    result = CliRunner().invoke(
        main, ["rendered", str(tmp_path / "r.toml"), "--out", str(tmp_path / "out"), "--dry-run"]
    )
    assert result.exit_code == 0, result.output
    assert "3 photographs in 1 sources; left out: 0" in result.output
    assert "200 pictures to render: about" in result.output
    assert "GiB are free" in result.output
    assert not (tmp_path / "out").exists()
