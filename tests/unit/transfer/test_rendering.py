"""Pictures rendered for labels, the tables of them, and the commands."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from giqa import files
from giqa.errors import (
    GiqaError,
    NotFoundError,
    StorageFullError,
    TableInvalidError,
    UnreadableError,
    UsageError,
)
from tests.unit.transfer.made import BACKBONE
from training.__main__ import main
from training.data.table import read_csv, read_table
from training.distortions import apply
from training.transfer import labels, manifest, rendering
from training.transfer.render import fit, render_one
from training.transfer.run import rendered_size


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def straight(transferred: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a rendering that nothing disturbs leaves."""
    out = tmp_path_factory.mktemp("straight")
    rendering.render_all(transferred, out)
    return snapshot(out)


def test_pictures_train_a_recipe(transferred: Path, photos: Path, tmp_path: Path) -> None:
    told = []
    done = rendering.render_all(transferred, tmp_path / "out", tell=told.append)
    assert (done.pictures, done.failed) == (60, [])
    assert told[0].startswith("60 pictures to render: about")
    assert told[0].endswith("(by 4 pictures)")
    wanted = list(labels.all_of(transferred / manifest.LABELS))
    assert done.table is not None
    for sample, label in zip(read_table(done.table), wanted, strict=True):
        assert (sample.mos, sample.subset) == (pytest.approx(label.mos), label.type)
        assert sample.reference == label.photo
        with Image.open(sample.path) as opened:
            pixels = np.asarray(opened)
        assert np.array_equal(pixels, render_one(label, photos))
        with Image.open(photos / label.photo) as opened:
            plain = np.asarray(fit(opened.convert("RGB"), label.width, label.height))
        assert label.value is not None
        assert np.array_equal(pixels, apply(plain, label.type, label.value, label.seed))


KILLED = """
import os, signal, sys
from training.__main__ import main
from training.transfer import rendering

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def hook(event, arguments):
    if event == "os.rename" and "000003.json" in str(arguments[0]):
        die()

if __name__ == "__main__":
    sys.addaudithook(hook)
    if "2" in sys.argv:
        rendering.Progress.update = die  # a worker has finished its first group
    main(["render", *sys.argv[1:]])
"""
"""`render` that is killed before a group is said to be done, or while workers write."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_changes_nothing(
    workers: int, transferred: Path, straight: dict[str, bytes], tmp_path: Path, checkout: Path
) -> None:
    broken = tmp_path / "broken"
    (program := tmp_path / "killed.py").write_text(KILLED)
    arguments = [transferred, "--out", broken, "--workers", workers]
    child = subprocess.run(
        [sys.executable, program, *map(str, arguments)],
        capture_output=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)},
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    done = len(list((broken / "images").glob("[!.]*.json")))
    if workers == 1:
        assert done == 3
        assert [p.name[:12] for p in broken.glob("images/.*.tmp")] == [".000003.json"]
    else:  # workers may still finish what they had begun
        assert 0 < done < 8
    (broken / "images" / "000007").mkdir(exist_ok=True)
    (broken / "images" / "000007" / ".half.png.1.tmp").write_bytes(b"half")
    rendering.render_all(transferred, broken)
    assert snapshot(broken) == straight


def test_a_full_disk_keeps_finished_groups(
    transferred: Path,
    straight: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    write, written = files.write, []

    def full(path: Path, data: bytes, **other: str) -> None:
        written.append(path)
        if path.suffix == ".png" and path.parent.name == "000003":
            with files.storage(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data, **other)

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(StorageFullError, match="no space left"):
        rendering.render_all(transferred, out)
    assert len(list((out / "images").glob("*.json"))) == 3
    images = {f"images/{name}": data for name, data in snapshot(out / "images").items()}
    assert images.items() <= straight.items()
    monkeypatch.undo()
    rendering.render_all(transferred, out)
    assert snapshot(out) == straight


def test_one_folder_one_table(
    transferred: Path, straight: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rendering.render_all(transferred, out)
    other = next(labels.all_of(transferred / manifest.LABELS))
    (tmp_path / "other").mkdir()
    rewrite(transferred, tmp_path / "other", [other])
    with pytest.raises(UsageError, match="other labels or versions"):
        rendering.render_all(tmp_path / "other", out)
    rendering.render_all(transferred, out)
    assert snapshot(out) == straight


def test_a_dry_run_writes_nothing(transferred: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    result = CliRunner().invoke(main, ["render", str(transferred), "--out", str(out), "--dry-run"])
    assert result.exit_code == 0
    assert "60 pictures to render" in result.stderr
    assert not out.parent.exists()


def test_a_psnr_that_cannot_be_reached_costs_one_picture(transferred: Path, tmp_path: Path) -> None:
    first = next(labels.all_of(transferred / manifest.LABELS))
    by_psnr = replace(first, type="white_noise", value=None)
    rewrite(transferred, tmp_path, [
        replace(by_psnr, key="a", psnr=27.0), replace(by_psnr, key="b", psnr=1.0),
    ])  # fmt: skip
    result = CliRunner().invoke(
        main, ["render", str(tmp_path), "--out", str(tmp_path / "out")], standalone_mode=False
    )
    assert type(result.exception).__name__ == "Exit"
    assert f"b: [usage] {first.photo}: white_noise: no value" in result.stderr
    (made,) = read_csv(tmp_path / "out" / "table.csv", ("path",))
    assert str(made["path"]).endswith("/a.png")


def rewrite(old: Path, new: Path, found: list[labels.Label]) -> None:
    """A folder of other labels, with a manifest that is of them."""
    labels.write(new / manifest.LABELS, found)
    about = manifest.read(old)
    digest = manifest.digest_of(new / manifest.LABELS)
    manifest.write(new, about.model_copy(update={"labels": digest}))


def test_wrong_tables_of_labels(transferred: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(NotFoundError, match="transfer` first"):
        rendering.render_all(tmp_path, out)
    path = tmp_path / manifest.LABELS
    (tmp_path / manifest.MANIFEST).write_bytes((transferred / manifest.MANIFEST).read_bytes())
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(TableInvalidError, match="not the table that manifest.json is of"):
        rendering.render_all(tmp_path, out)
    (tmp_path / manifest.MANIFEST).write_text('{"schema": "giqa.transfer/2"}')
    with pytest.raises(TableInvalidError, match="no manifest of giqa.transfer/1"):
        rendering.render_all(tmp_path, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        ({"type": "jpeg", "value": 0.0}, UsageError, "0.0 is not within 1..100"),
        ({"type": "jpeg", "value": 20.5}, UsageError, "20.5 is not a whole number"),
        ({"type": "smear"}, UsageError, "no such distortion"),
        ({"photo": "gone.png"}, NotFoundError, "gone.png"),
        ({"sha256": "0" * 64}, TableInvalidError, "another file than was labelled"),
        ({"photo": "deep"}, UnreadableError, "is a directory"),
    ],
)
def test_wrong_labels(
    change: dict[str, object],
    kind: type[GiqaError],
    told: str,
    transferred: Path,
    tmp_path: Path,
) -> None:
    first = next(labels.all_of(transferred / manifest.LABELS))
    rewrite(transferred, tmp_path, [replace(first, **change)])  # type: ignore[arg-type]
    with pytest.raises(kind, match=told):
        rendering.render_all(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out" / "images" / "000000.json").exists()


@pytest.mark.parametrize(
    ("own", "size", "wanted"),
    [
        ((640, 480), (512, 384), (512, 384)),
        ((480, 640), (512, 384), (384, 512)),
        ((640, 383), (512, 384), None),
        ((500, 400), None, (500, 400)),
        ((500, 31), None, None),
    ],
)
def test_sizes(own: tuple[int, int], size: tuple[int, int] | None, wanted: object) -> None:
    assert rendered_size(own, size) == wanted


def test_commands(photos: Path, kadid: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [
        "transfer", str(photos), "--root", str(kadid), "--weights", str(weights),
        "--backbone", BACKBONE, "--types", "jpeg, color_block", "--size", "96x64",
        "--split", "train", "--seed", "3", "--out", str(out),
    ]  # fmt: skip
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}\n"
    assert "30 labels for 3 of 3 photographs" in result.stderr
    found = manifest.read(out)
    assert (found.source.split, found.source.references, found.seed) == ("train", 4, 3)
    result = CliRunner().invoke(main, ["render", str(out), "--out", str(tmp_path / "pictures")])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'pictures' / 'table.csv'}\n"
    for command in ("transfer", "render"):
        assert "Example: python -m training" in CliRunner().invoke(main, [command, "--help"]).output
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 0, again.output  # features are there already
    assert manifest.read(out) == found
    for wrong in (["--size", "big"], ["--types", "smear"], ["--dataset", "csiq"]):
        result = CliRunner().invoke(main, arguments + wrong)
        assert isinstance(result.exception, UsageError)
