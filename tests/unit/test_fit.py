"""Real small runs: from images and scores to a bundle that scores, resumable on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from giqa.bundle import Bundle
from giqa.local import LocalScorer
from tests import small
from training import fit, loop
from training.card import Card
from training.evaluation import evaluate, to_accuracy
from training.export import export_bundle
from training.model import Giqa, create
from training.rounding import round_weights
from training.sources import Rows

pytestmark = pytest.mark.usefixtures("small_presets")

CARD = Card(summary="", code="", weights="", data={}, backbones=[], training=[], limits=[])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make_root(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of them to train on."""
    return small.make_root(tmp_path_factory.mktemp("few"), 16)


@pytest.fixture(scope="module")
def learnt(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Giqa, Path]:
    """A run that overfits, and its folder."""
    output = tmp_path_factory.mktemp("run")
    return fit.fit(small.recipe(root, output, optimisation__epochs=14)), output


@pytest.fixture(scope="module")
def bundle(learnt: tuple[Giqa, Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "small"
    return export_bundle(
        learnt[0], folder, version="0.0.1", accuracy=[], card=CARD, training={},
        calibrated_on="validation",
    )  # fmt: skip


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[n]) for n, v in a.items())


# --- learning ---


def test_fit_overfits_32_images_and_its_bundle_scores_them(
    root: Path, learnt: tuple[Giqa, Path], bundle: Bundle
) -> None:
    model, output = learnt
    assert same(load_file(fit.final_weights(output)), model.state_dict())
    train, _ = fit.splits(small.recipe(root, output))
    with LocalScorer(bundle, precision="f32") as scorer:
        found = evaluate(scorer, train, dataset="made", split="train", protocol="")
        accuracy = to_accuracy(found, engine=scorer.engine, profile="fast")
    assert accuracy.n == 32
    assert accuracy.srocc > 0.95, accuracy


def test_a_run_leaves_its_log_and_curves(learnt: tuple[Giqa, Path]) -> None:
    _, output = learnt
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 15))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    curves = EventAccumulator(str(output / "tensorboard"))
    curves.Reload()
    assert len(curves.Scalars("train/loss")) == 14 * 4
    shown = [point.value for point in curves.Scalars("validation/srocc")]
    np.testing.assert_allclose(shown, [line["all_srocc"] for line in lines], atol=1e-4)
    mean = np.mean([point.value for point in curves.Scalars("train/loss")[:4]])
    assert lines[0]["loss"] == pytest.approx(mean, abs=1e-4)


def test_frozen_parts_stay_as_they_were_and_others_move(
    root: Path, learnt: tuple[Giqa, Path]
) -> None:
    before = create("small")
    what = small.recipe(root, root)
    before.load_backbones(what.weights.global_branch, what.weights.local_branch)
    round_weights(before)
    ours, theirs = learnt[0].state_dict(), before.state_dict()
    moved = {n for n in ours if ".backbone." in n and not torch.equal(ours[n], theirs[n])}
    assert moved
    assert all(n.startswith("global_branch.backbone.blocks.1.") for n in moved)


def test_the_calibration_is_in_the_bundle(learnt: tuple[Giqa, Path], bundle: Bundle) -> None:
    found = json.loads((learnt[1] / "calibration.json").read_text())
    stored = bundle.manifest.score.calibration
    assert stored.fitted_on == "validation"
    assert stored.parameters == pytest.approx(
        {"gain": found["gain"], "offset": found["offset"]}, abs=1e-5
    )
    assert found["n"] == 8
    assert found["rmse_after"] <= found["rmse_before"] + 1e-6
    assert learnt[0].fusion.head.calibration.tolist() == pytest.approx(
        [found["gain"], found["offset"]]
    )


@pytest.mark.parametrize("views", ["frame", "crops"])
def test_a_whole_model_learns_from_images(few: Path, tmp_path: Path, views: str) -> None:
    """No cache: the CNN learns, too, as in the paper's protocol."""
    what = small.recipe(
        few, tmp_path, features=None, freeze__local=False, freeze__global_blocks=0,
        images__views=views, optimisation__epochs=2,
        optimisation__backbone_lr=3e-3, optimisation__batch=4, calibrate=False,
    )  # fmt: skip
    before = create("small")
    before.load_backbones(what.weights.global_branch, what.weights.local_branch)
    after = fit.fit(what).local_branch.backbone.state_dict()
    kept = before.local_branch.backbone.state_dict()
    moved = {n for n in after if (after[n] - kept[n]).abs().max() > 1e-3}
    assert any("conv" in n for n in moved)
    assert not any("running" in n for n in moved), "BatchNorm's statistics are frozen"
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 2


def test_micro_batches_equal_one_batch(few: Path, tmp_path: Path) -> None:
    """With losses that are means over images, and nothing drawn: SMALL has no dropout."""
    states = []
    for pieces in (1, 4):
        what = small.recipe(
            few, tmp_path / str(pieces), optimisation__accumulate=pieces,
            optimisation__plcc_weight=0.0, optimisation__epochs=2, optimisation__warmup_steps=1,
            calibrate=False,
        )  # fmt: skip
        states.append(fit.fit(what).state_dict())
    # A softmax does not change with this bias: its gradient is rounding, which Adam magnifies.
    del states[0]["fusion.head.weight.bias"]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=2e-3, rtol=2e-3, msg=name)


def test_a_run_starts_from_another_runs_weights(
    root: Path, learnt: tuple[Giqa, Path], tmp_path: Path
) -> None:
    start = fit.final_weights(learnt[1])
    taken = fit.take_over(create("student"), start)
    assert any(n.startswith("global_branch.backbone.blocks.1") for n in taken)
    assert not any("reduce" in n for n in taken), "of another width"
    what = small.recipe(root, tmp_path, weights__start=start, optimisation__epochs=1)
    fit.fit(what)
    line = json.loads((tmp_path / "log.jsonl").read_text())
    first = json.loads((learnt[1] / "log.jsonl").read_text().splitlines()[0])
    assert line["loss"] < 0.6 * first["loss"]


# --- resuming ---


@pytest.mark.parametrize("where", ["in mid-epoch", "in validation"])
@pytest.mark.parametrize("what", ["features", "images", "a block behind the cache"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, what: str
) -> None:
    changes: dict[str, object] = {"optimisation__epochs": 2, "optimisation__save_steps": 1}
    changes |= {"optimisation__batch": 4}  # two steps an epoch
    if what == "images":
        changes |= {"features": None}
    if what == "a block behind the cache":  # frozen, and run in every step
        changes |= {"freeze__global_blocks": 2, "features__global_blocks": 1}
    straight = fit.fit(small.recipe(few, tmp_path / "straight", **changes)).state_dict()
    calls: list[int] = []

    def dying(original: object, at: int) -> object:
        def call(*arguments: object) -> object:
            calls.append(1)
            if len(calls) == at:
                raise KeyboardInterrupt
            return original(*arguments)  # type: ignore[operator]

        return call

    with monkeypatch.context() as patch:
        if where == "in validation":
            patch.setattr(loop, "predict", dying(loop.predict, 2))
        else:
            patch.setattr(loop.Loop, "_loss", dying(loop.Loop._loss, 2))
        with pytest.raises(KeyboardInterrupt):
            fit.fit(small.recipe(few, tmp_path / "broken", **changes))
    with pytest.raises(FileNotFoundError, match="not finished"):
        fit.final_weights(tmp_path / "broken")
    resumed = fit.fit(small.recipe(few, tmp_path / "broken", **changes)).state_dict()
    assert same(straight, resumed)
    logs = [(tmp_path / n / "log.jsonl").read_text() for n in ("straight", "broken")]
    ours, theirs = ([json.loads(x) for x in log.splitlines()] for log in logs)
    assert [x | {"seconds": 0} for x in ours] == [x | {"seconds": 0} for x in theirs]


def test_an_epoch_sees_every_image_once(few: Path, tmp_path: Path) -> None:
    fields = {"epochs": 1, "batch": 4, "warmup_steps": 1}
    what = small.recipe(few, tmp_path, **{f"optimisation__{k}": v for k, v in fields.items()})
    seen: list[Rows] = []
    original = loop.Loop._step

    def step(self: loop.Loop, rows: Rows, epoch: int) -> float:
        seen.append(rows)
        return original(self, rows, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "_step", step)
        fit.fit(what)
    assert sorted(np.concatenate(seen).tolist()) == list(range(8))
