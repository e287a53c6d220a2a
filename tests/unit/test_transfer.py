"""Labels that photographs take from a labelled data set, and pictures rendered for them."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from giqa import files
from giqa.errors import (
    GiqaError,
    NotFoundError,
    StorageFullError,
    TableInvalidError,
    UnreadableError,
    UnsupportedFormatError,
    UsageError,
)
from tests import iqa_trees
from tests.photos import photo
from training.__main__ import main
from training.data import kadid10k
from training.data.samples import Sample
from training.data.table import read_csv, read_table
from training.distortions import TYPES, apply, by_name
from training.model import backbones
from training.transfer import (
    calibrate,
    labels,
    manifest,
    mapping,
    match,
    rendering,
    sources,
)
from training.transfer.embed import Embedded, Embedder, _Pooled
from training.transfer.render import fit, render_one
from training.transfer.run import Options, rendered_size
from training.transfer.run import transfer as run

BACKBONE = "test_vit"
CONTENTS = [f"i{i:02}" for i in range(1, 6)]
FAST = ("gaussian_blur", "jpeg", "white_noise", "color_block")
"""Types that take a few milliseconds, with and without a seed."""
SIZE = (96, 64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(backbones.create(BACKBONE).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def embedder(weights: Path) -> Embedder:
    return Embedder(BACKBONE, weights)


def mos_of(reference: str, number: int, level: int) -> float:
    """The score of each picture of the made data set, on KADID-10k's 1..5; all are different."""
    return 1 + (CONTENTS.index(reference) * 125 + (number - 1) * 5 + level - 1) / 625 * 4


@pytest.fixture(scope="module")
def kadid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree like KADID-10k's: five originals; the distorted pictures are empty files."""
    root = tmp_path_factory.mktemp("kadid10k")
    (root / "images").mkdir()
    rows = ["dist_img,ref_img,dmos,var"]
    for i, content in enumerate(CONTENTS):
        name = content.upper()
        Image.fromarray(photo(160, 120, 100 + i)).save(root / "images" / f"{name}.png")
        for number in range(1, 26):
            for level in range(1, 6):
                coded = f"{name}_{number:02}_{level:02}.png"
                (root / "images" / coded).write_bytes(b"")
                rows.append(f"{coded},{name}.png,{mos_of(content, number, level)!r},0.1")
    (root / "dmos.csv").write_text("\n".join(rows) + "\n")
    return root


def write_photos(folder: Path, count: int = 3) -> Path:
    """Photographs that resemble the originals 0, 1, ... of the data set, but are not they."""
    (folder / "deep").mkdir(parents=True)
    for i in range(count):
        old = photo(160, 120, 100 + i).astype(np.float32)
        other = photo(160, 120, 500 + i).astype(np.float32)
        mixed = Image.fromarray((0.7 * old + 0.3 * other).astype(np.uint8))
        mixed = mixed if i != 1 else mixed.crop((20, 0, 110, 120))  # upright
        mixed.save(folder / ("deep" if i else ".") / f"photo {i}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


def options(photos: Path, root: Path, out: Path, **changes: object) -> Options:
    what = mapping.of_dataset("kadid10k").only(FAST)
    return replace(Options(photos, what, root, out, size=SIZE), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def transferred(
    photos: Path, kadid: Path, embedder: Embedder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Labels in row groups of eight, to have several shards."""
    out = tmp_path_factory.mktemp("transferred")
    with pytest.MonkeyPatch.context() as patch:
        small_groups(patch)
        run(options(photos, kadid, out), embedder)
    return out


def small_groups(patch: pytest.MonkeyPatch) -> None:
    write = labels.write
    patch.setattr(labels, "write", lambda path, found: write(path, found, 8))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# --- labels ---


def test_every_label_says_where_it_comes_from(
    transferred: Path, photos: Path, kadid: Path, embedder: Embedder, tmp_path: Path
) -> None:
    found = list(labels.all_of(transferred / manifest.LABELS))
    assert len(found) == 3 * len(FAST) * 5
    assert len({label.key for label in found}) == len(found)
    originals = [kadid / "images" / f"{name.upper()}.png" for name in CONTENTS]
    references = embedder(originals, tmp_path / "r", what="references")
    names = sorted({label.photo for label in found})
    assert names == ["deep/photo 1.png", "deep/photo 2.png", "photo 0.png"]
    ours = embedder([photos / name for name in names], tmp_path / "p", what="photos")
    cosines = ours.features @ references.features.T
    for label in found:
        file = photos / label.photo
        assert label.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        row = cosines[names.index(label.photo)]
        assert label.reference == CONTENTS[int(row.argmax())]
        assert label.similarity == pytest.approx(row.max(), abs=1e-6)
        kind = by_name(label.type)
        assert label.value == kind.levels[label.level - 1]
        assert label.psnr is None
        assert label.source_type == kadid10k.TYPES[kind.number - 1]
        assert label.dataset == "kadid10k"
        scaled = (mos_of(label.reference, kind.number, label.level) - 1) * 25
        assert label.mos == pytest.approx(scaled)
        upright = label.photo == "deep/photo 1.png"
        assert (label.width, label.height) == (SIZE[::-1] if upright else SIZE)
        assert label.seed == labels.seed_of(0, label.sha256)
    # Three photographs made from originals 0, 1, 2 resemble these.
    assert {label.photo[-5]: label.reference for label in found}["0"] == "i01"


def test_the_manifest_says_what_was_done(
    transferred: Path, photos: Path, embedder: Embedder
) -> None:
    found = manifest.read(transferred)
    raw = json.loads((transferred / manifest.MANIFEST).read_text())
    assert raw["schema"] == "giqa.transfer/1"
    assert found.photos == str(photos.resolve())
    assert (found.source.dataset, found.source.references) == ("kadid10k", 5)
    assert set(found.source.types) == set(FAST)
    assert (found.matching.backbone, found.matching.weights) == (BACKBONE, embedder.digest)
    assert found.counts.labelled == found.counts.photos == 3
    assert found.counts.labels == 60
    assert set(found.distortions) == {"source", "numpy", "scipy", "pillow"}


def test_what_gets_no_label_is_listed(kadid: Path, embedder: Embedder, tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos")
    (folder / "twin.png").write_bytes((folder / "photo 0.png").read_bytes())
    (folder / "empty.png").write_bytes(b"")
    Image.fromarray(photo(80, 80, 9)).save(folder / "small.png")
    first = run(options(folder, kadid, tmp_path / "all"), embedder)
    assert (first.counts.duplicates, first.counts.unreadable, first.counts.too_small) == (1, 1, 1)
    found = labels.all_of(tmp_path / "all" / manifest.LABELS)
    similarity = {label.photo: label.similarity for label in found}
    ordered = sorted(similarity, key=lambda name: similarity[name])
    floor = (similarity[ordered[0]] + similarity[ordered[1]]) / 2
    out, cache = tmp_path / "floor", tmp_path / "all" / "cache"
    second = run(options(folder, kadid, out, floor=floor, cache=cache), embedder)
    assert (second.counts.below_floor, second.counts.labelled) == (1, 2)
    assert {label.photo for label in labels.all_of(out / manifest.LABELS)} == set(ordered[1:])
    with (out / "left_out.csv").open(newline="") as file:
        rows = {row["photo"]: row for row in csv.DictReader(file)}
    assert {name: row["reason"] for name, row in rows.items()} == {
        ordered[0]: "below_floor",
        "twin.png": "duplicate",
        "empty.png": "unreadable",
        "small.png": "too_small",
    }
    assert f"{similarity[ordered[0]]:.4f}" in rows[ordered[0]]["detail"]
    assert "[empty]" in rows["empty.png"]["detail"]
    with pytest.raises(UsageError, match="no photograph is left"):
        run(options(folder, kadid, tmp_path / "none", floor=1.0, cache=cache), embedder)
    assert not (tmp_path / "none").exists()


def same_bytes(original: Path, to: Path) -> None:
    to.write_bytes(original.read_bytes())


def encoded_again(original: Path, to: Path) -> None:
    with Image.open(original) as opened:
        opened.save(to.with_suffix(".jpg"), quality=90)


@pytest.mark.parametrize("split", ["all", "train"])
@pytest.mark.parametrize("copy", [same_bytes, encoded_again])
def test_a_photograph_that_is_a_reference_is_refused(
    copy: Callable[[Path, Path], None],
    split: str,
    kadid: Path,
    embedder: Embedder,
    tmp_path: Path,
) -> None:
    # With a split, one of five is held out: copies of all are refused nevertheless.
    folder = write_photos(tmp_path / "photos")
    for name in CONTENTS:
        copy(kadid / "images" / f"{name.upper()}.png", folder / f"copy {name}.png")
    what = options(folder, kadid, tmp_path / "out", split=split)
    with pytest.raises(UsageError) as caught:
        run(what, embedder)
    for name in CONTENTS:
        assert f"copy {name}" in caught.value.message
        assert f"is '{name.upper()}.png'" in caught.value.message
    assert "--skip-leaks" in caught.value.remedy
    assert not (tmp_path / "out" / manifest.MANIFEST).exists()
    found = run(replace(what, skip_leaks=True), embedder)
    assert (found.counts.leaks, found.counts.labelled) == (5, 3)
    assert found.source.references == (5 if split == "all" else 4)
    listed = (tmp_path / "out" / "left_out.csv").read_text()
    assert listed.count(",leak,") == 5
    assert not any("copy" in x.photo for x in labels.all_of(tmp_path / "out" / manifest.LABELS))


def embedded(features: np.ndarray, thumbnails: np.ndarray, names: Sequence[str]) -> Embedded:
    return Embedded(features.astype(np.float32), thumbnails, [*names], np.ones((len(names), 2)))


@pytest.mark.parametrize(
    ("cosine", "apart", "leak"),
    [(1, 4, True), (1, 5, False), (0.99, 4, False), (0.91, 1, True), (0.89, 0, False)],
)
def test_both_likenesses_make_a_leak(cosine: float, apart: int, leak: bool) -> None:
    grey = np.full((2, 32, 32), 100, np.uint8)
    references = embedded(np.eye(2, 3), grey, ["r0", "r1"])
    turned = np.array([[0, cosine, (1 - cosine**2) ** 0.5]])
    found = match.leaks(embedded(turned, grey[:1] + apart, ["a"]), references)
    assert [(one.photo, one.reference) for one in found] == ([(0, 1)] if leak else [])


def test_nearest_is_what_a_loop_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(match, "_BLOCK", 7)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 8)), rng.normal(size=(6, 8))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    found = match.nearest(a.astype(np.float32), b.astype(np.float32))
    for i, row in enumerate(a):
        cosines = [float(np.dot(row, other)) for other in b]
        assert found.reference[i] == cosines.index(max(cosines))
        assert found.similarity[i] == pytest.approx(max(cosines), abs=1e-6)


def test_missing_features_are_told(weights: Path, tmp_path: Path) -> None:
    good = np.eye(3, dtype=np.float32)
    with pytest.raises(UsageError, match="photograph: 1 have no features of length 1.*row 2"):
        match.nearest(good * [[1], [1], [0]], good)
    with pytest.raises(UsageError, match="no reference"):
        match.nearest(good, good[:0])
    with pytest.raises(UsageError, match="one backbone for both"):
        match.nearest(good, np.eye(2, dtype=np.float32))
    with pytest.raises(UsageError, match="every pair is compared"):
        match.nearest(
            np.broadcast_to(good[:1], (200_000, 3)), np.broadcast_to(good[:1], (10**5, 3))
        )
    with pytest.raises(NotFoundError, match="no such file of weights"):
        Embedder(BACKBONE, tmp_path / "nowhere.safetensors")
    state = load_file(weights)
    del state["norm.weight"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(UsageError, match="norm.weight"):
        Embedder(BACKBONE, tmp_path / "less.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(UsageError, match="text.safetensors"):
        Embedder(BACKBONE, tmp_path / "text.safetensors")
    with pytest.raises(UsageError, match="timm"):
        Embedder("no_such_model", weights)


def test_features_are_what_timm_gives(
    weights: Path, photos: Path, embedder: Embedder, tmp_path: Path
) -> None:
    paths = [photos / "photo 0.png", photos / "deep" / "photo 1.png"]
    found = embedder(paths, tmp_path / "token", what="photos")
    model = backbones.create(BACKBONE).eval()
    model.load_state_dict(load_file(weights))
    for i, path in enumerate(paths):
        with Image.open(path) as opened:
            view = opened.convert("RGB").resize((160, 160), Image.Resampling.BILINEAR)
        with torch.no_grad():
            pixels = torch.from_numpy(np.asarray(view).copy()).float() / 127.5 - 1
            tokens = model.forward_features(pixels.permute(2, 0, 1)[None])[0].numpy()
            mean = _Pooled(model, "mean").eval()(
                torch.from_numpy(np.asarray(view).copy())[None, None]
            )
        assert found.features[i] @ (tokens[0] / np.linalg.norm(tokens[0])) > 1 - 1e-5
        assert np.linalg.norm(found.features[i]) == pytest.approx(1, abs=1e-6)
        average = tokens[1:].mean(0)
        assert mean[0].numpy() @ (average / np.linalg.norm(average)) > 1 - 1e-5
    assert found.sizes.tolist() == [[160, 120], [90, 120]]
    with pytest.raises(UsageError, match="holds features of other pictures"):
        embedder(paths[:1], tmp_path / "token", what="photos")


def test_a_cnn_is_averaged_over_positions() -> None:
    model = backbones.create("test_resnet", num_classes=0).eval()
    views = torch.from_numpy(photo(64, 64))[None, None]
    with torch.no_grad():
        found = _Pooled(model, "token").eval()(views)[0]
        pixels = _Pooled(model, "token").normalize(views)
        wanted = model.forward_features(pixels)[0].flatten(1).mean(1)
    torch.testing.assert_close(found, wanted / wanted.norm())


def test_labels_are_means_and_complete() -> None:
    sample = Sample(Path("a"), 10, "jpeg", "i01", 1)
    assert labels.scores([sample, replace(sample, mos=20)]) == {("i01", "jpeg", 1): 15}
    target = mapping.Target("jpeg", "jpeg", 2, value=36)
    with pytest.raises(TableInvalidError, match="no label of i01 jpeg 2"):
        labels.check_complete({("i01", "jpeg", 1): 15}, [target])
    for gap in ({"level": None}, {"reference": ""}, {"subset": ""}):
        with pytest.raises(TableInvalidError, match="no reference, type or level: a"):
            labels.scores([replace(sample, **gap)])


def test_wrong_data_sets(kadid: Path, photos: Path, embedder: Embedder, tmp_path: Path) -> None:
    what = mapping.of_dataset("kadid10k")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="empty: no original of 'i01', 'i02'"):
        sources.read(what, kadid, "all", None, tmp_path / "empty")
    with pytest.raises(UsageError, match="--round"):
        sources.read(what, kadid, "all", 2, None)
    with pytest.raises(NotFoundError, match="dmos.csv is missing"):
        sources.read(what, tmp_path / "empty", "all", None, None)
    # The tree for tests of loaders has levels 1 and 5 only.
    (tmp_path / "tid").mkdir()
    iqa_trees.small("tid2013", tmp_path / "tid").write()
    with pytest.raises(TableInvalidError, match="no label of i01 gaussian noise 2"):
        sources.read(mapping.of_dataset("tid2013"), tmp_path / "tid", "all", None, None)
    (tmp_path / "broken").mkdir()
    for name in CONTENTS:
        (tmp_path / "broken" / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(UnsupportedFormatError, match="i01.png"):
        run(options(photos, kadid, tmp_path / "o", references=tmp_path / "broken"), embedder)
    for wrong in ({"floor": 1.5}, {"seed": -1}, {"size": (512, 8)}):
        with pytest.raises(UsageError):
            run(options(photos, kadid, tmp_path / "o", **wrong), embedder)


# --- mappings ---


def test_kadid_is_mapped_one_to_one() -> None:
    found = mapping.of_dataset("kadid10k").targets
    assert [(t.type, t.value) for t in found] == [(k.name, v) for k in TYPES for v in k.levels]


def test_tid2013_is_mapped_by_psnr() -> None:
    from training.data import tid2013

    found = mapping.of_dataset("tid2013")
    assert {t.source for t in found.targets} <= set(tid2013.TYPES)
    assert [t.psnr for t in found.targets[:5]] == [33, 30, 27, 24, 21]
    assert len(found.targets) == 45


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('type = "jpeg"\nvalue = [50, 40, 30, 20, 0]', "0.0 is not within 1..100"),
        ('type = "jpeg"\nvalue = [50, 40, 30, 20]', "Field required"),
        ('type = "smear"\nvalue = "psnr"', "no such distortion"),
        ('type = "jitter"\nvalue = "psnr"', "not searched by PSNR"),
        ('type = "jpeg"\nvalue = "psnr"', "needs the levels"),
        ('type = "jpeg"\nvalues = [1, 2, 3, 4, 5]', "Extra inputs"),
        ("type = ", "Invalid value"),
    ],
)
def test_wrong_mappings(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(f'dataset = "csiq"\n[types.a]\n{text}\n')
    with pytest.raises(UsageError, match=told):
        mapping.read(path)


def test_psnr_is_found_or_refused() -> None:
    image = photo(64, 48, 3)
    for name, target in (("gaussian_blur", 27), ("jpeg", 27), ("white_noise", 21)):
        value, result = calibrate.find(image, by_name(name), target, 0)
        error = np.square(image.astype(float) - result).mean()
        assert 10 * np.log10(255**2 / error) == pytest.approx(target, abs=1.0)
        assert np.array_equal(result, apply(image, name, value, 0))
    flat = np.full((48, 64, 3), 90, np.uint8)
    with pytest.raises(UsageError, match="gaussian_blur: no value brings this picture near 21 dB"):
        calibrate.find(flat, by_name("gaussian_blur"), 21, 0)


# --- rendering ---


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
    workers: int, transferred: Path, tmp_path: Path, checkout: Path
) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    rendering.render_all(transferred, straight)
    (program := tmp_path / "killed.py").write_text(KILLED)
    arguments = [transferred, "--out", broken, "--workers", workers]
    child = subprocess.run(
        [sys.executable, program, *map(str, arguments)],
        capture_output=True,
        timeout=120,
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
    assert snapshot(broken) == snapshot(straight)


def test_a_full_disk_keeps_finished_groups(
    transferred: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, straight = tmp_path / "out", tmp_path / "straight"
    rendering.render_all(transferred, straight)
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
    assert snapshot(out / "images").items() <= snapshot(straight / "images").items()
    monkeypatch.undo()
    rendering.render_all(transferred, out)
    assert snapshot(out) == snapshot(straight)


def test_one_folder_one_table(transferred: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rendering.render_all(transferred, out)
    before = snapshot(out)
    other = next(labels.all_of(transferred / manifest.LABELS))
    (tmp_path / "other").mkdir()
    rewrite(transferred, tmp_path / "other", [other])
    with pytest.raises(UsageError, match="other labels or versions"):
        rendering.render_all(tmp_path / "other", out)
    rendering.render_all(transferred, out)
    assert snapshot(out) == before


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


# --- commands ---


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
