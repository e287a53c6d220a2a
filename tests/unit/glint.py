"""The model of the paper: plain, and written without a look at `training`.

Modules and attributes carry the names of the authors' old checkpoints, the arithmetic is written
from the paper and the reference's facts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

TOKENS = 196


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
