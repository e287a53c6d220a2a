"""The two branches: ViT tokens of the whole view, CNN tokens of its detail."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model.attention import ChannelAttention
from training.model.backbones import create
from training.model.presets import GlobalSpec, LocalSpec, Preset


class Normalize(nn.Module):
    """uint8 NHWC views to normalised NCHW floats.

    Args:
        mean: per-channel mean in 0..1.
        std: per-channel standard deviation in 0..1.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean) * 255, persistent=False)
        self.register_buffer("scale", 1 / (torch.tensor(std) * 255), persistent=False)

    def forward(self, views: Tensor) -> Tensor:
        """(B, V, H, W, 3) uint8 to (B * V, 3, H, W) float32."""
        # The cast comes before the permute: TensorRT's parser refuses a transpose of uint8.
        pixels = (views.flatten(0, 1).float() - self.mean) * self.scale
        return pixels.permute(0, 3, 1, 2)


class GlobalBranch(nn.Module):
    """Token outputs of chosen ViT blocks, projected to D (the paper's VGFE, section 3).

    Args:
        preset: the model as data.
    """

    backbone: Any

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        spec: GlobalSpec = preset.global_branch
        self.taps = spec.blocks
        self.normalize = Normalize(spec.mean, spec.std)
        vit = create(spec.backbone, num_classes=0, img_size=spec.view)
        vit.blocks = vit.blocks[: max(spec.blocks) + 1]
        vit.norm, vit.fc_norm, vit.head = nn.Identity(), nn.Identity(), nn.Identity()
        self.backbone = vit
        width: int = vit.embed_dim
        if not spec.project and width != preset.dim:
            raise ValueError(f"{preset.name}: {spec.backbone} is {width} wide, D is {preset.dim}")
        self.project = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, preset.dim))
            if spec.project
            else nn.Identity()
            for _ in spec.blocks
        )

    def tokens(self, views: Tensor) -> Tensor:
        """Raw tokens of the tapped blocks: (B, V, H, W, 3) uint8 to (B * V, S, N, width)."""
        vit = self.backbone
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(self.normalize(views)))))
        taps = []
        for i, block in enumerate(vit.blocks):
            x = block(x)
            if i in self.taps:
                taps.append(x[:, vit.num_prefix_tokens :])
        return torch.stack(taps, 1)

    def embed(self, tokens: Tensor) -> Tensor:
        """Project raw tokens: (M, S, N, width) to (M, S, N, D)."""
        return torch.stack([p(t) for p, t in zip(self.project, tokens.unbind(1), strict=True)], 1)

    def forward(self, views: Tensor) -> Tensor:
        """GLOBAL_VIEW (B, V, H, W, 3) uint8 to GLOBAL_TOKENS (B, V, S, N, D)."""
        return self.embed(self.tokens(views)).unflatten(0, views.shape[:2])


def _embed_patches(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution with kernel = stride as one matrix product: (M, C, h, w) to (M, D, N).

    oneDNN's bfloat16 AMX convolution gives wrong numbers for such kernels over 16 or 24 channels
    (PyTorch 2.13 and OpenVINO 2026.4: errors as large as the values); its matrix product is right.
    """
    assert isinstance(conv, nn.Conv2d)
    k = conv.kernel_size[0]
    rows, columns = x.shape[2] // k, x.shape[3] // k
    patches = x.unflatten(3, (columns, k)).unflatten(2, (rows, k)).permute(0, 2, 4, 1, 3, 5)
    tokens = F.linear(patches.flatten(3).flatten(1, 2), conv.weight.flatten(1), conv.bias)
    return tokens.transpose(1, 2)


class LocalBranch(nn.Module):
    """CNN stages patch-embedded onto the ViT's token grid, fused by CWSA (the paper's CLFE).

    A patch embedding is a convolution with kernel = stride = (stage side / grid), so that each
    local token covers the same part of the picture as the global token beside it.

    Args:
        preset: the model as data.
    """

    backbone: Any

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        spec: LocalSpec = preset.local_branch
        self.normalize = Normalize(spec.mean, spec.std)
        self.backbone = create(spec.backbone, features_only=True, out_indices=spec.stages)
        channels = self.backbone.feature_info.channels()
        sides = [spec.view // r for r in self.backbone.feature_info.reduction()]
        if any(side % preset.grid for side in sides):
            raise ValueError(f"{preset.name}: stages {sides} do not tile a {preset.grid}-cell grid")
        self.norm = nn.ModuleList(
            nn.BatchNorm2d(c, affine=False) if spec.normalize else nn.Identity() for c in channels
        )
        self.embed_stages = nn.ModuleList(
            nn.Conv2d(c, preset.dim, side // preset.grid, side // preset.grid)
            for c, side in zip(channels, sides, strict=True)
        )
        width = preset.dim * len(channels)
        self.attention = ChannelAttention(preset)
        self.reduce = nn.Linear(width, preset.dim)

    def stages(self, views: Tensor) -> list[Tensor]:
        """Feature maps of the chosen stages: (B, V, H, W, 3) uint8 to [(B * V, C, h, w)]."""
        maps: list[Tensor] = self.backbone(self.normalize(views))
        return maps

    def embed(self, stages: list[Tensor]) -> Tensor:
        """Feature maps to local tokens (B * V, N, D)."""
        parts = [
            _embed_patches(conv, norm(x))
            for conv, norm, x in zip(self.embed_stages, self.norm, stages, strict=True)
        ]
        return self.reduce(self.attention(torch.cat(parts, 1)).transpose(1, 2))

    def forward(self, views: Tensor) -> Tensor:
        """LOCAL_VIEW (B, V, H, W, 3) uint8 to LOCAL_TOKENS (B, V, N, D)."""
        return self.embed(self.stages(views)).unflatten(0, views.shape[:2])
