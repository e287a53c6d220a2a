"""What `python -m training board` reads and renders, and faults of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from giqa.errors import NotFoundError, StorageFullError, TableInvalidError, UsageError
from tests.photos import photo
from tests.unit.board.made import RECIPE, read, run
from training.board import pictures
from training.board import recipe as recipes
from training.board.native import TYPES
from training.board.render import ABOUT, renderings


def test_paths_are_relative_to_the_recipe_and_faults_are_told(folder: Path) -> None:
    what = read(folder)
    assert what.cache == folder / "cache"
    assert what.weights.global_branch == folder / "biq" / "global_branch.safetensors"
    assert what.jpeg[0].root == folder / "photos"
    assert what.names == [
        "validation", "left-out", "people", "native", "steps", "jpeg", "flats", "small", "forms",
    ]  # fmt: skip
    for old, new, told in (
        ("amp = false", "ampere = false", "ampere"),
        ("[types.small]", "[types.people]", "two sets are called"),
        (r"'(\d)-'", r"'\d-'", "group"),
        ("threads = 1", "threads =", "not TOML"),
    ):
        (folder / "board.toml").write_text(RECIPE.replace(old, new))
        with pytest.raises(UsageError, match=told):
            read(folder)


def test_the_example_recipe_is_one(checkout: Path) -> None:
    what = recipes.read(checkout / "training" / "recipes" / "board.toml")
    assert what.native is not None
    assert what.native.count == len(what.native.files) >= 40
    assert {"h265", "underwater", "flive", "kodak"} <= set(what.names)
    assert what.data is not None
    assert what.data.dataset == "biq2021"


def test_what_is_not_there_is_named_with_what_to_do(folder: Path) -> None:
    what = read(folder, data=None)
    (folder / "photos" / "1-2.png").unlink()
    with pytest.raises(TableInvalidError, match=r"people.*no such image file.*1-2\.png") as moved:
        pictures.collect(what, ["people"])
    assert "root" in moved.value.remedy
    (folder / "tables" / "people.csv").unlink()
    with pytest.raises(NotFoundError, match="set people: no table") as gone:
        pictures.collect(what, ["people"])
    assert "--sets" in gone.value.remedy
    (folder / "steps" / "Quiz_SRC01.png").unlink()
    with pytest.raises(NotFoundError, match="set steps: 5 pictures"):
        pictures.collect(what, ["steps"])
    (folder / "photos" / "1-0.png").unlink()
    for name in ("native", "small", "jpeg", "forms"):
        with pytest.raises(NotFoundError, match=f"set {name}: 1 files .* not 2"):
            renderings(what, [name])
    assert renderings(what, ["flats"])
    with pytest.raises(NotFoundError, match="set validation"):
        pictures.labelled(read(folder))


def test_a_short_table_is_no_whole_set(folder: Path) -> None:
    table = folder / "tables" / "people.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-2]) + "\n")
    with pytest.raises(NotFoundError, match="6 rows, not 8"):
        pictures.collect(read(folder), ["people"])


def test_pictures_are_rendered_once_and_refused_from_other_sources(
    folder: Path, rendered: Path
) -> None:
    with pytest.raises(NotFoundError, match="62 of 62 pictures are not rendered"):
        pictures.collect(read(folder), ["native"])
    shutil.copytree(rendered, folder, dirs_exist_ok=True)
    what = read(folder)
    found = pictures.collect(what, what.rendered)
    counts = {name: len(one.pictures) for name, one in found.items()}
    assert counts == {
        "native": 2 * (1 + 3 * len(TYPES)), "jpeg": 14, "flats": 28, "small": 2 * 70, "forms": 10,
    }  # fmt: skip
    assert all(p.path.is_file() for one in found.values() for p in one.pictures)
    with Image.open(found["native"].pictures[0].path) as whole:
        assert whole.size == (120, 90)
    with Image.open(found["native"].pictures[31].path) as middle:
        assert 7800 < middle.width * middle.height <= 8000
    with Image.open(found["small"].pictures[0].path) as brought_down:
        assert brought_down.size == (64, 48)
    again = run(folder / "board.toml", "render", "--workers", 1)
    assert "native: 62 pictures, 0 of them" in again.output
    Image.fromarray(photo(120, 90, 9)).save(folder / "photos" / "0-0.png")
    refused = run(folder / "board.toml", "render", "--sets", "jpeg")
    assert isinstance(refused.exception, UsageError)
    assert "made from other sources" in str(refused.exception)
    with pytest.raises(UsageError, match="made from other sources"):
        pictures.collect(what, ["jpeg"])


def test_a_killed_rendering_goes_on(folder: Path, rendered: Path) -> None:
    command = [sys.executable, "-m", "training", "board", str(folder / "board.toml"), "render",
               "--sets", "native", "--workers", "2"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    out = folder / "pictures" / "native"
    while process.poll() is None and not list(out.glob("*.png")):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # its workers end with it
    (out / ".00-clean.png.7.tmp").write_bytes(b"half a picture")
    (one,) = renderings(read(folder), ["native"])
    there = {p.name: p.stat().st_mtime_ns for p in out.glob("*.png")}
    one.run(1)
    assert not one.left()
    assert not list(out.glob(".*.tmp"))
    assert all((out / name).stat().st_mtime_ns == at for name, at in there.items())
    (fresh,) = renderings(read(rendered), ["native"])
    for job, other in zip(one.jobs, fresh.jobs, strict=True):
        assert job.out.read_bytes() == other.out.read_bytes()


def test_a_full_disk_is_told_and_finished_pictures_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = renderings(read(folder), ["jpeg"])
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("giqa.files.os.fsync", full)
    with pytest.raises(StorageFullError):
        one.run(1)
    assert len(one.left()) == 14 - 3  # the first call was for render.json
    assert (one.folder / ABOUT).is_file()
    monkeypatch.undo()
    assert one.run(1) == 11
