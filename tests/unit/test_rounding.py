"""What rounding stores how, and how far it moves weights."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from build.numerics import SMALL
from training.model import PRESETS, Giqa, create
from training.rounding import int8_scale, round_weights, storage

# `glint` with backbones of a fraction of its cost.
TINY = dataclasses.replace(
    PRESETS["glint"],
    global_branch=dataclasses.replace(
        PRESETS["glint"].global_branch, backbone="vit_tiny_patch16_224", blocks=(0, 1)
    ),
    local_branch=dataclasses.replace(
        PRESETS["glint"].local_branch, backbone="resnet10t", stages=(1, 3)
    ),
    dim=192,
)


@pytest.fixture(scope="module")
def exact() -> Giqa:
    torch.manual_seed(0)
    return create(TINY)


@pytest.fixture(scope="module")
def rounded(exact: Giqa) -> Giqa:
    model = copy.deepcopy(exact)
    round_weights(model)
    return model


VIT = "global_branch.backbone.blocks.0."


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        (VIT + "mlp.fc1.weight", (64, 64), "int8"),
        ("global_branch.backbone.patch_embed.proj.weight", (32, 3, 16, 16), "int8"),
        ("global_branch.backbone.pos_embed", (1, 197, 384), "float16"),
        (VIT + "attn.qkv.weight", (63, 65), "float32"),
        (VIT + "norm1.weight", (768,), "float32"),
        ("global_branch.project.0.1.weight", (192, 768), "int8"),
        ("global_branch.context.0.map.weight", (256, 2304), "int8"),
        ("local_branch.context.map.weight", (256, 1344), "int8"),
        ("local_branch.context.map.bias", (8192,), "float16"),
        ("local_branch.backbone.conv1.weight", (64, 3, 7, 7), "float16"),
        ("local_branch.backbone.bn1.running_mean", (64,), "float32"),
        ("fusion.siem.0.weight", (192, 384, 3, 3), "float16"),
        ("fusion.head.calibration", (2,), "float32"),
    ],
)
def test_the_rule(name: str, shape: tuple[int, ...], kind: str) -> None:
    assert storage(name, torch.zeros(shape)) == kind


def test_counters_are_left_alone() -> None:
    assert storage("x.num_batches_tracked", torch.zeros(SMALL, dtype=torch.int64)) == "float32"


@pytest.mark.parametrize("shape", [(6, 10), (6, 3, 4, 4)])
def test_the_scale_is_per_output_channel_and_positive(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape)
    weight[2] = 0
    scale = int8_scale(weight)
    assert scale.shape == (6, *[1] * (len(shape) - 1))
    assert (scale > 0).all()
    expected = weight.abs().reshape(6, -1).max(1).values / 127
    kept = [0, 1, 3, 4, 5]
    torch.testing.assert_close(scale.flatten()[kept], expected[kept])
    assert ((weight / scale).abs() <= 127.001).all()


def kinds(model: Giqa) -> dict[str, str]:
    return {name: storage(name, tensor) for name, tensor in model.state_dict().items()}


def test_all_kinds_occur(exact: Giqa) -> None:
    assert set(kinds(exact).values()) == {"int8", "float16", "float32"}


def test_each_tensor_moves_as_its_kind_says(exact: Giqa, rounded: Giqa) -> None:
    after = rounded.state_dict()
    for name, before in exact.state_dict().items():
        kind, error = kinds(exact)[name], (after[name] - before).abs()
        assert after[name].dtype == before.dtype
        if kind == "int8":
            scale = int8_scale(before)
            assert (error <= scale * 0.5001).all(), name
            assert error.max() > 0, name
            levels = after[name] / scale
            torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
            assert levels.round().abs().max() == 127, name
        elif kind == "float16":
            assert torch.equal(after[name], before.half().float()), name
        else:
            assert torch.equal(after[name], before), name


def int8_values(model: Giqa) -> dict[str, Tensor]:
    state, kind = model.state_dict(), kinds(model)
    return {
        name: (value / int8_scale(value)).round().clamp(-127, 127).to(torch.int8)
        for name, value in state.items()
        if kind[name] == "int8"
    }


def test_rounding_again_changes_nothing(exact: Giqa, rounded: Giqa) -> None:
    again = copy.deepcopy(rounded)
    round_weights(again)
    before, after = rounded.state_dict(), again.state_dict()
    levels, levels_again = int8_values(rounded), int8_values(again)
    for name, value in after.items():
        if name in levels:
            # The scale is taken anew from 127 * scale, which may cost the last bit of a float32.
            assert torch.equal(levels[name], levels_again[name]), name
            torch.testing.assert_close(value, before[name], rtol=3e-7, atol=0)
        else:
            assert torch.equal(value, before[name]), name


def test_stored_integers_are_those_that_were_rounded_to(exact: Giqa, rounded: Giqa) -> None:
    exact_levels, stored = int8_values(exact), int8_values(rounded)
    assert all(torch.equal(exact_levels[name], stored[name]) for name in exact_levels)


def test_rounding_is_in_place_and_keeps_gradients_possible() -> None:
    model = create(TINY)
    name = "global_branch.backbone.blocks.0.mlp.fc1.weight"
    weight = model.get_parameter(name)
    place = weight.data_ptr()
    round_weights(model)
    assert weight.data_ptr() == place
    assert weight.requires_grad
    assert model.get_parameter(name) is weight
