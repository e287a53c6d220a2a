"""Evaluation of real scorers: PyTorch against the exported bundle, V, and the command line."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file

from giqa.bundle import Bundle
from giqa.decode import view_boxes
from giqa.errors import BundleInvalidError, ShapeMismatchError, UsageError
from giqa.local import LocalScorer
from giqa.manifest import Accuracy
from giqa.types import Item, Views
from tests.photos import photo
from training.card import Card
from training.data.table import Sample
from training.evaluation import Evaluation, evaluate
from training.evaluation.choices import of_recipe
from training.evaluation.torch_scorer import TorchScorer
from training.evaluation.views import by_views, spread
from training.export import export_bundle
from training.model import PRESETS, Giqa, GlobalSpec, LocalSpec, Preset, create

TINY = Preset(
    name="measured",
    global_branch=GlobalSpec(
        backbone="vit_tiny_patch16_224",
        view=224,
        blocks=(0, 1),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        project=True,
    ),
    local_branch=LocalSpec(
        backbone="resnet10t",
        view=224,
        stages=(1, 3),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        normalize=False,
    ),
    dim=16,
)
SIZES = [(224, 224), (500, 300), (96, 64), (500, 500), (449, 225)]
BAD = 3
WORDS: dict[str, Any] = {"dataset": "made", "split": "all", "protocol": "", "resamples": 20}


@pytest.fixture(scope="module")
def model() -> Giqa:
    torch.manual_seed(0)
    made = create(TINY)
    with torch.no_grad():  # drawn at random, scores would all be about the same
        for value in made.fusion.head.parameters():
            value.mul_(3)
        made.fusion.head.quality.weight.normal_(std=0.3)
    return made


@pytest.fixture(scope="module")
def bundle(model: Giqa, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The model's bundle; exporting also rounds the model's weights to those stored."""
    card = Card(summary="", code="", weights="", data={}, backbones=[], training=[], limits=[])
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    return export_bundle(model, folder, version="0.0.1", accuracy=[], card=card, training={})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of all sorts of sizes; one in the middle is cut off."""
    folder, paths = tmp_path_factory.mktemp("images"), []
    for i, size in enumerate([*SIZES, (320, 224)]):
        picture = Image.fromarray(photo(*size, i, noise=20))
        paths.append(folder / f"{i}.jpg")
        picture.filter(ImageFilter.GaussianBlur(i / 2)).save(paths[-1], quality=95)
    paths[BAD].write_bytes(paths[BAD].read_bytes()[:2000])
    Image.fromarray(photo(120, 90, 9)).convert("RGBA").save(folder / "alpha.png")
    return [*paths, folder / "alpha.png"]


def test_torch_and_bundle_give_the_same_rows(
    model: Giqa, bundle: Bundle, images: list[Path]
) -> None:
    with LocalScorer(bundle, precision="f32") as local, TorchScorer(model, batch=3) as ours:
        assert ours.engine == "torch-f32"
        assert ours.manifest.tensors == local.manifest.tensors
        assert ours.manifest.normalization == local.manifest.normalization
        for profile in ("fast", "precise"):
            rows = list(ours.score(images, profile=profile, quality_map=True))
            theirs = list(local.score(images, profile=profile, quality_map=True))
            assert [row.path for row in rows] == [str(p) for p in images]
            for row, other in zip(rows, theirs, strict=True):
                assert (row.status, row.notes, row.width, row.height, row.profile) == (
                    other.status, other.notes, other.width, other.height, other.profile
                )  # fmt: skip
                if other.error is not None:
                    assert row.error is not None
                    assert row.error.code == other.error.code == "truncated"
                    assert row.error.item == str(images[BAD])
                    continue
                assert row.score == pytest.approx(other.score, abs=0.01)
                np.testing.assert_array_equal(row.boxes, other.boxes)
                np.testing.assert_allclose(row.quality_map, other.quality_map, atol=0.05)
            scores = [row.score for row in rows if row.score is not None]
            assert len(scores) == len(images) - 1
            assert np.ptp(scores) > 1, "else equal scores would prove nothing"


def test_torch_scores_do_not_depend_on_neighbours(model: Giqa, images: list[Path]) -> None:
    one, many = TorchScorer(model, batch=1), TorchScorer(model, batch=8)
    for a, b in zip(one.score(images[:4]), many.score(images[:4]), strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-3)


def test_torch_sees_tiles(images: list[Path]) -> None:
    """Pictures with and without them, in one batch."""
    torch.manual_seed(0)
    scorer = TorchScorer(create(replace(TINY, tile_pixels=20_000)))
    some = [images[1], images[2], images[4]]
    tiles = [len(one.tiles) for one in scorer._decoder([Item(str(p), p) for p in some], "fast")]
    assert tiles == [4, 0, 4]
    together = [row.score for row in scorer.score(some)]
    alone = [row.score for path in some for row in scorer.score(path)]
    assert together == pytest.approx(alone, abs=1e-3)


def test_torch_refuses_what_does_not_fit(
    model: Giqa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Views(np.zeros((1, 224, 224, 3), np.uint8), np.zeros((1, 200, 224, 3), np.uint8))
    with pytest.raises(ShapeMismatchError, match="200"):
        list(TorchScorer(model).score_views([wrong]))
    monkeypatch.setitem(PRESETS, "measured", TINY)
    weights = tmp_path / "final.safetensors"
    save_file({"a": torch.zeros(1)}, weights)
    with pytest.raises(BundleInvalidError, match="no weights of measured"):
        TorchScorer.load(weights, "measured")
    weights.write_bytes(b"no safetensors file")
    with pytest.raises(BundleInvalidError):
        TorchScorer.load(weights, "measured")
    with pytest.raises(UsageError, match="giqa-s"):
        TorchScorer.load(weights, "giqa-xxl")
    save_file(model.state_dict(), weights)
    assert TorchScorer.load(weights, "measured").manifest.id == "measured@0.0.0"


@pytest.mark.parametrize("size", [(3000, 3000), (3000, 500), (700, 500), (448, 448)])
def test_views_spread_over_the_picture(size: tuple[int, int]) -> None:
    boxes = view_boxes(*size, "precise", 448)
    order = spread(boxes)
    assert sorted(order) == list(range(len(boxes)))
    if len(boxes) == 9:
        assert order[0] == 4, "the middle first"
        assert set(order[1:5]) == {0, 2, 6, 8}, "then the corners"
        assert order[2] == 8 - order[1], "the opposite one first"


def test_agreement_by_views(model: Giqa, images: list[Path]) -> None:
    images = images[1:]
    samples = [Sample(p, 10.0 * i) for i, p in enumerate(images)]
    watched: list[int] = []
    with TorchScorer(model, batch=3) as scorer:
        rows = by_views(scorer, samples, [9, 1, 2], resamples=20, watch=lambda: watched.append(1))
        fast, precise = (evaluate(scorer, samples, profile=p, **WORDS) for p in ("fast", "precise"))
    assert [row.views for row in rows] == [1, 2, 9]
    assert len(watched) == len(images)
    for row, direct in ((rows[0], fast), (rows[2], precise)):
        assert row.agreement.n == direct.n == len(images) - 1
        assert row.agreement.srocc == direct.srocc
        assert row.agreement.rmse == pytest.approx(direct.rmse, abs=1e-3)
    used = [len(view_boxes(*size, "precise", 224)) for size in SIZES]
    del used[BAD], used[0]
    used += [len(view_boxes(320, 224, "precise", 224)), len(view_boxes(120, 90, "precise", 224))]
    assert rows[2].mean == np.mean(used)
    assert rows[1].mean == np.mean(np.minimum(used, 2))
    assert rows[1].agreement.rmse not in (rows[0].agreement.rmse, rows[2].agreement.rmse)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `python -m training evaluate`; gives exit code, stdout and stderr."""
    from training.__main__ import run as main

    def call(*arguments: object) -> tuple[int, str, str]:
        words = ["training", "evaluate", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        try:
            main()
            code = 0
        except SystemExit as e:
            code = int(e.code or 0)
        return (code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def table(images: list[Path]) -> Path:
    path = images[0].parent / "labels.csv"
    with path.open("w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["path", "mos", "subset"])
        rows.writerows(
            [p, 5 - i / 2, "even" if i % 2 == 0 else "odd"] for i, p in enumerate(images)
        )
    return path


def test_command_measures_the_default_bundle(run: Run, table: Path, tmp_path: Path) -> None:
    out, accuracy, plots = tmp_path / "e.json", tmp_path / "a.json", tmp_path / "plots"
    options = ["--data", f"made={table}", "--scale", "made=1..5", "--resamples", "50"]
    files = ["--json", out, "--accuracy", accuracy, "--plots", plots]
    code, printed, said = run(*options, *files, "--views", "1,2")
    assert code == 3, said
    assert f"[truncated] {table.parent / f'{BAD}.jpg'}" in said
    assert "1 could not be scored" in said
    found = Evaluation.model_validate_json(out.read_bytes())
    (one,) = found.datasets
    assert (one.n, one.failed, one.subsets["even"].n) == (6, 1, 4)
    assert one.rows[0].mos == 100
    with LocalScorer() as scorer:
        for row, direct in zip(one.rows, scorer.score(r.path for r in one.rows), strict=True):
            assert row.score == direct.score
        assert (found.bundle, found.engine) == (scorer.manifest.id, scorer.engine)
    assert one.srocc is not None
    assert f"| all | 6 | {one.srocc:.3f}" in printed
    assert "| even | 4 |" in printed
    assert "1 of 7 images could not be scored" in printed
    assert [row.views for row in one.views] == [1, 2]
    assert Accuracy.model_validate_json(accuracy.read_bytes()).n == 6
    assert len(list(plots.glob("*.png"))) == len(list(plots.glob("*.svg"))) == 2


def test_command_measures_weights(
    run: Run, table: Path, model: Giqa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "measured", TINY)
    weights = tmp_path / "final.safetensors"
    save_file(model.state_dict(), weights)
    data = [f"--data={name}={table}" for name in ("up", "down")]
    scales = ["--scale", "up=1..5", "--scale", "down=5..1"]
    model_options = ["--weights", weights, "--preset", "measured"]
    code, printed, _ = run(*model_options, *data, *scales, "--resamples", 20, "--json", "-")
    assert code == 3
    found = Evaluation.model_validate(json.loads(printed))
    assert found.engine == "torch-f32"
    assert len(found.fingerprint) == 64
    up, down = found.datasets
    assert up.srocc is not None
    assert up.srocc == pytest.approx(-(down.srocc or 0))


@pytest.fixture
def server() -> Iterator[Any]:
    pytest.importorskip("tritonclient.grpc")
    from tests.fakes.kserve import FakeServer

    with FakeServer() as made:
        yield made


def test_command_measures_a_server(run: Run, server: Any, table: Path) -> None:
    from tests.fakes.scripts import score_of

    options = ["--data", f"made={table}", "--scale", "made=1..5", "--resamples", 20]
    code, printed, _ = run("--url", server.url, *options, "--json", "-", "--views", "1,4")
    assert code == 3
    found = Evaluation.model_validate(json.loads(printed))
    assert found.engine == "fake-f32"
    for row in found.datasets[0].rows:
        if row.error is None:
            sent = Path(row.path).read_bytes()
            assert row.score == pytest.approx(score_of(sent), abs=1e-3)
    assert [row.agreement.n for row in found.datasets[0].views] == [6, 6]
    server.stop()
    code, _, said = run("--url", server.url, *options, "--deadline", 1)
    assert code == 5, said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give data sets"),
        (["--split", "test"], "needs --recipe or --data"),
        (["--data", "nothing"], "NAME=FILE"),
        (["--data", "a={table}", "--data", "a={table}"], "name of its own"),
        (["--data", "a={table}", "--scale", "a=1-5"], "WORST..BEST"),
        (["--data", "a={table}", "--scale", "b=1..5"], "named b"),
        (["--data", "a={table}", "--scale", "a=4..5"], "outside 4..5"),
        (["--data", "a={table}", "--preset", "giqa-s"], "--weights"),
        (["--data", "a={table}", "--weights", "{table}"], "--preset"),
        (["--data", "a={table}", "--weights", "{table}", "--url", "grpc://x"], "excludes"),
        (["--data", "a={table}", "--data", "b={table}", "--accuracy", "x"], "one data set"),
        (["--data", "a={table}", "--views", "1,0"], "1 or more"),
    ],
)
def test_command_refuses_contradictions(
    run: Run, table: Path, arguments: list[str], message: str
) -> None:
    code, printed, said = run(*(a.format(table=table) for a in arguments))
    assert (code, printed) == (2, "")
    assert message in said


RECIPE = """
preset = "giqa-s"
output = "{root}/run"
threads = 1
[weights]
[data]
dataset = "biq2021"
root = "{root}"
validation_names = "{root}/names.csv"
validation_more = 3
[features]
folder = "{root}/cache"
variants = 1
[optimisation]
epochs = 1
batch = 2
lr = 1e-3
weight_decay = 0.0
warmup_steps = 1
ema = 0.9
huber_beta = 0.1
plcc_weight = 0.0
"""


def test_splits_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "Images").mkdir()
    for name, count in (("Train", 8), ("Test", 3)):
        rows = ["Image Name,MOS,,"]
        for i in range(count):
            file = f"ss0{i % 2 + 1} {name} ({i}).jpg"
            (tmp_path / "Images" / file).write_bytes(b"not decoded here")
            rows.append(f"{file},{i / 10},,")
        (tmp_path / f"{name} (Images and MOS).csv").write_text("\n".join(rows) + "\n")
    names = ["ss01 Train (0).jpg", "ss02 Train (3).jpg"]
    (tmp_path / "names.csv").write_text("source_name\n" + "\n".join(names) + "\n")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(root=tmp_path))
    named, validation, test = (
        of_recipe(recipe, split) for split in ("named", "validation", "test")
    )
    assert {chosen.name for chosen in (named, validation, test)} == {"BIQ2021"}
    assert [s.path.name for s in named.samples] == names
    assert named.split == "validation, 2 fixed by name"
    assert len(validation.samples) == 5
    assert [s.mos for s in test.samples] == pytest.approx([0, 10, 20])
    assert test.samples[0].subset == "ss01"
    assert "chooses its epoch on it" in validation.protocol
    assert test.protocol == "Official test split."
