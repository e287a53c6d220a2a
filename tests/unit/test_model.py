"""The presets as PyTorch models: contract, heads, freezing, loading.

Weights are random and spread out, so that no output is constant by accident.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from giqa import contract
from training.model import PRESETS, Giqa, create
from training.model.attention import ChannelAttention
from training.model.backbones import load_cut, weights
from training.model.branches import GlobalBranch, Normalize
from training.model.fusion import Fusion, MapHead
from training.model.moments import cell_moments
from training.recipe import Freeze, Optimisation
from training.trainee import freeze, groups

GRID, TOKENS = contract.GRID, contract.GRID**2
WIDTH, CONTEXTS = PRESETS["giqa-s"].dim, PRESETS["giqa-s"].context_tokens


def randomized(name: str) -> Giqa:
    torch.manual_seed(len(name))
    model = create(name)
    with torch.no_grad():
        for part in (model.local_branch, model.fusion):
            for key, value in part.state_dict().items():
                if key.endswith("running_var"):
                    value.uniform_(0.5, 1.5)
                elif not value.any() and value.ndim == 2:
                    value.normal_(0, 0.1)  # what starts at nothing
                elif value.ndim == 1 and key.endswith("bias"):
                    value.normal_(0, 0.3)
                elif value.ndim == 1 and key.endswith("weight"):
                    value.uniform_(0.5, 1.5)  # timm starts residual branches at zero
    return model


@pytest.fixture(scope="module")
def small() -> Giqa:
    return randomized("giqa-s")


@pytest.fixture(scope="module")
def glint() -> Giqa:
    return randomized("glint")


def views(model: Giqa, batch: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    sides = model.preset.global_branch.view, model.preset.local_branch.view
    coarse, fine = (
        torch.randint(0, 256, (batch, count, s, s, 3), generator=draw, dtype=torch.uint8)
        for s in sides
    )
    return coarse, fine


def tokens(fusion_of: Giqa, batch: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    stages, preset = len(fusion_of.preset.global_branch.blocks), fusion_of.preset
    return (
        torch.randn(batch, count, stages, preset.tokens, preset.dim, generator=draw),
        torch.randn(batch, count, preset.tokens, preset.dim, generator=draw),
    )


# --- the contract ---


@pytest.mark.parametrize("name", sorted(PRESETS))
@torch.inference_mode()
def test_tensors_have_the_contracts_shapes(name: str, request: pytest.FixtureRequest) -> None:
    known = {"giqa-s": "small", "glint": "glint"}
    model = request.getfixturevalue(known[name]) if name in known else randomized(name)
    batch, count = 1, 1 if name == "giqa-b" else 3  # giqa-b is the costly one
    coarse, fine = views(model, batch, count)
    stages, local = model.global_branch(coarse), model.local_branch(fine)
    each = model.preset.tokens, model.preset.dim
    assert each == (TOKENS + model.preset.context_tokens, model.preset.dim)
    assert stages.shape == (batch, count, len(model.preset.global_branch.blocks), *each)
    assert local.shape == (batch, count, *each)
    outputs = model.fusion(stages, local)
    assert outputs[0].shape == (batch, 1)
    assert ((outputs[0] >= contract.SCORE_MIN) & (outputs[0] <= contract.SCORE_MAX)).all()
    if model.preset.head == "map":
        assert outputs[1].shape == (batch, count, GRID, GRID)
        assert ((outputs[1] >= 0) & (outputs[1] <= contract.SCORE_MAX)).all()
    assert all(t.dtype == torch.float32 for t in (stages, local, *outputs))


@torch.inference_mode()
def test_forward_is_branches_and_fusion(small: Giqa) -> None:
    coarse, fine = views(small, 2, 1)
    score, quality = small(coarse, fine)
    expected = small.fusion(small.global_branch(coarse), small.local_branch(fine))
    assert torch.equal(score, expected[0])
    assert torch.equal(quality, expected[1])


@torch.inference_mode()
def test_glint_has_no_map(glint: Giqa) -> None:
    outputs = glint.fusion(*tokens(glint, 2, 3))
    assert [tuple(o.shape) for o in outputs] == [(2, 1)]


@torch.inference_mode()
def test_half_precision_tokens_are_accepted(small: Giqa) -> None:
    stages, local = tokens(small, 2, 1)
    full = small.fusion(stages, local)[0]
    half = small.fusion(stages.half(), local.half())[0]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.05, rtol=0)


@torch.inference_mode()
def test_views_are_normalised_as_timm_does() -> None:
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    pixels = torch.randint(0, 256, (2, 3, 5, 4, 3), dtype=torch.uint8)
    image = pixels.flatten(0, 1).permute(0, 3, 1, 2) / 255
    expected = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(Normalize(mean, std)(pixels), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["giqa-s", "glint"])
@torch.inference_mode()
def test_taps_equal_the_uncut_backbones(name: str, request: pytest.FixtureRequest) -> None:
    import timm

    model = request.getfixturevalue("small" if name == "giqa-s" else "glint")
    spec_g, spec_l = model.preset.global_branch, model.preset.local_branch
    coarse, fine = views(model, 1, 1)
    vit = timm.create_model(spec_g.backbone, pretrained=False).eval()
    vit.load_state_dict(model.global_branch.backbone.state_dict(), strict=False)
    _, taps = vit.forward_intermediates(
        model.global_branch.normalize(coarse),
        indices=list(spec_g.blocks),
        norm=False,
        output_fmt="NLC",
        stop_early=True,
    )
    torch.testing.assert_close(
        model.global_branch.tokens(coarse)[:, :, 1:], torch.stack(taps, 1), atol=1e-4, rtol=1e-4
    )
    cnn = timm.create_model(spec_l.backbone, pretrained=False).eval()
    cnn.load_state_dict(model.local_branch.backbone.state_dict(), strict=False)
    image = model.local_branch.normalize(fine)
    stages = cnn.forward_intermediates(image, intermediates_only=True)
    ours = model.local_branch.backbone(image)
    assert len(ours) == len(spec_l.stages)
    for i, stage in zip(spec_l.stages, ours, strict=True):
        torch.testing.assert_close(stage, stages[i], atol=1e-4, rtol=1e-4)


def test_a_tap_without_projection_must_have_the_tokens_width() -> None:
    odd = dataclasses.replace(PRESETS["glint"], dim=192)
    with pytest.raises(ValueError, match=r"vit_small_patch16_224\S* is 384 wide, D is 192"):
        GlobalBranch(odd)


def test_stages_must_tile_the_grid() -> None:
    spec = dataclasses.replace(PRESETS["glint"].local_branch, view=256)
    with pytest.raises(ValueError, match="do not tile a 14-cell grid"):
        create(dataclasses.replace(PRESETS["glint"], local_branch=spec))


# --- heads ---


@torch.inference_mode()
def test_the_score_is_the_weighted_mean_of_the_map(small: Giqa) -> None:
    stages, local = tokens(small, 2, 3)
    score, quality = small.fusion(stages, local)
    head = small.fusion.head
    assert isinstance(head, MapHead)
    detail = small.fusion.details(local[:, :, TOKENS:], 3).flatten(0, 1)
    fused = small.fusion.integrate(stages.flatten(0, 1), local.flatten(0, 1), detail)
    weight = head.cells(fused, detail)[1]
    mean = (weight * quality.reshape(6, TOKENS)).sum(-1).reshape(2, 3).mean(1, keepdim=True)
    torch.testing.assert_close(score, mean)
    assert quality.std() > 0.1, "a flat map would prove nothing"
    assert (weight.amax(-1) > 1.05 / TOKENS).all(), "equal weights would prove nothing"


@torch.inference_mode()
def test_calibration_moves_map_and_score_together() -> None:
    torch.manual_seed(0)
    head = MapHead(PRESETS["giqa-s"]).eval()
    nn.init.normal_(head.quality.weight, std=0.1)
    fused, detail = judged()
    before = head(fused, detail)[1] / 100
    head.calibration.copy_(torch.tensor([2.0, -0.5]))
    score, after = head(fused, detail)
    torch.testing.assert_close(
        torch.logit(after / 100), 2 * torch.logit(before) - 0.5, rtol=1e-4, atol=1e-4
    )
    assert ((after.flatten(1).amin(1) <= score) & (score <= after.flatten(1).amax(1))).all()
    assert "calibration" in head.state_dict()


@torch.inference_mode()
def test_the_pooled_head_maps_its_range_and_clips(glint: Giqa) -> None:
    preset = dataclasses.replace(PRESETS["glint"], score_range=(1.0, 5.0))
    head = Fusion(preset).eval().head
    assert not isinstance(head, MapHead)
    for raw, score in ((0.0, 0.0), (1.0, 0.0), (2.0, 25.0), (5.0, 100.0), (6.0, 100.0)):
        nn.init.zeros_(head.get_parameter("mlp.3.weight"))
        nn.init.constant_(head.get_parameter("mlp.3.bias"), raw)
        got, quality = head(torch.randn(3, TOKENS, 384), torch.empty(3, 0))
        assert quality is None
        torch.testing.assert_close(got, torch.full((3,), score))


def test_a_pooled_head_out_of_range_still_learns() -> None:
    head = Fusion(PRESETS["glint"]).train().head
    nn.init.constant_(head.get_parameter("mlp.3.bias"), -50.0)
    score, _ = head(torch.randn(3, TOKENS, 384), torch.empty(3, 0))
    assert (score < 0).all()
    score.sum().backward()
    gradient = head.get_parameter("mlp.3.bias").grad
    assert gradient is not None
    assert gradient.abs() > 0


@pytest.mark.parametrize("name", ["small", "glint"])
@torch.inference_mode()
def test_views_are_averaged(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    stages, local = tokens(model, 1, 3)
    together = model.fusion(stages, local)
    apart = [model.fusion(stages[:, i : i + 1], local[:, i : i + 1]) for i in range(3)]
    mean = torch.stack([a[0] for a in apart]).mean(0)
    torch.testing.assert_close(together[0], mean, atol=1e-3, rtol=0)
    if len(together) > 1:
        maps = torch.cat([a[1] for a in apart], 1)
        torch.testing.assert_close(together[1], maps, atol=1e-3, rtol=0)


@torch.inference_mode()
def test_the_learned_temperature_starts_at_the_root_of_the_tokens() -> None:
    learned = ChannelAttention(PRESETS["giqa-s"], TOKENS)
    fixed = ChannelAttention(PRESETS["glint"], TOKENS)
    assert learned.log_scale is not None
    assert learned.log_scale.exp().item() == pytest.approx(TOKENS**0.5)
    assert fixed.log_scale is None
    assert fixed.scale == pytest.approx(TOKENS**-0.5)


# --- independence ---


@torch.inference_mode()
def test_neighbours_and_order_change_no_score(small: Giqa) -> None:
    coarse, fine = views(small, 3, 1)
    together = small(coarse, fine)
    order = torch.tensor([2, 0, 1])
    shuffled = small(coarse[order], fine[order])
    alone = small(coarse[1:2], fine[1:2])
    assert together[0].std() > 0.01, "equal scores would prove nothing"
    for whole, mixed, single in zip(together, shuffled, alone, strict=True):
        torch.testing.assert_close(mixed, whole[order], atol=1e-3, rtol=0)
        torch.testing.assert_close(single, whole[1:2], atol=1e-3, rtol=0)


@torch.inference_mode()
def test_dropout_is_off_in_evaluation_only(glint: Giqa) -> None:
    stages, local = (t.flatten(0, 1) for t in tokens(glint, 1, 1))
    fusion = glint.fusion
    try:
        first, second = (fusion.integrate(stages, local, None) for _ in range(2))
        assert torch.equal(first, second)
        fusion.train()
        first, second = (fusion.integrate(stages, local, None) for _ in range(2))
        assert not torch.equal(first, second)
    finally:
        fusion.eval()


# --- contexts ---


@torch.inference_mode()
def test_contexts_follow_the_grids_tokens(small: Giqa) -> None:
    coarse, fine = views(small, 2, 1)
    raw, stages = small.global_branch.tokens(coarse), small.local_branch.stages(fine)
    pooled = small.global_branch.pool(raw)
    expected = [c(pooled[:, i]) for i, c in enumerate(small.global_branch.context)]
    carried = small.global_branch.embed(raw)[:, :, TOKENS:]
    torch.testing.assert_close(carried, torch.stack(expected, 1), atol=1e-5, rtol=1e-5)
    local = small.local_branch.embed(stages)[:, TOKENS:]
    assert small.local_branch.context is not None
    expected_local = small.local_branch.context(small.local_branch.pool(stages))
    torch.testing.assert_close(local, expected_local, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_pooled_features_are_moments(small: Giqa) -> None:
    raw = torch.randn(2, 3, 197, 768)
    pooled = small.global_branch.pool(raw)
    torch.testing.assert_close(pooled[..., :768], raw[:, :, 0])
    torch.testing.assert_close(pooled[..., 768:1536], raw[:, :, 1:].mean(2))
    spread = raw[:, :, 1:].std(2, correction=0)
    torch.testing.assert_close(pooled[..., 1536:], spread, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_cell_moments() -> None:
    x = torch.randn(2, 5, 28, 28)
    found = cell_moments(x, 14).unflatten(2, (14, 14))
    cells = x.unflatten(3, (14, 2)).unflatten(2, (14, 2)).permute(0, 1, 2, 4, 3, 5).flatten(4)
    torch.testing.assert_close(found[:, :5], cells.mean(-1))
    spread = cells.std(-1, correction=0)
    torch.testing.assert_close(found[:, 5:], spread, atol=2e-3, rtol=1e-3)
    assert cell_moments(torch.randn(1, 5, 14, 14), 14).shape == (1, 5, 196)


def judged(count: int = 2) -> tuple[Tensor, Tensor]:
    """What a head takes: fused tokens, and the detail of each cell."""
    return torch.randn(count, TOKENS + CONTEXTS, WIDTH), torch.randn(
        count, TOKENS, CONTEXTS * WIDTH
    )


@torch.inference_mode()
def test_cells_see_their_own_detail_and_all_see_the_whole(small: Giqa) -> None:
    head = small.fusion.head
    assert isinstance(head, MapHead)
    fused, detail = judged(1)
    before = head.cells(fused, detail)[0]
    there = detail.clone()
    there[:, 5] += 1
    there[:, 6] -= 1  # the mean over cells, which all see, stays
    moved = (head.cells(fused, there)[0] - before).abs()[0] > 1e-3
    assert set(moved.nonzero().flatten().tolist()) == {5, 6}
    fused[:, TOKENS:] += 1
    assert ((head.cells(fused, detail)[0] - before).abs() > 1e-5).float().mean() > 0.99


@torch.inference_mode()
def test_in_training_some_pictures_cells_judge_alone() -> None:
    torch.manual_seed(0)
    preset = dataclasses.replace(PRESETS["giqa-s"], dropout=0.0, context_dropout=(0.0, 0.0))
    head = MapHead(preset).train()
    fused, detail = judged(400)
    other = fused.clone()
    other[:, TOKENS:] += 1
    logits = []
    for tokens_ in (fused, other):
        torch.manual_seed(1)
        logits.append(head.cells(tokens_, detail)[0])
    alone = (logits[0] == logits[1]).all(1)
    assert alone.float().mean().item() == pytest.approx(0.25, abs=0.08)


def test_channels_are_dropped_of_all_cells_alike(small: Giqa) -> None:
    branch = copy.deepcopy(small.global_branch.project[0]).train()
    torch.manual_seed(0)
    found = branch[1](torch.ones(3, TOKENS, 768))
    assert torch.equal(found, found[:, :1].expand_as(found))
    share = (found[:, 0] == 0).float().mean(1)
    assert share.tolist() == pytest.approx([small.preset.token_dropout] * 3, abs=0.06)
    assert not torch.equal(found[0], found[1]), "each picture drops its own"
    assert found.mean().item() == pytest.approx(1, abs=0.1)


@torch.inference_mode()
def test_fusion_merges_contexts_and_cells(small: Giqa) -> None:
    stages, local = (t.flatten(0, 1) for t in tokens(small, 1, 1))
    detail = torch.randn(1, TOKENS, CONTEXTS * WIDTH)
    before = small.fusion.integrate(stages, local, detail)
    for part in (slice(0, TOKENS), slice(TOKENS, None)):
        changed = stages.clone()
        changed[..., part, :] += torch.randn_like(changed[..., part, :])
        after = small.fusion.integrate(changed, local, detail)
        for there in (slice(0, TOKENS), slice(TOKENS, None)):
            assert ((after - before)[:, there].abs() > 1e-5).float().mean() > 0.9


# --- tiles ---


@torch.inference_mode()
def test_details_are_the_tile_of_a_cells_quarter_or_the_views_own(small: Giqa) -> None:
    own = torch.randn(2, 5, CONTEXTS, WIDTH)
    placed = small.fusion.details(own, 1).unflatten(2, (GRID, GRID))
    for row, column, tile in ((0, 0, 1), (6, 6, 1), (6, 7, 2), (0, 13, 2), (7, 6, 3), (13, 13, 4)):
        assert torch.equal(placed[:, 0, row, column], own[:, tile].flatten(1))
    alone = small.fusion.details(own[:, :1], 1)
    assert torch.equal(alone, own[:, :1].flatten(2).unsqueeze(2).expand_as(alone))
    several = small.fusion.details(own[:, :3], 3)
    for view in range(3):
        assert torch.equal(several[:, view, 7], own[:, view].flatten(1))


@torch.inference_mode()
def test_a_tile_moves_its_quarter_of_the_map_most(small: Giqa) -> None:
    stages, local = tokens(small, 1, 1)
    local = torch.cat([local, torch.randn(1, 4, *local.shape[2:])], 1)
    before = small.fusion(stages, local)[1][0, 0]
    local[:, 2, TOKENS:] += 2
    moved = (small.fusion(stages, local)[1][0, 0] - before).abs()
    quarters = [moved[:7, :7], moved[:7, 7:], moved[7:, :7], moved[7:, 7:]]
    assert max(range(4), key=lambda i: quarters[i].mean()) == 1
    local[:, 2, :TOKENS] += 2
    again = (small.fusion(stages, local)[1][0, 0] - before).abs()
    assert torch.equal(again, moved), "of a tile its context tokens count"


# --- training mode ---


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


@pytest.mark.parametrize(("blocks", "frozen"), [(None, 6), (4, 4), (0, 0)])
def test_a_recipe_freezes_blocks_and_the_cnn(blocks: int | None, frozen: int) -> None:
    model = create("giqa-s")
    assert freeze(model, Freeze(global_blocks=blocks, local=True)) == frozen
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    backbone = {n for n in learning if ".backbone." in n}
    expected = tuple(f"global_branch.backbone.blocks.{i}." for i in range(frozen, 6))
    assert all(n.startswith(expected) for n in backbone)
    assert len({n.split(".")[3] for n in backbone}) == 6 - frozen
    assert {n for n, _ in model.named_parameters() if ".backbone." not in n} == learning - backbone


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
    assert [k for k, p in parameters.items() if p.grad is None] == []
    grads = {k: p.grad for k, p in parameters.items() if p.grad is not None}
    assert [k for k, g in grads.items() if not g.isfinite().all()] == []
    assert {k for k, g in grads.items() if not g.any()} <= UNMOVED


# --- loading ---


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
