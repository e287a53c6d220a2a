"""Tensors, heads, and scores that no neighbour changes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from giqa import contract
from tests.unit.model.made import GRID, TOKENS, judged, randomized, tokens, views
from training.model import PRESETS, Giqa, create
from training.model.attention import ChannelAttention
from training.model.branches import GlobalBranch, Normalize
from training.model.fusion import Fusion, MapHead


@pytest.mark.parametrize("name", sorted(PRESETS))
@torch.inference_mode()
def test_tensors_have_the_contracts_shapes(name: str, request: pytest.FixtureRequest) -> None:
    known = {"giqa-s": "small", "glint": "glint"}
    model = request.getfixturevalue(known[name]) if name in known else randomized(name)
    batch, count = 1, 1 if name == "giqa-b" else 3  # giqa-b is the costly one
    coarse, fine = views(model, batch, count)
    stages, local = model.global_branch(coarse), model.local_branch(fine)
    assert model.preset.tokens == TOKENS + model.preset.context_tokens
    each = TOKENS + model.preset.more_tokens, model.preset.dim
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


@torch.inference_mode()
def test_the_score_is_the_weighted_mean_of_the_map(small: Giqa) -> None:
    stages, local = tokens(small, 2, 3)
    score, quality = small.fusion(stages, local)
    head = small.fusion.head
    assert isinstance(head, MapHead)
    detail = small.fusion.details(local[:, :, TOKENS:], 3).flatten(0, 1)
    *sent, term = small.fusion.parted(stages.flatten(0, 1), local.flatten(0, 1), detail)
    weight = head.cells(small.fusion.integrate(*sent), sent[-1], term)[1]
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
