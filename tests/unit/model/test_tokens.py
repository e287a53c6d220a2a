"""Contexts, tiles, and what their tokens do to the map."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from tests.unit.model.made import CONTEXTS, GRID, TOKENS, WIDTH, judged, tokens, views
from training.model import PRESETS, Giqa
from training.model.fusion import MapHead
from training.model.moments import cell_moments


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
    stages, local = (t.flatten(0, 1)[..., : small.preset.tokens, :] for t in tokens(small, 1, 1))
    detail = torch.randn(1, TOKENS, CONTEXTS * WIDTH)
    before = small.fusion.integrate(stages, local, detail)
    for part in (slice(0, TOKENS), slice(TOKENS, None)):
        changed = stages.clone()
        changed[..., part, :] += torch.randn_like(changed[..., part, :])
        after = small.fusion.integrate(changed, local, detail)
        for there in (slice(0, TOKENS), slice(TOKENS, None)):
            assert ((after - before)[:, there].abs() > 1e-5).float().mean() > 0.9


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
    local[:, 2, TOKENS : small.preset.tokens] += 2
    moved = (small.fusion(stages, local)[1][0, 0] - before).abs()
    quarters = [moved[:7, :7], moved[:7, 7:], moved[7:, :7], moved[7:, 7:]]
    assert max(range(4), key=lambda i: quarters[i].mean()) == 1
    local[:, 2, :TOKENS] += 2
    again = (small.fusion(stages, local)[1][0, 0] - before).abs()
    assert torch.equal(again, moved), "of a tile its context tokens count"
