"""The `glint` preset against an independent, plain implementation of the paper's model.

The implementation below shares no code with `training`: modules and attributes carry the names of
the authors' old checkpoints, the arithmetic is written from the paper and the reference's facts.
Models are compared in float64, where rounding cannot hide a mistake (CWSA's attention is nearly
uniform: swapped queries and keys move the score by little), and `forward` once more in float32.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from training.model import PRESETS, Giqa, Preset, legacy
from training.model.fusion import Fusion

TOKENS = 196
TIGHT = 1e-6  # relative, float64; the normalisation constants are float32 on one side
LOOSE = 1e-4  # relative, float32


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(384, 3 * 384)
        self.proj = nn.Linear(384, 384)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        query, key, value = (
            part.reshape(batch, tokens, 6, 64).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )
        weight = torch.softmax(torch.einsum("bhic,bhjc->bhij", query, key) / 8, -1)
        mixed = torch.einsum("bhij,bhjc->bhic", weight, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, 384))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(384, 1536), nn.Linear(1536, 384)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        return self.fc2(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(384, eps=1e-6), nn.LayerNorm(384, eps=1e-6)
        self.attn, self.mlp = Attention(), Mlp()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, 384, side, side)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Transformer(nn.Module):
    """ViT-S/16 with the whole of its twelve blocks and its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 384))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + TOKENS, 384))
        self.patch_embed = PatchEmbed(3, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(12))
        self.norm = nn.LayerNorm(384, eps=1e-6)
        self.head = nn.Linear(384, 1000)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), 1, 384), x], 1) + self.pos_embed
        outputs = []
        for block in self.blocks[:10]:
            x = block(x)
            outputs.append(x[:, 1:])
        return outputs[6:10]


class Bottleneck(nn.Module):
    def __init__(self, wide_in: int, narrow: int, stride: int) -> None:
        super().__init__()
        wide = 4 * narrow
        self.conv1 = nn.Conv2d(wide_in, narrow, 1, bias=False)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, 1, bias=False)
        self.conv3 = nn.Conv2d(narrow, wide, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(narrow), nn.BatchNorm2d(narrow)
        self.bn3 = nn.BatchNorm2d(wide)
        self.downsample = (
            nn.Sequential(nn.Conv2d(wide_in, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))
            if wide_in != wide or stride != 1
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Cnn(nn.Module):
    """ResNet-50 up to layer3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self.stage(64, 64, 3, 1)
        self.layer2 = self.stage(256, 128, 4, 2)
        self.layer3 = self.stage(512, 256, 6, 2)

    @staticmethod
    def stage(wide_in: int, narrow: int, depth: int, stride: int) -> nn.Sequential:
        rest = (Bottleneck(4 * narrow, narrow, 1) for _ in range(depth - 1))
        return nn.Sequential(Bottleneck(wide_in, narrow, stride), *rest)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        first = self.layer1(x)
        second = self.layer2(first)
        return [first, second, self.layer3(second)]


class Cwsa(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_q, self.c_k, self.c_v = (nn.Linear(TOKENS, TOKENS) for _ in range(3))
        self.norm = nn.LayerNorm(TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N) to the same shape."""
        query, key = self.c_q(x), self.c_k(x)
        query = query / query.square().sum(-1, keepdim=True).sqrt()
        key = key / key.square().sum(-1, keepdim=True).sqrt()
        logits = torch.einsum("bcn,bdn->bcd", query, key) / math.sqrt(TOKENS)
        weight = logits.exp() / logits.exp().sum(-1, keepdim=True)
        mixed = torch.einsum("bcd,bdn->bcn", weight, self.c_v(x))
        # The scramble: the numbers in (N, C) order, read as if they were in (C, N) order.
        in_token_order = mixed.permute(0, 2, 1).contiguous()
        return x + self.norm(in_token_order.view(x.shape))


class Reference(nn.Module):
    """The paper's model, named as old checkpoints are."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer, self.cnn = Transformer(), Cnn()
        self.patch_embed1 = PatchEmbed(256, 4)
        self.patch_embed2 = PatchEmbed(512, 2)
        self.patch_embed3 = PatchEmbed(1024, 1)
        self.att_cnn = Cwsa()
        self.proj = nn.Linear(3 * 384, 384)
        for i in range(1, 5):
            setattr(self, f"fusion{i}", Cwsa())
            setattr(self, f"conv{i}", nn.Conv2d(768, 384, 3, 1, 1, bias=False))
        self.out = nn.Sequential(
            nn.Linear(384, 384), nn.GELU(), nn.Dropout(), nn.Linear(384, 1)
        )  # fmt: skip

    def local_tokens(self, image: Tensor) -> Tensor:
        embeds = (self.patch_embed1, self.patch_embed2, self.patch_embed3)
        parts = [e(x) for e, x in zip(embeds, self.cnn(image), strict=True)]
        mixed = self.att_cnn(torch.cat(parts, -1).transpose(1, 2))
        return self.proj(mixed.transpose(1, 2))

    def score(self, global_tokens: list[Tensor], local_tokens: Tensor) -> Tensor:
        current = local_tokens
        for i, stage in enumerate(global_tokens, 1):
            both = torch.cat([stage, current], 2).transpose(1, 2)
            mixed = getattr(self, f"fusion{i}")(both).reshape(len(both), 768, 14, 14)
            current = getattr(self, f"conv{i}")(mixed).flatten(2).transpose(1, 2)
        return self.out(current.mean(1)).flatten()

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 224, 224, 3) uint8 to global tokens, local tokens and raw scores."""
        dtype = self.proj.weight.dtype
        image = (views.to(dtype) / 255 - 0.5) / 0.5
        image = image.permute(0, 3, 1, 2)
        stages, local = self.transformer(image), self.local_tokens(image)
        return torch.stack(stages, 1), local, self.score(stages, local)


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


# --- loading ---


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


# --- files ---

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
