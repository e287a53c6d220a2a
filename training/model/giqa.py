"""The whole model in PyTorch: two branches and the fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from training.model import backbones
from training.model.branches import GlobalBranch, LocalBranch
from training.model.fusion import Fusion
from training.model.presets import PRESETS, Preset
from training.provenance import Origins


class Giqa(nn.Module):
    """Global-local progressive integration.

    Args:
        preset: the model as data.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        self.global_branch = GlobalBranch(preset)
        self.local_branch = LocalBranch(preset)
        self.fusion = Fusion(preset)

    def load_backbones(
        self,
        global_weights: Path | None,
        local_weights: Path | None,
        stated: Sequence[str] = ("", ""),
    ) -> Origins:
        """Load pretrained backbones from safetensors files, or from timm's hub where None.

        Args:
            global_weights: state dict of the ViT, timm's names.
            local_weights: state dict of the CNN, timm's names.
            stated: what is known of each one's origin and licence.

        Returns:
            Where they come from, by branch.

        Raises:
            FileNotFoundError: a file does not exist.
            ValueError: a file does not fit the preset's backbone, or a name without a file has no
                tag.
        """
        origins = {}
        for branch, name, path, words in (
            (self.global_branch, self.preset.global_branch.backbone, global_weights, stated[0]),
            (self.local_branch, self.preset.local_branch.backbone, local_weights, stated[1]),
        ):
            state, origin = backbones.weights(name, path, words)
            backbones.load_cut(branch.backbone, state, what=f"{self.preset.name}: {name}")
            origins["global_branch" if branch is self.global_branch else "local_branch"] = origin
        return origins

    def train(self, mode: bool = True) -> Giqa:
        """Set training mode, except for every BatchNorm: their statistics never move."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, global_view: Tensor, local_view: Tensor) -> tuple[Tensor, ...]:
        """GLOBAL_VIEW and LOCAL_VIEW, (B, V, H, W, 3) uint8, to SCORE (B, 1) and QUALITY_MAP.

        Returns:
            SCORE (B, 1) float32 in 0..100 and, where the head has one, QUALITY_MAP
            (B, V, grid, grid) on the same scale.
        """
        return self.fusion(self.global_branch(global_view), self.local_branch(local_view))


def create(preset: str | Preset, state: Mapping[str, Tensor] | None = None) -> Giqa:
    """Create a model.

    Args:
        preset: a preset or the name of one.
        state: a full state dict, loaded strictly.

    Returns:
        The model in evaluation mode.

    Raises:
        KeyError: no preset of that name.
        RuntimeError: `state` does not fit strictly.
    """
    model = Giqa(PRESETS[preset] if isinstance(preset, str) else preset)
    if state is not None:
        model.load_state_dict(dict(state), strict=True)
    return model.eval()
