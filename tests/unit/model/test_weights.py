"""What learns in training, and weights that are loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.unit.model.made import randomized, views
from training.model import PRESETS, Giqa, create
from training.model.backbones import load_cut, weights
from training.model.fusion import MapHead
from training.recipe import Freeze, Optimisation
from training.trainee import freeze, groups


def test_batch_norms_never_move() -> None:
    model = randomized("glint")
    assert model.train() is model
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) > 30
    assert not any(m.training for m in norms)
    assert model.fusion.training
    assert model.local_branch.backbone.training
    before = {k: v.clone() for k, v in model.local_branch.backbone.state_dict().items()}
    model.local_branch(views(model, 1, 1)[1])
    after = model.local_branch.backbone.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not any(m.training for m in model.eval().modules())


def _solved_for(name: str) -> bool:
    """The linear term is no step's business."""
    return ".context." in name and ".linear." in name


@pytest.mark.parametrize(("blocks", "frozen"), [(None, 6), (4, 4), (0, 0)])
def test_a_recipe_freezes_blocks_and_the_cnn(blocks: int | None, frozen: int) -> None:
    model = create("giqa-s")
    assert freeze(model, Freeze(global_blocks=blocks, local=True)) == frozen
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    backbone = {n for n in learning if ".backbone." in n}
    expected = tuple(f"global_branch.backbone.blocks.{i}." for i in range(frozen, 6))
    assert all(n.startswith(expected) for n in backbone)
    assert len({n.split(".")[3] for n in backbone}) == 6 - frozen
    others = {n for n, _ in model.named_parameters() if ".backbone." not in n}
    assert {n for n in others if not _solved_for(n)} == learning - backbone


def test_parameter_groups_hold_every_learning_parameter_once() -> None:
    model = create("giqa-s")
    freeze(model, Freeze(global_blocks=4))
    options = Optimisation(
        epochs=1, batch=2, lr=1e-3, backbone_lr=1e-5, weight_decay=0.1, warmup_steps=0, ema=0
    )
    found = groups(model, options)
    inside = [p for g in found for p in g["params"]]
    assert {id(p) for p in inside} == {id(p) for p in model.parameters() if p.requires_grad}
    assert len({id(p) for p in inside}) == len(inside)
    assert {(g["lr"], g["weight_decay"]) for g in found} == {
        (1e-3, 0.1), (1e-5, 0.1), (1e-3, 0.0), (1e-5, 0.0),
    }  # fmt: skip
    named = {id(p): n for n, p in model.named_parameters()}
    slow = {named[id(p)] for g in found if g["lr"] == 1e-5 for p in g["params"]}
    assert slow == {
        n for n in named.values() if n.startswith("global_branch.backbone.blocks.4")
    } | {n for n in named.values() if n.startswith("global_branch.backbone.blocks.5")}


def test_more_frozen_blocks_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="6 ViT blocks, 7"):
        freeze(create("giqa-s"), Freeze(global_blocks=7))


# Softmax ignores what is added to all of its inputs: no gradient, exactly or up to rounding.
UNMOVED = {"fusion.head.weight.bias"}


@pytest.mark.parametrize("name", ["giqa-s", "glint"])
def test_gradients_reach_every_parameter(name: str) -> None:
    model = randomized(name).train()
    coarse, fine = views(model, 1, 1)
    stages, local = model.global_branch(coarse), model.local_branch(fine)
    head = model.fusion.head
    if isinstance(head, MapHead):
        torch.manual_seed(0)
        # A quarter of the pictures' cells judge alone, and most features are dropped.
        loss = sum(model.fusion(stages, local)[0].sum() for _ in range(9))
    else:  # before the clipping to 0..100, which stops gradients
        loss = head.raw(
            model.fusion.integrate(stages.flatten(0, 1), local.flatten(0, 1), None)
        ).sum()
    loss.backward()
    parameters = dict(model.named_parameters())
    assert [k for k, p in parameters.items() if p.grad is None and not _solved_for(k)] == []
    grads = {k: p.grad for k, p in parameters.items() if p.grad is not None}
    assert [k for k, g in grads.items() if not g.isfinite().all()] == []
    assert {k for k, g in grads.items() if not g.any()} <= UNMOVED


def test_create_is_strict() -> None:
    glint = PRESETS["glint"]
    vit = dataclasses.replace(glint.global_branch, backbone="vit_tiny_patch16_224", blocks=(0,))
    cnn = dataclasses.replace(glint.local_branch, backbone="resnet10t")
    tiny = dataclasses.replace(glint, global_branch=vit, local_branch=cnn, dim=192)
    state = create(tiny).state_dict()
    loaded = create(tiny, state)
    assert not loaded.training
    assert all(torch.equal(v, state[k]) for k, v in loaded.state_dict().items())
    with pytest.raises(RuntimeError, match=r"fusion\.siem\.0\.weight"):
        create(tiny, {k: v for k, v in state.items() if k != "fusion.siem.0.weight"})
    with pytest.raises(KeyError, match="giqa-xl"):
        create("giqa-xl")


class Backbone(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(blocks))
        self.bn = nn.BatchNorm1d(2)


def test_a_cut_backbone_takes_its_part_of_the_weights() -> None:
    whole, cut = Backbone(4), Backbone(2)
    state = {k: v for k, v in whole.state_dict().items() if "num_batches" not in k}
    load_cut(cut, state, what="toy")
    assert torch.equal(cut.get_parameter("blocks.1.bias"), whole.get_parameter("blocks.1.bias"))


def test_a_cut_backbone_refuses_what_does_not_fit() -> None:
    state = dict(Backbone(4).state_dict())
    with pytest.raises(ValueError, match=r"toy: .* missing \['blocks.1.bias'\], other shape \[\]"):
        load_cut(Backbone(2), {k: v for k, v in state.items() if k != "blocks.1.bias"}, what="toy")
    with pytest.raises(ValueError, match=r"toy: .* missing \[\], other shape \['bn.weight'\]"):
        load_cut(Backbone(2), {**state, "bn.weight": torch.ones(3)}, what="toy")


def test_backbones_load_from_files(small: Giqa, tmp_path: Path) -> None:
    vit = {k: v + 1 for k, v in small.global_branch.backbone.state_dict().items()}
    cnn = dict(small.local_branch.backbone.state_dict())
    save_file(vit, tmp_path / "vit.safetensors")
    save_file({"classifier.bias": torch.ones(3), **cnn}, tmp_path / "cnn.safetensors")
    model = create("giqa-s")
    model.load_backbones(tmp_path / "vit.safetensors", tmp_path / "cnn.safetensors")
    loaded = {
        **{f"global_branch.backbone.{k}": v for k, v in vit.items()},
        **{f"local_branch.backbone.{k}": v for k, v in cnn.items()},
    }
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in loaded.items())
    with pytest.raises(
        ValueError, match=r"giqa-s: vit_base_patch16_clip_quickgelu_224\S*: weights"
    ):
        model.load_backbones(tmp_path / "cnn.safetensors", tmp_path / "cnn.safetensors")
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors: no such file"):
        weights("resnet50", tmp_path / "gone.safetensors")
