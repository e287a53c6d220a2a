"""Labels that photographs take from a labelled data set."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from giqa.errors import NotFoundError, TableInvalidError, UnsupportedFormatError, UsageError
from tests import iqa_trees
from tests.photos import photo
from tests.unit.transfer.made import BACKBONE, CONTENTS, FAST, SIZE, mos_of, options, write_photos
from training.data import kadid10k
from training.data.samples import Sample
from training.distortions import by_name
from training.model import backbones
from training.transfer import labels, manifest, mapping, match, sources
from training.transfer.embed import Embedded, Embedder, _Pooled
from training.transfer.run import transfer as run


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
