"""What is found before work begins, what a run records, and what progress tells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from giqa.bundle import load_bundle
from giqa.errors import UsageError
from tests import small
from training import card, fit, progress, provenance
from training import recipe as recipes
from training.__main__ import main
from training.evaluation import rounds
from training.model import PRESETS, Giqa, backbones, create, presets
from training.progress import Progress

pytestmark = pytest.mark.usefixtures("small_presets")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make_root(tmp_path_factory.mktemp("data"))


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(Giqa, "load_backbones", load)


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"optimisation__warmup_steps": 12},
            "warmup_steps is 12, but 3 epochs of 32 images in batches of 8 are 12 steps: give at",
        ),
        ({"data__validation_more": 4}, "4 validation images order nothing: give 5 or more"),
        ({"data__validation_more": 6}, "6 validation images are too few to calibrate on"),
        ({"data__validation_more": 36}, "4 training images are less than one batch"),
        ({"weights__local_branch": Path("gone.safetensors")}, "gone.safetensors: no such file"),
        ({"weights__start": Path("gone.safetensors")}, "start weights gone.safetensors"),
    ],
)
def test_what_does_not_fit_is_found_before_weights_load(
    root: Path, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    what = small.recipe(root, tmp_path / "run", **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        fit.fit(what)
    assert not (tmp_path / "run").exists()


def test_few_validation_images_are_told_with_numbers(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.check(small.recipe(root, tmp_path))
    told = capsys.readouterr().err
    assert told == (
        "giqa: 8 validation images are few: an SROCC of .9 on them may be 0.41 .. 0.99, and the "
        "epoch is chosen by it\n"
    )


def test_paths_are_relative_to_the_recipe(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    what = small.recipe(Path("../data"), Path("run"), features__folder=Path("/cache"))
    found = recipes.read(small.to_toml(what, tmp_path / "recipes" / "r.toml"))
    assert found.output == tmp_path / "recipes" / "run"
    assert found.data.root == tmp_path / "data"
    assert found.weights.local_branch == tmp_path / "data" / "local_branch.safetensors"
    assert found.features is not None
    assert found.features.folder == Path("/cache")


# --- provenance ---


def test_a_name_without_a_tag_is_refused_and_files_are_recorded(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resnet10t has no tag"):
        backbones.weights("resnet10t", None)
    for preset in ("giqa-s", "giqa-b", "glint"):
        for spec in (PRESETS[preset].global_branch, PRESETS[preset].local_branch):
            assert "." in spec.backbone
    model = create("small")
    paths = (root / "global_branch.safetensors", root / "local_branch.safetensors")
    origins = model.load_backbones(*paths, ("mine, MIT", ""))
    provenance.write(tmp_path, origins)
    assert provenance.read(tmp_path) == origins
    origin = origins["global_branch"]
    assert (origin.source, origin.file, origin.licence) == ("file", paths[0].name, "")
    import hashlib

    assert origin.sha256 == hashlib.sha256(paths[0].read_bytes()).hexdigest()
    assert "licence: not stated in what was read; its user says: mine, MIT" in origin.words()
    assert provenance.read(tmp_path / "nowhere") == {}


# --- towers ---


def test_towers_of_the_default_bundle_make_its_tokens(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["backbones", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    paths = [Path(line) for line in result.stdout.splitlines()]
    model = create("giqa-s")
    origins = model.load_backbones(*paths)
    assert "giqa-s" in origins["local_branch"].licence
    bundle = load_bundle(None)
    import onnxruntime

    views = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (1, 1, 448, 448, 3), dtype=np.uint8)
    )
    # The CNN's deepest stage and the ViT's last block, out of the bundle's own graphs.
    for name, side, inner in (
        ("local_branch", 448, "backbone"), ("global_branch", 224, "backbone")
    ):  # fmt: skip
        import onnx

        graph = onnx.load(bundle.graph(name))
        view = views[:, :, :side, :side].contiguous()
        branch = getattr(model, name)
        with torch.inference_mode():
            if name == "local_branch":
                ours = getattr(branch, inner)(branch.normalize(view))[-1].numpy()
                wanted = [n for n in graph.graph.node if n.op_type == "Conv"][-1].output[0]
            else:
                ours = branch.tokens(view)[0, -1].numpy()
                wanted = ""
        if wanted:
            value = onnx.helper.make_empty_tensor_value_info(wanted)
            graph.graph.output.append(value)
            session = onnxruntime.InferenceSession(graph.SerializeToString())
            theirs = session.run([wanted], {name.upper().replace("BRANCH", "VIEW"): view.numpy()})
            assert ours.shape == theirs[0].shape
            np.testing.assert_allclose(ours, theirs[0], atol=2e-3 * np.abs(theirs[0]).max())
        else:
            assert np.isfinite(ours).all()


# --- backbones of other kinds ---


def other(**changes: object) -> presets.Preset:
    return replace(small.SMALL, global_branch=replace(small.SMALL.global_branch, **changes))


def test_a_vit_without_a_class_token_has_no_patch_in_its_place() -> None:
    with_one = create(small.SMALL).global_branch
    without = create(other(backbone="vit_tiny_patch16_224")).global_branch
    assert with_one.class_token
    tokens = torch.randn(2, 2, 197, 192)
    assert torch.equal(with_one.pool(tokens)[..., :192], tokens[:, :, 0])
    # SigLIP's have none; registers are no picture either.
    none = create(other(backbone="vit_base_patch16_siglip_224")).global_branch
    assert not none.class_token
    assert none.backbone.num_prefix_tokens == 0
    tokens = torch.randn(2, 2, 196, 768)
    pooled = none.pool(tokens)
    assert pooled.shape == (2, 2, 2 * 768)
    torch.testing.assert_close(pooled[..., :768], tokens.mean(2))
    assert none.context[0].map.in_features == 2 * 768
    view = torch.zeros(1, 1, 224, 224, 3, dtype=torch.uint8)
    with torch.inference_mode():
        assert none(view).shape == (1, 1, 2, 196 + 2, 16)
    assert without.backbone.num_prefix_tokens == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"backbone": "resnet18"}, "resnet18 is no ViT of timm's"),
        ({"blocks": (3, 12)}, "has 12 blocks, 13 are wanted"),
        ({"view": 256}, "makes 16 x 16 tokens of 256 pixels, not 14 x 14"),
        ({"backbone": "vit_tiny_patch16_224", "view": 160}, "makes 10 x 10 tokens"),
    ],
)
def test_backbones_that_do_not_fit_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        create(other(**changes))


def test_a_preset_file_names_other_backbones(root: Path, tmp_path: Path) -> None:
    text = """
name = "mine"
dim = 16
[global_branch]
backbone = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
view = 224
blocks = [0, 1]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
project = true
[local_branch]
backbone = "resnet10t.c3_in1k"
view = 224
stages = [1, 3]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
normalize = false
"""
    (tmp_path / "mine.toml").write_text(text)
    what = small.recipe(root, tmp_path / "run", preset="mine.toml")
    try:
        found = recipes.read(small.to_toml(what, tmp_path / "r.toml"))
        assert found.preset == "mine"
        assert create("mine").preset.local_branch.backbone == "resnet10t.c3_in1k"
        (tmp_path / "mine.toml").write_text(text.replace("dim = 16", "dim = 24"))
        with pytest.raises(ValueError, match="there is another preset 'mine'"):
            presets.read(tmp_path / "mine.toml")
    finally:
        PRESETS.pop("mine", None)
    (tmp_path / "mine.toml").write_text("width = 3\n" + text)
    with pytest.raises(ValueError, match="width"):
        presets.read(tmp_path / "mine.toml")


# --- cards ---


def test_a_cards_template_asks_and_claims_nothing(root: Path, tmp_path: Path) -> None:
    file = small.to_toml(small.recipe(root, tmp_path / "run"), tmp_path / "r.toml")
    out = tmp_path / "card.toml"
    assert CliRunner().invoke(main, ["card", str(file), "--out", str(out)]).exit_code == 0
    words = card.read_card(out)
    assert len(words.questions()) == 4
    assert words.summary.startswith("QUESTION: ")
    assert "no licence stated" in words.data["BIQ2021"]
    again = CliRunner().invoke(main, ["card", str(file), "--out", str(out)])
    assert isinstance(again.exception, UsageError)
    what = recipes.read(file)
    text = card.model_card(
        small.SMALL, "1.0.0", [], words, name="ours", told=card.facts(what),
        origins={"global_branch": provenance.Origin(backbone="b.t", source="timm hub", sha256="0")},
    )  # fmt: skip
    assert text.startswith("# ours 1.0.0\n")
    assert "`b.t`: weights from timm hub; licence: not stated in what was read" in text
    assert "3 epochs of 8 images a step; 1 ViT blocks, the CNN frozen." in text


# --- rounds ---


def test_rounds_are_trained_tested_and_told_by_their_median(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{p},{50 + 40 * (i % 2)}" for i, p in enumerate(sorted((root / "Images").iterdir()))]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,mos", *rows]) + "\n")
    what = small.recipe(
        root, tmp_path / "run", preset="tiny", features__folder=tmp_path / "cache",
        data={"dataset": "table", "root": table, "validation_share": 0.25},
        optimisation__epochs=1,
    )  # fmt: skip
    found = rounds.run(what, 2)
    assert [one.n for one in found] == [8, 8]
    assert not (tmp_path / "cache" / "round-1").exists(), "its room is free again"
    assert {r.path for r in found[0].rows} != {r.path for r in found[1].rows}
    learnt = load_file(fit.final_weights(tmp_path / "run" / "round-1"))
    assert learnt

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(rounds, "fit", never)
    assert rounds.run(what, 2) == found
    values = sorted(one.srocc or 0.0 for one in found)
    assert (
        rounds.markdown(found).splitlines()[-1].startswith(f"| median | | {sum(values) / 2:.3f} |")
    )


# --- progress ---


def test_off_a_terminal_progress_is_a_line_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("epoch 1 of 2", 300, unit="steps") as bar:
        for _ in range(300):
            now[0] += 1.0
            bar.update(note="loss 0.5")
        bar.say("kept")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "epoch 1 of 2: 60 of 300 steps, 4 min left, loss 0.5",
        "epoch 1 of 2: 120 of 300 steps, 3 min left, loss 0.5",
        "epoch 1 of 2: 180 of 300 steps, 2 min left, loss 0.5",
        "epoch 1 of 2: 240 of 300 steps, 1 min left, loss 0.5",
        "epoch 1 of 2: 300 of 300 steps, 0 min left, loss 0.5",
        "kept",
    ]
    with Progress("quiet", 3, quiet=True) as bar:
        now[0] += 100
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_a_run_tells_room_before_it_computes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what = small.recipe(
        root, tmp_path, preset="tiny", features__folder=tmp_path / "cache", calibrate=False,
        optimisation__epochs=1, data__images=8, optimisation__warmup_steps=0,
    )  # fmt: skip
    fit.fit(what)
    told = capsys.readouterr().err
    assert "features: 8 rows, 0.00 GiB of " in told
    origin = json.loads((tmp_path / provenance.RECORD).read_text())["local_branch"]
    assert origin["file"] == "local_branch.safetensors"
