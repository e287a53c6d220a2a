"""`python -m training board`, on made data."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageFilter
from scipy.stats import spearmanr

from giqa.bundle import load_bundle
from giqa.contract import FUSION
from giqa.errors import (
    BundleInvalidError,
    CorruptError,
    GiqaError,
    NotFoundError,
    StorageFullError,
    TableInvalidError,
    UsageError,
)
from giqa.manifest import Manifest, Tensors
from giqa.results import ImageResult
from tests import small
from tests.onnx_graphs import graph
from tests.photos import photo
from training import checkpoint
from training.__main__ import main
from training.board import parts, pictures, plot, probes, scores, tables, tiles
from training.board import recipe as recipes
from training.board.measure import Wanted, measure
from training.board.measures import Draw
from training.board.native import TYPES
from training.board.parts import CELLS, TERM, WHOLE
from training.board.recipe import BoardRecipe
from training.board.render import ABOUT, renderings
from training.board.results import Board
from training.board.scorers import Model
from training.evaluation.torch_scorer import TorchScorer
from training.model import Giqa, Preset, create
from training.model.fusion import MapHead

DRAW = Draw(resamples=20)
RECIPE = """
cache = "cache"
pictures = "pictures"
threads = 1
amp = false

[data]
dataset = "biq2021"
root = "biq"
validation_more = 16

[weights]
global_branch = "biq/global_branch.safetensors"
local_branch = "biq/local_branch.safetensors"

[opinions.people]
table = "tables/people.csv"
root = "photos"
low = 1
high = 5
reference = '(\\d)-'
count = 8

[native]
root = "photos"
files = ["*-0.png"]
count = 2
pixels = 8000
whole = 2

[steps]
root = "steps"
every = 50
count = 6

[[jpeg]]
root = "photos"
files = ["*-0.png"]
count = 2

[flats]
root = "photos"
files = ["0-0.png"]
count = 1

[types.small]
root = "photos"
files = ["*-0.png"]
count = 2
side = 64

[forms]
root = "photos"
files = ["*-0.png"]
count = 2
"""


@pytest.fixture(scope="module", autouse=True)
def presets() -> Iterator[None]:
    small.register()
    yield
    small.unregister()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs, a table and steps; no training images."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "tables").mkdir()
    (tmp_path / "steps").mkdir()
    rows = ["path,mos"]
    for number in range(2):
        clean = Image.fromarray(photo(120, 90, number))
        for worse in range(4):
            name = f"{number}-{worse}.png"
            clean.filter(ImageFilter.GaussianBlur(worse)).save(tmp_path / "photos" / name)
            rows.append(f"{name},{5 - worse - 0.2 * number}")
        clean.save(tmp_path / "steps" / f"Quiz_SRC0{number}.png")
        for step in (1, 2, 51):
            kind = ("JPEG", "BPG")[number]
            clean.save(tmp_path / "steps" / f"Quiz_SRC0{number}_{kind}_{step:03d}.jpg")
    (tmp_path / "tables" / "people.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "board.toml").write_text(RECIPE)
    return tmp_path


def read(folder: Path, **changes: object) -> BoardRecipe:
    return recipes.read(folder / "board.toml").model_copy(update=changes)


class Bright:
    """Scores are mean brightness; those of term and cells are half of it, and its opposite."""

    engine = "bright"
    manifest = load_bundle(None).manifest

    def __init__(self) -> None:
        self.asked = 0
        self.fails_at = 10**9

    def score(self, items: Iterable[Path], *, quality_map: bool) -> Iterator[ImageResult]:
        for path in items:
            self.asked += 1
            if self.asked == self.fails_at:
                yield ImageResult(
                    path=str(path), error=CorruptError("broken"), score=None, bundle="b",
                    engine="e", profile="fast",
                )  # fmt: skip
                return
            value = float(np.asarray(Image.open(path).convert("L")).mean() / 2.56)
            parts = np.array([[[value / 2, 100 - value]]], np.float32)
            yield ImageResult(
                path=str(path), score=value, bundle="b", engine="e", profile="fast",
                quality_map=parts if quality_map else None,
            )  # fmt: skip


def model_of(scorer: Bright, absent: dict[str, str] | None = None) -> Model:
    preset: dict[str, Any] = {"head": "map"}
    return Model(scorer, "bright", "0" * 64, preset, "by hand", absent or {})  # type: ignore[arg-type]


@contextmanager
def no_run(path: Path) -> Iterator[Model]:
    raise AssertionError
    yield


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["board", *map(str, arguments)], catch_exceptions=True)


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


def test_pictures_are_rendered_once_and_refused_from_other_sources(folder: Path) -> None:
    what = read(folder)
    with pytest.raises(NotFoundError, match="62 of 62 pictures are not rendered"):
        pictures.collect(what, ["native"])
    done = run(folder / "board.toml", "render", "--workers", 1)
    assert done.exit_code == 0, done.output
    assert "native: 62 pictures, 62 of them rendered now" in done.output
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


def test_a_killed_rendering_goes_on(folder: Path) -> None:
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
    (fresh,) = renderings(read(folder, pictures=folder / "other"), ["native"])
    fresh.run(1)
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


def test_scores_are_kept_and_a_failure_names_its_picture(folder: Path) -> None:
    what = read(folder)
    (people,) = pictures.collect(what, ["people"]).values()
    scorer = Bright()
    scorer.fails_at = 6
    with pytest.raises(CorruptError, match=r"1-1\.png: broken"):
        scores.score(what.cache, model_of(scorer), people)
    found = scores.score(what.cache, model_of(scorer), people)
    assert scorer.asked == 6 + 3  # five were kept
    again = scores.score(what.cache, model_of(scorer), people)
    assert scorer.asked == 9
    for row, values in found.items():
        np.testing.assert_array_equal(values, again[row])
    np.testing.assert_allclose(found[TERM], found[WHOLE] / 2, rtol=1e-5)
    np.testing.assert_allclose(found[CELLS], 100 - found[WHOLE], rtol=1e-5)
    Image.fromarray(photo(130, 90, 5)).save(folder / "photos" / "0-1.png")
    (changed,) = pictures.collect(what, ["people"]).values()
    scores.score(what.cache, model_of(scorer), changed)
    assert scorer.asked == 9 + 8


def test_the_board_has_every_row_and_says_what_it_has_not(folder: Path) -> None:
    for one in renderings(read(folder), ["jpeg", "flats", "forms", "small"]):
        one.run(1)
    names = ["people", "steps", "jpeg", "flats", "small", "forms"]
    what = read(folder, data=None)
    scorer = Bright()
    board = measure(what, model_of(scorer), Wanted(names, draw=DRAW), no_run)
    assert [row.name for row in board.rows] == [WHOLE, TERM, CELLS, *probes.NAMES]
    whole, term, cells, fitted, *_ = board.rows
    with (folder / "tables" / "people.csv").open() as file:
        rows = list(csv.DictReader(file))
    bright = [
        np.asarray(Image.open(folder / "photos" / r["path"]).convert("L")).mean() for r in rows
    ]
    expected = spearmanr(bright, [float(r["mos"]) for r in rows])[0]
    assert whole.values["people: SROCC"].value == pytest.approx(expected)
    assert term.values["people: SROCC"].value == pytest.approx(expected)
    assert cells.values["people: SROCC"].value == pytest.approx(-expected)
    assert whole.values["people: SROCC within references"].n == 2
    assert not fitted.values
    assert fitted.absent == dict.fromkeys(names, "the recipe has no training images ([data])")
    assert board.unmeasured == {"native": "not asked for (--sets)"}
    assert Board.model_validate_json(board.to_json()) == board
    text = tables.markdown(board)
    assert "| set | measure | n | whole score | image-level term alone | cells alone |" in text
    assert "| flats | largest score | 25 |" in text
    assert "not measured: native: not asked for (--sets)" in text
    assert "not measured: ridge, MLP, ridge on 1,000 on all sets: the recipe has no" in text
    assert [p.suffix for p in plot.write(board, folder)] == [".png", ".svg"]
    asked = scorer.asked
    again = measure(what, model_of(scorer), Wanted(names, draw=DRAW), no_run)
    assert (again, scorer.asked) == (board, asked)
    alone = model_of(scorer, dict.fromkeys((TERM, CELLS), "there are none"))
    parted = measure(what, alone, Wanted(["people"], draw=DRAW), no_run)
    assert parted.rows[1].absent == {"people": "there are none"}


def labelled(folder: Path) -> None:
    """Training images of two subsets, the second brighter."""
    (folder / "biq").mkdir()
    small.make_root(folder / "biq", count=60)
    table = folder / "biq" / "Train (Images and MOS).csv"
    lines = table.read_text().splitlines()
    for i in range(1, len(lines), 2):
        name = lines[i].split(",")[0]
        lines[i] = lines[i].replace("ss01", "ss02")
        (folder / "biq" / "Images" / name).rename(
            folder / "biq" / "Images" / name.replace("ss01", "ss02")
        )
    table.write_text("\n".join(lines) + "\n")


def test_ridge_and_mlp_learn_from_training_images_and_one_subset_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled(folder)
    what = read(folder)
    scorer = Bright()
    scorer.manifest = manifest_of(create("small"))
    model = replace(model_of(scorer), preset=as_in_a_manifest(small.SMALL))
    run_without = replace(model, digest="1" * 64)

    @contextmanager
    def open_run(path: Path) -> Iterator[Model]:
        yield run_without

    wanted = Wanted(["validation", "left-out", "people"], left_out={"ss02": folder}, draw=DRAW)
    board = measure(what, model, wanted, open_run)
    whole, _, _, fitted, mlp, few = board.rows
    assert fitted.how.startswith("44 images, alpha ")
    assert "without ss01: 19 images" in fitted.how
    assert fitted.values["validation: SROCC"].n == 16
    assert fitted.values["ss01 left out: SROCC"].n == 30
    assert fitted.values["ss02 left out: SROCC"].n == 30
    assert mlp.values["people: SROCC"].n == few.values["people: SROCC"].n == 8
    assert whole.values["ss02 left out: SROCC"].n == 30
    assert whole.absent == {"ss01 left out": "no run without it was given (--left-out ss01=RUN)"}
    names = {m.name for m in board.measures if m.set == "validation"}
    assert names == {"SROCC", "PLCC", "SROCC ss01", "SROCC ss02"}
    # Nothing is computed twice, nor are test images asked for.
    monkeypatch.setattr("training.board.probes._fit", None)
    assert measure(what, model, wanted, open_run) == board
    assert not (folder / "biq" / "Test (Images and MOS).csv").exists()
    with pytest.raises(ValueError, match="no subset ss03"):
        measure(what, model, replace(wanted, left_out={"ss03": folder}), open_run)


def as_in_a_manifest(preset: Preset) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(asdict(preset)))
    return found


def manifest_of(model: Giqa) -> Manifest:
    with TorchScorer(model) as scorer:
        return scorer.manifest


def test_moments_of_tiles_are_those_of_native_pixels(folder: Path) -> None:
    labelled(folder)
    torch.manual_seed(0)
    model = create("small")
    manifest = manifest_of(model)
    fast = manifest.profiles["fast"].model_copy(update={"tiles": 4, "tile_pixels": 300 * 300})
    manifest = manifest.model_copy(update={"profiles": {**manifest.profiles, "fast": fast}})
    large = photo(448, 448, 3)
    paths = [folder / "large.png", folder / "small.png"]
    Image.fromarray(large).save(paths[0])
    Image.fromarray(photo(224, 224, 4)).save(paths[1])
    samples = [pictures.Sample(p, 0.0) for p in paths]
    found = tiles.features(folder / "tiles", model, samples, manifest, amp=False)
    corners = [(y, x) for y in (56, 168) for x in (56, 168)]
    native = np.stack([large[y : y + 224, x : x + 224] for y, x in corners])
    with torch.inference_mode():
        branch = model.local_branch
        each = branch.pool(branch.stages(torch.from_numpy(native)[:, None]))
        whole = torch.from_numpy(photo(224, 224, 4))[None, None]
        np.testing.assert_allclose(found[0], each.mean(0), atol=5e-3, rtol=5e-3)
        np.testing.assert_allclose(
            found[1], branch.pool(branch.stages(whole))[0], atol=5e-3, rtol=5e-3
        )


def test_backbones_are_read_of_any_manifest() -> None:
    data = as_in_a_manifest(small.SMALL)
    made = probes.preset_from(data | {"of another version": 1})
    assert made.global_branch == small.SMALL.global_branch
    assert made.local_branch.stages == small.SMALL.local_branch.stages
    assert probes.why_not(data) == ""
    assert "moments" in probes.why_not(as_in_a_manifest(small.TINY))
    del data["local_branch"]
    assert "local_branch" in probes.why_not(data)


def tokens(sizes: Tensors) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = sizes.stages, sizes.tokens, sizes.dim
    return {
        "GLOBAL_TOKENS": rng.normal(size=(3, 2, *shape)).astype(np.float32),
        "LOCAL_TOKENS": rng.normal(size=(3, 2, *shape[1:])).astype(np.float32),
    }


def infer(model: onnx.ModelProto | Path, names: list[str], given: dict[str, np.ndarray]) -> Any:
    what = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(what).run(names, given)


def test_cells_alone_of_the_default_bundle_are_told_nothing() -> None:
    bundle = load_bundle(None)
    given = tokens(bundle.manifest.tensors)
    (score,) = infer(bundle.graph(FUSION), ["SCORE"], given)
    untold = onnx.load(bundle.graph(FUSION))
    (weight,) = (t for t in untold.graph.initializer if t.name.startswith("head.whole.weight"))
    weight.raw_data = bytes(len(weight.raw_data))
    (alone,) = infer(untold, ["SCORE"], given)
    assert np.abs(score - alone).max() > 0.1
    with parts.bundle_with_parts(bundle) as (copy, found):
        ours = infer(copy.graph(FUSION), ["SCORE", "QUALITY_MAP"], given)
        assert copy.manifest.id == bundle.manifest.id
        folder = copy.folder
    assert not folder.exists()
    np.testing.assert_allclose(ours[0], score, atol=1e-4)
    assert ours[1].shape == (3, 1, 1, 1)
    np.testing.assert_allclose(ours[1].ravel(), alone.ravel(), atol=1e-4)
    assert found.names == (CELLS,)
    assert set(parts.absent(bundle.manifest.preset)) == {TERM}


def mixture() -> onnx.ModelProto:
    """A head that mixes cells with a term, as bundles had it up to 0.3.0; D is 2."""
    nodes = [
        ("Shape", ["LOCAL_TOKENS"], ["lead"], {"start": 0, "end": 2}),
        ("Reshape", ["LOCAL_TOKENS", "flat"], ["x"]),
        ("Gather", ["x", "first"], ["logit"], {"axis": 2}),
        ("Gather", ["x", "second"], ["said"], {"axis": 2}),
        ("Softmax", ["said"], ["weight"], {"axis": -1}),
        ("Mul", ["weight", "logit"], ["weighed"]),
        ("ReduceSum", ["weighed", "one"], ["own"]),
        ("ReduceMean", ["said", "one"], ["term"]),
        ("Sub", ["term", "own"], ["less"]),
        ("Mul", ["less", "share"], ["shared"]),
        ("Add", ["logit", "shared"], ["mixed"]),
        ("Mul", ["mixed", "gain"], ["gained"]),
        ("Add", ["gained", "offset"], ["calibrated"]),
        ("Sigmoid", ["calibrated"], ["good"]),
        ("Mul", ["good", "most"], ["quality"]),
        ("Mul", ["weight", "quality"], ["parts"]),
        ("ReduceSum", ["parts", "one"], ["all"]),
        ("Reshape", ["all", "lead"], ["views"]),
        ("ReduceMean", ["views", "one"], ["SCORE"]),
        ("Concat", ["lead", "square"], ["shape"], {"axis": 0}),
        ("Reshape", ["quality", "shape"], ["QUALITY_MAP"]),
    ]
    weights = {
        "flat": np.array([-1, 4, 2]), "one": np.array([1]), "square": np.array([2, 2]),
        "first": np.array(0), "second": np.array(1), "share": np.float32(0.8),
        "gain": np.float32(1.5), "offset": np.float32(0.2), "most": np.float32(100),
    }  # fmt: skip
    tokens_of = {
        "GLOBAL_TOKENS": (onnx.TensorProto.FLOAT, ["batch", "views", 1, 4, 2]),
        "LOCAL_TOKENS": (onnx.TensorProto.FLOAT, ["batch", "views", 4, 2]),
    }
    return graph(nodes, tokens_of, ["SCORE", "QUALITY_MAP"], weights)


def test_term_and_cells_of_an_older_bundle_are_its_logits() -> None:
    model = mixture()
    added = parts.Graph(model.graph, "fusion.onnx").parts()
    assert added.names == (TERM, CELLS)
    assert "'term' (term) and 'own' (cells)" in added.how
    parts._replace_map(model.graph, added)
    onnx.checker.check_model(model)
    rng = np.random.default_rng(1)
    local = rng.normal(size=(3, 2, 4, 2)).astype(np.float32)
    given = {"GLOBAL_TOKENS": np.zeros((3, 2, 1, 4, 2), np.float32), "LOCAL_TOKENS": local}
    score, found = infer(model, ["SCORE", "QUALITY_MAP"], given)
    logit, said = local[..., 0], local[..., 1]
    weight = np.exp(said) / np.exp(said).sum(-1, keepdims=True)

    def scored(x: np.ndarray) -> np.ndarray:
        return 100 / (1 + np.exp(-(1.5 * x + 0.2)))

    own = (weight * logit).sum(-1)
    cells = logit + 0.8 * (said.mean(-1) - own)[..., None]
    np.testing.assert_allclose(score[:, 0], (weight * scored(cells)).sum(-1).mean(1), rtol=1e-5)
    assert found.shape == (3, 1, 1, 2)
    np.testing.assert_allclose(found[:, 0, 0, 0], scored(said.mean(-1)).mean(1), rtol=1e-5)
    np.testing.assert_allclose(found[:, 0, 0, 1], scored(own).mean(1), rtol=1e-5)


def test_another_graph_is_refused_with_what_to_do() -> None:
    for model in (mixture(), onnx.load(load_bundle(None).graph(FUSION))):
        for node in model.graph.node:
            if node.op_type in ("Sub", "Gelu"):
                node.op_type = "Erf"
        with pytest.raises(BundleInvalidError, match="0 subtractions") as refused:
            parts.Graph(model.graph, "fusion.onnx").parts()
        assert "--whole" in refused.value.remedy


@torch.inference_mode()
def test_cells_alone_of_a_run_are_told_nothing() -> None:
    torch.manual_seed(0)
    model = create("small")
    head = model.fusion.head
    assert isinstance(head, MapHead)
    assert head.whole is not None
    views = [torch.randint(0, 256, (2, 3, 224, 224, 3), dtype=torch.uint8) for _ in range(2)]
    before = model(*views)[0]
    score, cells = parts.WithCells(model)(*views)
    torch.testing.assert_close(score, before)
    torch.testing.assert_close(model(*views)[0], before)
    head.whole.weight.zero_()
    alone = model(*views)[0]
    assert (alone - before).abs().max() > 1e-3
    torch.testing.assert_close(cells[:, 0, 0], alone)


def test_models_without_parts_say_why() -> None:
    assert set(parts.absent({"head": "pooled"})) == {TERM, CELLS}
    assert parts.absent({"head": "map", "context": 128, "context_tokens": 4}) == {}
    assert set(parts.absent({"head": "map", "context_tokens": 2})) == {TERM}
    why = parts.absent({"head": "map", "context_tokens": 0})
    assert "whole score" in why[CELLS]


def weights(folder: Path, model: Giqa) -> Path:
    folder.mkdir()
    checkpoint.write_tensors(
        folder / "final.safetensors", model.state_dict(), {"preset": model.preset.name}
    )
    return folder


def test_a_run_is_measured_by_the_command(folder: Path) -> None:
    torch.manual_seed(0)
    (folder / "board.toml").write_text(
        RECIPE[: RECIPE.index("[data]")] + RECIPE[RECIPE.index("[opinions") :]
    )
    where = weights(folder / "run", create("small"))
    done = run(folder / "board.toml", "--run", where, "--sets", "people", "--resamples", 20,
               "--out", folder / "out")  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    assert "`small of run`, `torch-f32`" in done.output
    found = Board.model_validate_json((folder / "out" / "board.json").read_bytes())
    assert found.rows[1].absent["people"] == "the model has no term beside its cells"
    assert found.rows[2].how == parts.HOW_CELLS
    assert found.rows[2].values["people: SROCC"].n == 8
    names = {p.name for p in (folder / "out").iterdir()}
    assert names == {"board.json", "board.md", "board.png", "board.svg"}
    assert (folder / "out" / "board.md").read_text() in done.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--sets", "people,moon"), "no set 'moon'"),
        (("--bundle", "giqa-s", "--run", "."), "excludes --bundle"),
        (("--run", ".", "--precision", "int8"), "float32"),
        (("--left-out", "ss01"), "SUBSET=RUN"),
        (("--run", "."), "not finished"),
    ],
)
def test_options_that_do_not_go_together(
    folder: Path, arguments: tuple[str, ...], told: str
) -> None:
    found = run(folder / "board.toml", *arguments)
    assert isinstance(found.exception, GiqaError)
    assert told in str(found.exception)
