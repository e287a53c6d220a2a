"""Presets: every architectural choice of a GIQA model as data.

A preset names the backbones, the blocks and stages tapped, the token width D and the views;
the modules of this package contain no preset-specific numbers.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter

from giqa.contract import GRID, TILES
from giqa.manifest import ViewProfile

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class GlobalSpec:
    """The ViT branch.

    Attributes:
        backbone: timm model name with its tag, which says who trained it on what.
        view: side of the square view in pixels; `view / patch size` must equal the token grid.
        blocks: 0-based transformer blocks whose output tokens are tapped; later blocks are cut off.
        mean: per-channel mean in 0..1.
        std: per-channel standard deviation in 0..1.
        project: LayerNorm + Linear to D per tap; without it the backbone's width must be D.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    backbone: str
    view: int
    blocks: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    project: bool


@dataclass(frozen=True)
class LocalSpec:
    """The CNN branch.

    Attributes:
        backbone: timm model name with its tag, which says who trained it on what.
        view: side of the square view in pixels.
        stages: indices into timm's `feature_info`; later stages are cut off.
        mean: per-channel mean in 0..1.
        std: per-channel standard deviation in 0..1.
        normalize: BatchNorm without affine parameters before each patch embedding, so that
            stages of different scale enter alike (folded away by the runtimes).
        embed: how a stage reaches the token grid. `patches`: a convolution with kernel = stride
            (the paper). `moments`: mean and standard deviation of each channel over the cell's
            positions, then a linear map: texture energy survives, parameters and training
            memory shrink.
        embed_width: channels per embedded stage; 0 stands for D.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    backbone: str
    view: int
    stages: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    normalize: bool
    embed: Literal["patches", "moments"] = "patches"
    embed_width: int = 0


@dataclass(frozen=True)
class Preset:
    """One complete model as data.

    Attributes:
        name: the preset's name, also the name of the bundle it makes.
        global_branch: the ViT branch.
        local_branch: the CNN branch.
        dim: width D of the tokens that are fused.
        head: `map` (a weighted quality map, see `fusion.MapHead`) or `pooled` (the paper's head).
        learned_temperature: CWSA logits are scaled by a learned temperature instead of N^-0.5.
        scrambled: keep the reference code's layout scramble in CWSA (its checkpoints need it).
        dropout: dropout probability in CWSA and head.
        hidden: width of the head's hidden layer; 0 stands for D.
        context_tokens: tokens of the picture as a whole that follow the grid's cells in every set
            (see `branches.Context`); fusion merges them like the cells'.
        context_dropout: dropout probabilities of the pooled features that they are made of, and
            of what they tell the head.
        linear_term: a linear map of the pooled features that contexts are made of, the branches'
            and the tiles', joins every cell's logit. It is not learnt step by step but solved for
            (`training.linear`), and is carried by one more token of each set.
        token_dropout: probability that a channel of the branches' features is left out, in
            training, of all cells alike.
        alone: how often, in training, a picture's cells judge without what is said of it as a
            whole.
        tile_pixels: pixels from which on a picture has tiles; 0: none has.
        grid: cells per side of the token grid.
        score_range: raw output range that is mapped linearly to 0..100 (`pooled` head only).
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: str
    global_branch: GlobalSpec
    local_branch: LocalSpec
    dim: int
    head: str = "map"
    learned_temperature: bool = True
    scrambled: bool = False
    dropout: float = 0.0
    hidden: int = 0
    context_tokens: int = 0
    context_dropout: tuple[float, float] = (0.0, 0.0)
    linear_term: bool = False
    token_dropout: float = 0.0
    alone: float = 0.0
    tile_pixels: int = 0
    grid: int = GRID
    score_range: tuple[float, float] = (0.0, 1.0)

    @property
    def fast(self) -> ViewProfile:
        """Profile `fast` of the model's bundle."""
        tiles = {"tiles": TILES, "tile_pixels": self.tile_pixels} if self.tile_pixels else {}
        return ViewProfile.model_validate({"max_views": 1, **tiles})

    @property
    def tokens(self) -> int:
        """Tokens that are fused: cells, then contexts."""
        return self.grid**2 + self.context_tokens

    @property
    def more_tokens(self) -> int:
        """What follows the cells in a set on its way to fusion: contexts, the linear term."""
        return self.context_tokens + self.linear_term


def _clip(*blocks: int) -> GlobalSpec:
    return GlobalSpec(
        backbone="vit_base_patch16_clip_quickgelu_224.openai",
        view=224,
        blocks=blocks,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        project=True,
    )


_LITE0 = LocalSpec(
    backbone="tf_efficientnet_lite0.in1k",
    view=448,
    stages=(1, 2, 3, 4),
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
    normalize=True,
    embed="moments",
    embed_width=64,
)


def _fused(name: str, dim: int, *blocks: int) -> Preset:
    return Preset(
        name=name,
        global_branch=_clip(*blocks),
        local_branch=_LITE0,
        dim=dim,
        dropout=0.1,
        hidden=192,
        context_tokens=2,
        context_dropout=(0.8, 0.3),
        linear_term=True,
        token_dropout=0.6,
        alone=0.25,
        tile_pixels=500_000,
    )


PRESETS: dict[str, Preset] = {
    p.name: p
    for p in (
        _fused("giqa-s", 128, 3, 4, 5),
        _fused("giqa-b", 192, 3, 5, 7, 9),
        Preset(
            name="glint",
            global_branch=GlobalSpec(
                backbone="vit_small_patch16_224.augreg_in21k_ft_in1k",
                view=224,
                blocks=(6, 7, 8, 9),
                mean=(0.5,) * 3,
                std=(0.5,) * 3,
                project=False,
            ),
            local_branch=LocalSpec(
                backbone="resnet50.a1_in1k",
                view=224,
                stages=(1, 2, 3),
                mean=(0.5,) * 3,
                std=(0.5,) * 3,
                normalize=False,
            ),
            dim=384,
            head="pooled",
            learned_temperature=False,
            scrambled=True,
            dropout=0.5,
        ),
    )
}


def read(path: Path) -> Preset:
    """Read a preset from a TOML file and make it known by its name.

    Args:
        path: the fields of `Preset`; tables `global_branch` and `local_branch`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: (pydantic's) a field is missing, unknown or of another type, or the name is one
            of this package's.
    """
    with path.open("rb") as file:
        preset = TypeAdapter(Preset).validate_python(tomllib.load(file))
    if PRESETS.setdefault(preset.name, preset) != preset:
        raise ValueError(f"{path}: there is another preset {preset.name!r}: give it another name")
    return preset
