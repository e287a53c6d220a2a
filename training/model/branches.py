"""The two branches: ViT tokens of the whole view, CNN tokens of its detail."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model.attention import ChannelAttention
from training.model.backbones import create
from training.model.moments import cell_moments, moments
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
        # The cast comes first: TensorRT's parser moves no uint8 tensor.
        pixels = (views.float().flatten(0, 1) - self.mean) * self.scale
        return pixels.permute(0, 3, 1, 2)


class FixedNorm1d(nn.BatchNorm1d):
    """BatchNorm without parameters whose statistics are measured once (`training.norms`)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def train(self, mode: bool = True) -> FixedNorm1d:
        """Stay in evaluation mode."""
        return super().train(False)


class FixedNorm2d(nn.BatchNorm2d):
    """As `FixedNorm1d`, over feature maps."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def train(self, mode: bool = True) -> FixedNorm2d:
        """Stay in evaluation mode."""
        return super().train(False)


class Context(nn.Module):
    """What a whole picture's features say, in C tokens: normalise, drop, map, GELU.

    Linear maps of single tokens lose it: the deviation over positions is not linear. The tokens
    follow those of the grid's cells to the fusion model, which merges them alike. Most pooled
    features are dropped in training: what a few of thousands say about one data set does not hold
    in another (training/LOG.md).

    Where the preset has a linear term, another token carries this set's part of it in its first
    channels, zeros behind.

    Args:
        channels: pooled features.
        preset: the model as data.
        terms: channels of the linear term.
    """

    first: Tensor

    def __init__(self, channels: int, preset: Preset, terms: int = 1) -> None:
        super().__init__()
        self.norm = FixedNorm1d(channels)
        self.drop = nn.Dropout(preset.context_dropout[0])
        self.map = nn.Linear(channels, preset.context_tokens * preset.dim)
        self.tokens = preset.context_tokens
        self.linear = nn.Linear(channels, terms) if preset.linear_term else None
        self.register_buffer("first", torch.eye(terms, preset.dim), persistent=False)
        if self.linear is not None:  # nothing until it is solved for
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
            self.linear.requires_grad_(False)

    def forward(self, pooled: Tensor) -> Tensor:
        """(M, channels) to (M, C, D), or (M, C + 1, D) with the linear term."""
        pooled = self.norm(pooled)
        found = F.gelu(self.map(self.drop(pooled))).unflatten(-1, (self.tokens, -1))
        if self.linear is None:
            return found
        term = (self.linear(pooled).unsqueeze(2) * self.first).sum(1, keepdim=True)
        return torch.cat([found, term], 1)


class ChannelDropout(nn.Module):
    """Dropout of whole channels: the same ones at every cell of a picture.

    Args:
        probability: of each channel.
        axis: of the cells.
    """

    def __init__(self, probability: float, axis: int) -> None:
        super().__init__()
        self.probability, self.axis = probability, axis

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        if not self.training or not self.probability:
            return x
        kept = torch.rand_like(x.select(self.axis, 0), dtype=torch.float32) >= self.probability
        return x * (kept / (1 - self.probability)).to(x.dtype).unsqueeze(self.axis)


def _vit(spec: GlobalSpec, preset: Preset) -> Any:
    """An untrained ViT that fits the preset.

    Raises:
        ValueError: it is no ViT, has too few blocks, or its patches are not the token grid.
    """
    what = f"{preset.name}: {spec.backbone}"
    try:
        vit = create(spec.backbone, num_classes=0, img_size=spec.view)
        parts = vit.blocks, vit.patch_embed, vit.norm_pre, vit.cls_token, vit._pos_embed
    except (TypeError, AttributeError) as e:
        raise ValueError(f"{what} is no ViT of timm's: {e}") from e
    blocks, cells = len(parts[0]), tuple(vit.patch_embed.grid_size)
    if blocks <= max(spec.blocks):
        raise ValueError(f"{what} has {blocks} blocks, {max(spec.blocks) + 1} are wanted")
    if cells != (preset.grid, preset.grid):
        raise ValueError(
            f"{what} makes {cells[0]} x {cells[1]} tokens of {spec.view} pixels, not "
            f"{preset.grid} x {preset.grid}: view must be {preset.grid} patches"
        )
    return vit


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
        vit = _vit(spec, preset)
        vit.blocks = vit.blocks[: max(spec.blocks) + 1]
        vit.norm, vit.fc_norm, vit.head = nn.Identity(), nn.Identity(), nn.Identity()
        self.backbone = vit
        #: Only then is a token's content of the whole picture: another would be a patch.
        self.class_token: bool = vit.cls_token is not None
        width: int = vit.embed_dim
        if not spec.project and width != preset.dim:
            raise ValueError(f"{preset.name}: {spec.backbone} is {width} wide, D is {preset.dim}")
        self.project = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                ChannelDropout(preset.token_dropout, 1),
                nn.Linear(width, preset.dim),
            )
            if spec.project
            else nn.Identity()
            for _ in spec.blocks
        )
        self.context = nn.ModuleList(
            Context((2 + self.class_token) * width, preset)
            for _ in spec.blocks
            if preset.context_tokens
        )

    def prefix(self, views: Tensor, depth: int) -> list[Tensor]:
        """Run the patch embedding and the first blocks.

        Args:
            views: (B, V, H, W, 3) uint8.
            depth: how many blocks, 0 .. all of them.

        Returns:
            The hidden state (B * V, P + N, width) after the last block run, class and register
            tokens first, then that of each tapped block before it.
        """
        vit = self.backbone
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(self.normalize(views)))))
        taps = []
        for i, block in enumerate(vit.blocks[:depth]):
            x = block(x)
            if i in self.taps and i < depth - 1:
                taps.append(x)
        return [x, *taps]

    def suffix(self, state: list[Tensor], depth: int) -> Tensor:
        """Run the blocks from `depth` on.

        Args:
            state: what `prefix` gave for the same depth.
            depth: how many blocks were run.

        Returns:
            Raw tokens of the tapped blocks, P class and register tokens first,
            (B * V, S, P + N, width).
        """
        x, taps = state[0], list(state[1:])
        if depth - 1 in self.taps:
            taps.append(x)
        for i, block in enumerate(self.backbone.blocks[depth:], depth):
            x = block(x)
            if i in self.taps:
                taps.append(x)
        return torch.stack(taps, 1)

    def tokens(self, views: Tensor) -> Tensor:
        """Raw tokens of the tapped blocks: (B, V, H, W, 3) uint8 to (B * V, S, P + N, width)."""
        depth = len(self.backbone.blocks)
        return self.suffix(self.prefix(views, depth), depth)

    def pool(self, tokens: Tensor) -> Tensor:
        """Raw tokens (M, S, P + N, width) to class token, mean, deviation: (M, S, 3 * width).

        A ViT without a class token has no first part. Register tokens are left out.
        """
        pooled = moments(tokens[:, :, self.backbone.num_prefix_tokens :], 2)
        return torch.cat([tokens[:, :, 0], pooled], -1) if self.class_token else pooled

    def embed(self, tokens: Tensor) -> Tensor:
        """Project raw tokens: (M, S, P + N, width) to (M, S, N + K, D)."""
        stages = tokens[:, :, self.backbone.num_prefix_tokens :].unbind(1)
        projected = [p(t) for p, t in zip(self.project, stages, strict=True)]
        if self.context:
            pooled = self.pool(tokens).unbind(1)
            projected = [
                torch.cat([t, c(x)], 1)
                for t, c, x in zip(projected, self.context, pooled, strict=True)
            ]
        return torch.stack(projected, 1)

    def forward(self, views: Tensor) -> Tensor:
        """GLOBAL_VIEW (B, V, H, W, 3) uint8 to GLOBAL_TOKENS (B, V, S, N + K, D)."""
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
    """CNN stages embedded onto the ViT's token grid, fused by CWSA (the paper's CLFE).

    Each local token covers the same part of the picture as the global token beside it: a cell of
    (stage side / grid) positions a side, embedded by a convolution with kernel = stride or by its
    moments (`LocalSpec.embed`).

    Args:
        preset: the model as data.
    """

    backbone: Any

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        spec: LocalSpec = preset.local_branch
        self.grid, self.moments = preset.grid, spec.embed == "moments"
        self.normalize = Normalize(spec.mean, spec.std)
        try:
            self.backbone = create(spec.backbone, features_only=True, out_indices=spec.stages)
        except (RuntimeError, AssertionError, IndexError, AttributeError) as e:
            raise ValueError(
                f"{preset.name}: {spec.backbone} gives no stages {list(spec.stages)}: {e}"
            ) from e
        channels = self.backbone.feature_info.channels()
        sides = [spec.view // r for r in self.backbone.feature_info.reduction()]
        if any(side % preset.grid for side in sides):
            raise ValueError(f"{preset.name}: stages {sides} do not tile a {preset.grid}-cell grid")
        cells = [side // preset.grid for side in sides]
        width = spec.embed_width or preset.dim
        if self.moments:
            inputs = [c * (2 if k > 1 else 1) for c, k in zip(channels, cells, strict=True)]
            norms: list[nn.Module] = [FixedNorm1d(c) for c in inputs]
            embeds: list[nn.Module] = [nn.Linear(c, width) for c in inputs]
        else:
            norms = [FixedNorm2d(c) for c in channels]
            embeds = [nn.Conv2d(c, width, k, k) for c, k in zip(channels, cells, strict=True)]
        self.norm = nn.ModuleList(norms if spec.normalize else (nn.Identity() for _ in channels))
        self.embed_stages = nn.ModuleList(embeds)
        self.drop = ChannelDropout(preset.token_dropout, 2)
        self.attention = ChannelAttention(preset, preset.grid**2)
        self.reduce = nn.Linear(width * len(channels), preset.dim)
        if preset.context_tokens and not self.moments:
            raise ValueError(f"{preset.name}: context tokens need embed = moments")
        # Two channels of the linear term: what the whole view adds, and what its tiles do.
        self.context = Context(2 * sum(inputs), preset, 2) if preset.context_tokens else None

    def stages(self, views: Tensor) -> list[Tensor]:
        """What the embeddings take: (B, V, H, W, 3) uint8 to one tensor a stage.

        Returns:
            Feature maps (B * V, C, h, w), or their moments per cell (B * V, C or 2 C, N).
        """
        maps: list[Tensor] = self.backbone(self.normalize(views))
        return [cell_moments(x, self.grid) for x in maps] if self.moments else maps

    def embed(self, stages: list[Tensor]) -> Tensor:
        """What `stages` gave to local tokens (B * V, N + K, D)."""
        parts = [
            embed(self.drop(norm(x)).transpose(1, 2)).transpose(1, 2)
            if self.moments
            else _embed_patches(embed, norm(x))
            for embed, norm, x in zip(self.embed_stages, self.norm, stages, strict=True)
        ]
        tokens = self.reduce(self.attention(torch.cat(parts, 1)).transpose(1, 2))
        if self.context is None:
            return tokens
        return torch.cat([tokens, self.context(self.pool(stages))], 1)

    def pool(self, stages: list[Tensor]) -> Tensor:
        """Moments per cell [(M, C, N)] to their mean and deviation over cells: (M, 2 * sum C)."""
        return moments(torch.cat(stages, 1), 2)

    def forward(self, views: Tensor) -> Tensor:
        """LOCAL_VIEW (B, V, H, W, 3) uint8 to LOCAL_TOKENS (B, V, N + K, D)."""
        return self.embed(self.stages(views)).unflatten(0, views.shape[:2])
