"""The `glint` preset against an independent, plain implementation of the paper's model.

Models are compared in float64, where rounding cannot hide a mistake (CWSA's attention is nearly
uniform: swapped queries and keys move the score by little), and `forward` once more in float32.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.unit.glint import Reference
from training.model import PRESETS, Giqa, Preset, legacy
from training.model.fusion import Fusion

TIGHT = 1e-6  # relative, float64; the normalisation constants are float32 on one side
LOOSE = 1e-4  # relative, float32


@pytest.fixture(scope="module")
def reference() -> Reference:
    torch.manual_seed(0)
    model = Reference().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("running_mean") or "embed" in name.rpartition(".")[2]:
                tensor.normal_(0, 0.3)
            elif tensor.ndim == 1 and name.endswith("weight"):
                tensor.uniform_(0.7, 1.3)  # norms, away from the identity
            elif tensor.ndim == 1 and name.endswith("bias"):
                tensor.normal_(0, 0.1)
        model.transformer.cls_token.normal_()
        model.get_parameter("out.3.weight").mul_(3)
        # Raw scores well inside 0..1, where nothing is clipped.
        model.get_parameter("out.3.bias").fill_(0.5)
    return model


@pytest.fixture(scope="module")
def state(reference: Reference) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in reference.state_dict().items()}


@pytest.fixture(scope="module")
def views() -> Tensor:
    coarse = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    image = nn.functional.interpolate(coarse, size=(224, 224), mode="bicubic").clamp(0, 1)
    return (255 * image).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.fixture(scope="module")
def expected(reference: Reference, views: Tensor) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        return copy.deepcopy(reference).double()(views)


@pytest.fixture(scope="module")
def loaded(state: dict[str, Tensor]) -> Giqa:
    return legacy.load_legacy(state)


def run(model: Giqa, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Global tokens, local tokens and raw scores, computed in float64."""
    wide = copy.deepcopy(model).double()
    with torch.inference_mode():
        stages = wide.global_branch(views[:, None]).flatten(0, 1)
        local = wide.local_branch(views[:, None]).flatten(0, 1)
        return stages, local, raw(wide.fusion, stages, local)


def raw(fusion: Fusion, stages: Tensor, local: Tensor) -> Tensor:
    head: Any = fusion.head
    scores: Tensor = head.raw(fusion.integrate(stages, local, None))
    return scores


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    return float((ours.double() - theirs).abs().max() / theirs.abs().max())


def test_tokens_and_scores_equal_the_independent_model(
    loaded: Giqa, views: Tensor, expected: tuple[Tensor, ...]
) -> None:
    stages, local, scores = run(loaded, views)
    assert stages.shape == (2, 4, 196, 384)
    assert local.shape == (2, 196, 384)
    assert difference(stages, expected[0]) < TIGHT
    assert difference(local, expected[1]) < TIGHT
    assert difference(scores, expected[2]) < TIGHT
    assert abs(expected[2][0] - expected[2][1]) > 100 * TIGHT, "two pictures, two scores"


def test_forward_in_float32_is_the_linear_mapping_of_the_raw_score(
    loaded: Giqa, views: Tensor, expected: tuple[Tensor, ...]
) -> None:
    with torch.inference_mode():
        stages = loaded.global_branch(views[:, None])
        local = loaded.local_branch(views[:, None])
        (score,) = loaded.fusion(stages, local)
    assert difference(stages.flatten(0, 1), expected[0]) < LOOSE
    assert difference(local.flatten(0, 1), expected[1]) < LOOSE
    assert ((expected[2] > 0.05) & (expected[2] < 0.95)).all(), "nothing clipped"
    assert difference(score[:, 0], 100 * expected[2]) < LOOSE


def fusion_of(model: Giqa, preset: Preset = PRESETS["glint"]) -> Fusion:
    """A copy of a model's fusion, perhaps of another preset, for float64."""
    fusion = Fusion(preset).eval()
    fusion.load_state_dict(model.fusion.state_dict())
    return fusion.double()


def change(state: dict[str, Tensor], first: str, second: str) -> dict[str, Tensor]:
    """Swap two modules' tensors."""
    swap = {first: second, second: first}
    moved = {}
    for key, value in state.items():
        prefix = next((p for p in swap if key.startswith(p)), "")
        moved[swap.get(prefix, "") + key[len(prefix) :]] = value
    return moved


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("fusion1.c_q.", "fusion1.c_k."),
        ("fusion3.c_q.", "fusion3.c_v."),
        ("fusion2.", "fusion3."),
        ("conv3.", "conv4."),
    ],
)
def test_swapped_modules_would_be_noticed(
    loaded: Giqa,
    state: dict[str, Tensor],
    expected: tuple[Tensor, ...],
    first: str,
    second: str,
) -> None:
    swapped = legacy.translate(change(state, first, second), loaded.state_dict())
    fusion = fusion_of(loaded)
    fusion.load_state_dict(
        {k.removeprefix("fusion."): v for k, v in swapped.items() if k.startswith("fusion.")}
    )
    with torch.inference_mode():
        assert difference(raw(fusion, expected[0], expected[1]), expected[2]) > 10 * TIGHT


def test_without_the_scramble_the_scores_differ(loaded: Giqa, expected: tuple[Tensor, ...]) -> None:
    plain = fusion_of(loaded, dataclasses.replace(PRESETS["glint"], scrambled=False))
    with torch.inference_mode():
        assert difference(raw(plain, expected[0], expected[1]), expected[2]) > 10 * LOOSE


@pytest.fixture(scope="module")
def own(loaded: Giqa) -> dict[str, Tensor]:
    return {key: torch.zeros_like(value) for key, value in loaded.state_dict().items()}


def equal(translated: dict[str, Tensor], loaded: Giqa) -> bool:
    theirs = loaded.state_dict()
    return translated.keys() == theirs.keys() and all(
        torch.equal(translated[k], theirs[k]) for k in theirs
    )


def test_every_tensor_of_the_preset_comes_from_the_state(
    loaded: Giqa, own: dict[str, Tensor], state: dict[str, Tensor]
) -> None:
    assert not loaded.training
    known = {value.numpy().tobytes() for value in state.values()}
    strange = [k for k, v in loaded.state_dict().items() if v.numpy().tobytes() not in known]
    assert strange == []


def test_todays_names_and_a_parallel_prefix_load_alike(
    loaded: Giqa, own: dict[str, Tensor], state: dict[str, Tensor]
) -> None:
    # The authors' own renaming of old checkpoints, which is by whole modules.
    table = {
        "transformer.": "vgfe.backbone.",
        "cnn.": "clfe.backbone.",
        "patch_embed": "clfe.patch_embed",
        "att_cnn.": "local_cwsa.",
        "proj.": "local_projection.",
        "fusion": "cwsa",
        "out.": "quality_head.layers.",
        **{f"conv{i}.": f"siem{i}.conv." for i in range(1, 5)},
    }
    today = {}
    for key, value in state.items():
        prefix = next(p for p in table if key.startswith(p))
        today["module." + table[prefix] + key[len(prefix) :]] = value
    assert equal(legacy.translate(today, own), loaded)


def test_unused_parts_may_be_there_or_not(
    loaded: Giqa, own: dict[str, Tensor], state: dict[str, Tensor]
) -> None:
    unused = ("transformer.blocks.10.", "transformer.blocks.11.", "transformer.norm.",
              "transformer.head.")  # fmt: skip
    assert any(key.startswith(unused) for key in state)
    without = {k: v for k, v in state.items() if not k.startswith(unused)}
    assert equal(legacy.translate(without, own), loaded)
    more = {"cnn.layer4.0.conv1.weight": torch.zeros(512, 1024, 1, 1), "cnn.fc.bias": torch.ones(9)}
    assert equal(legacy.translate({**state, **more}, own), loaded)


def test_counters_of_batch_norm_may_be_missing(
    loaded: Giqa, own: dict[str, Tensor], state: dict[str, Tensor]
) -> None:
    without = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(without) < len(state)
    assert equal(legacy.translate(without, own), loaded)


@pytest.mark.parametrize(
    "key",
    [
        "transformer.pos_embed",
        "transformer.blocks.9.mlp.fc2.bias",
        "cnn.layer3.5.bn3.running_var",
        "patch_embed2.proj.bias",
        "att_cnn.c_v.weight",
        "proj.weight",
        "fusion4.norm.bias",
        "conv1.weight",
        "out.3.weight",
    ],
)
def test_a_missing_tensor_is_named(
    own: dict[str, Tensor], state: dict[str, Tensor], key: str
) -> None:
    with pytest.raises(ValueError, match=f"missing {key}$"):
        legacy.translate({k: v for k, v in state.items() if k != key}, own)


@pytest.mark.parametrize(
    "key", ["fusion5.c_q.weight", "transformer.blocks.12.norm1.bias", "cnn.layer5.0.bias", "epoch"]
)
def test_an_unknown_tensor_is_named(
    own: dict[str, Tensor], state: dict[str, Tensor], key: str
) -> None:
    with pytest.raises(ValueError, match=f"unknown {key}$"):
        legacy.translate({**state, key: torch.zeros(1)}, own)


def test_a_tensor_of_another_shape_is_named(
    own: dict[str, Tensor], state: dict[str, Tensor]
) -> None:
    other = {**state, "conv2.weight": torch.zeros(384, 768, 1, 1)}
    with pytest.raises(ValueError, match=r"another shape conv2.weight \(384, 768, 1, 1\) instead"):
        legacy.translate(other, own)


def test_a_tensor_given_twice_is_named(own: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    twice = {**state, "siem1.conv.weight": state["conv1.weight"]}
    with pytest.raises(ValueError, match=r"given twice siem1\.conv\.weight"):
        legacy.translate(twice, own)


def test_a_long_list_of_complaints_is_cut(own: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"missing .* and [0-9]+ more$"):
        legacy.translate({k: v for k, v in state.items() if not k.startswith("cnn.")}, own)


def test_the_score_range_maps_labels_of_any_direction(state: dict[str, Tensor]) -> None:
    tokens = torch.zeros(1, 1, 4, 196, 384), torch.zeros(1, 1, 196, 384)
    falling = legacy.load_legacy(state, score_range=(11.0, -9.0)).fusion
    with torch.inference_mode():
        score = falling(*tokens)[0].item()
        value = raw(falling, tokens[0][0], tokens[1][0]).item()
    assert 0 < score < 100
    assert score == pytest.approx(5 * (11 - value), rel=1e-5)
    with pytest.raises(ValueError, match="is empty"):
        legacy.load_legacy(state, score_range=(1.0, 1.0))


SMALL = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "out.0.bias": torch.ones(2)}


def same(read: dict[str, Tensor]) -> bool:
    return read.keys() == SMALL.keys() and all(torch.equal(read[k], SMALL[k]) for k in SMALL)


def test_checkpoints_are_read(tmp_path: Path) -> None:
    save_file(SMALL, tmp_path / "a.safetensors")
    torch.save(SMALL, tmp_path / "b.pth")
    torch.save({"epoch": 3, "state_dict": SMALL, "best_srocc": 0.9}, tmp_path / "c.pth")
    torch.save({"model": SMALL}, tmp_path / "d.pt")
    for path in sorted(tmp_path.iterdir()):
        assert same(legacy.read_checkpoint(path)), path.name


class Sneaky:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("code of a checkpoint was run",)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "a.bin").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    torch.save({"state_dict": SMALL, "x": Sneaky()}, tmp_path / "sneaky.pth")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=path.name):
            legacy.read_checkpoint(path)
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        legacy.read_checkpoint(tmp_path / "gone.pth")
