"""A real small run: from images and scores to a bundle that scores, resumable on the way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file

from giqa.engine import LocalScorer
from tests.photos import photo
from tests.unit.test_features import TINY
from training import fit
from training.card import Card
from training.evaluate import evaluate
from training.export import export_bundle
from training.model import PRESETS, create
from training.recipe import Recipe

SMALL = replace(
    TINY, name="small", local_branch=replace(TINY.local_branch, stages=(1, 2, 3), normalize=True)
)


@pytest.fixture(scope="module", autouse=True)
def preset() -> object:
    PRESETS["small"] = SMALL
    yield
    del PRESETS["small"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree laid out like BIQ2021 whose MOS falls with the blur of its pictures."""
    made = tmp_path_factory.mktemp("data")
    (made / "Images").mkdir()
    rows = ["Image Name,MOS,,"]
    for i in range(40):
        blur = i % 8
        picture = Image.fromarray(photo(224, 224, i, noise=20))
        picture = picture.filter(ImageFilter.GaussianBlur(blur / 2))
        picture.save(made / "Images" / f"ss01 ({i}).jpg", quality=95)
        rows.append(f"ss01 ({i}).jpg,{0.9 - blur / 10:.4f},,")
    (made / "Train (Images and MOS).csv").write_text("\n".join(rows) + "\n")
    torch.manual_seed(0)
    model = create(SMALL)
    for name in ("global_branch", "local_branch"):
        save_file(getattr(model, name).backbone.state_dict(), made / f"{name}.safetensors")
    return made


def recipe(root: Path, output: Path, epochs: int = 12) -> Recipe:
    return Recipe.model_validate(
        {
            "preset": "small",
            "output": output,
            "threads": 2,
            "weights": {n: root / f"{n}.safetensors" for n in ("global_branch", "local_branch")},
            "data": {"dataset": "biq2021", "root": root, "validation_more": 8},
            "features": {"folder": root / "cache", "variants": 1},
            "optimisation": {
                "epochs": epochs,
                "batch": 8,
                "lr": 3e-3,
                "weight_decay": 0.01,
                "warmup_steps": 4,
                "ema": 0.9,
                "huber_beta": 0.1,
                "plcc_weight": 0.5,
                "amp": False,
            },
        }
    )


def test_fit_learns_and_its_bundle_scores(root: Path, tmp_path: Path) -> None:
    what = recipe(root, tmp_path / "run")
    model = fit.fit(what)
    state = load_file(fit.final_weights(what.output))
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    card = Card(summary="", code="", weights="", data={}, backbones=[], training=[], limits=[])
    bundle = export_bundle(
        model, tmp_path / "bundle", version="0.0.1", accuracy=[], card=card, training={}
    )
    train, _ = fit.splits(what)
    with LocalScorer(bundle, precision="f32") as scorer:
        found = evaluate(scorer, train, dataset="made", split="train", protocol="")
    assert found.srocc > 0.9, found
    assert found.n == 32
    assert found.subsets["ss01"].n == 32


def test_a_resumed_run_equals_an_uninterrupted_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = fit.fit(recipe(root, tmp_path / "straight", epochs=3)).state_dict()
    predict, calls = fit.predict, []

    def interrupted(*arguments: object) -> np.ndarray:
        calls.append(1)
        if len(calls) == 2:  # in the second epoch, before it is saved
            raise KeyboardInterrupt
        return predict(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fit, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit.fit(recipe(root, tmp_path / "broken", epochs=3))
    with pytest.raises(FileNotFoundError, match="not finished"):
        fit.final_weights(tmp_path / "broken")
    resumed = fit.fit(recipe(root, tmp_path / "broken", epochs=3)).state_dict()
    assert len((tmp_path / "broken" / "log.jsonl").read_text().splitlines()) == 3
    for name, value in straight.items():
        assert torch.equal(value, resumed[name]), name


def test_a_checkpoint_of_another_preset_is_refused(root: Path, tmp_path: Path) -> None:
    fit.fit(recipe(root, tmp_path / "run", epochs=1))
    state = tmp_path / "run" / "state.json"
    state.write_text(state.read_text().replace('"small"', '"giqa-b"'))
    with pytest.raises(ValueError, match="giqa-b"):
        fit.fit(recipe(root, tmp_path / "run", epochs=2))
