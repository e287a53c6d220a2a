"""A training run of seconds: a tiny preset, made photographs whose MOS falls with their blur.

Run as a program it is `python -m training` with that preset, for tests that need a process of its
own (kill -9, torchrun).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file

from tests.photos import photo
from training.model import PRESETS, GlobalSpec, LocalSpec, Preset, create
from training.recipe import Recipe

TINY = Preset(
    name="tiny",
    global_branch=GlobalSpec(
        backbone="vit_tiny_patch16_224",
        view=224,
        blocks=(0, 1),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        project=True,
    ),
    local_branch=LocalSpec(
        backbone="resnet10t",
        view=224,
        stages=(1, 3),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        normalize=False,
    ),
    dim=16,
)
"""Like `glint`, but a fraction of its cost."""

SMALL = replace(
    TINY,
    name="small",
    hidden=16,
    context_tokens=2,
    tile_pixels=90_000,
    local_branch=replace(
        TINY.local_branch, stages=(1, 2, 3), normalize=True, embed="moments", embed_width=8
    ),
)
"""Like `giqa-s`: moments, contexts."""

LINEAR = replace(SMALL, name="linear", linear_term=True)
"""With a linear term of pooled features."""

STUDENT = replace(SMALL, name="student", dim=8)


def register() -> None:
    """Make the presets known, as `training.model.PRESETS` would."""
    PRESETS.update({p.name: p for p in (TINY, SMALL, LINEAR, STUDENT)})


def unregister() -> None:
    """Undo `register`."""
    for preset in (TINY, SMALL, LINEAR, STUDENT):
        PRESETS.pop(preset.name, None)


def make_root(folder: Path, count: int = 40) -> Path:
    """Write a tree laid out like BIQ2021, and backbones for the presets.

    Args:
        folder: an empty folder.
        count: how many images.

    Returns:
        The folder.
    """
    (folder / "Images").mkdir()
    rows = ["Image Name,MOS,,"]
    for i in range(count):
        blur = i % 8
        picture = Image.fromarray(photo(224, 224, i, noise=20))
        picture = picture.filter(ImageFilter.GaussianBlur(blur / 2))
        picture.save(folder / "Images" / f"ss01 ({i}).jpg", quality=95)
        rows.append(f"ss01 ({i}).jpg,{0.9 - blur / 10:.4f},,")
    (folder / "Train (Images and MOS).csv").write_text("\n".join(rows) + "\n")
    torch.manual_seed(0)
    model = create(SMALL)
    for name in ("global_branch", "local_branch"):
        save_file(getattr(model, name).backbone.state_dict(), folder / f"{name}.safetensors")
    return folder


def make_rendered(folder: Path, groups: int) -> Path:
    """Write groups of a photograph and blurred versions, and as many black and white pictures.

    Returns:
        The table.
    """
    (folder / "rendered").mkdir()
    rows = ["path,group,loss,mos,kind"]
    for i in range(groups):
        for level in range(3):
            picture = Image.fromarray(photo(224, 224, 100 + i, noise=20))
            picture = picture.filter(ImageFilter.GaussianBlur(1.5 * level))
            picture.save(folder / "rendered" / f"{i}-{level}.png")
            rows.append(f"{i}-{level}.png,{i},{0.4 * level},{80 if i % 2 else ''},blur")
        Image.new("RGB", (224, 224), ("black", "white")[i % 2]).save(
            folder / "rendered" / f"{i}-flat.png"
        )
        rows.append(f"{i}-flat.png,,,3,flat")
    table = folder / "rendered" / "table.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def recipe(root: Path, output: Path, **changes: Any) -> Recipe:
    """A recipe for `small`.

    Args:
        root: what `make_root` gave.
        output: the run's folder.
        **changes: `section__field` or top-level `field` to another value; None drops a section.

    Returns:
        The recipe.
    """
    what: dict[str, Any] = {
        "preset": "small",
        "output": output,
        "threads": 1,
        "weights": {n: root / f"{n}.safetensors" for n in ("global_branch", "local_branch")},
        "data": {"dataset": "biq2021", "root": root, "validation_more": 8},
        "freeze": {"global_blocks": 1},
        "features": {"folder": root / "cache", "variants": 1},
        "optimisation": {
            "epochs": 3,
            "batch": 8,
            "lr": 3e-3,
            "backbone_lr": 1e-4,
            "weight_decay": 0.01,
            "warmup_steps": 2,
            "ema": 0.9,
            "plcc_weight": 0.5,
            "amp": False,
        },
    }
    for key, value in changes.items():
        section, _, field = key.partition("__")
        if field:
            what.setdefault(section, {})[field] = value
        elif value is None:
            del what[section]
        else:
            what[section] = value
    return Recipe.model_validate(what)


def to_toml(what: Recipe, path: Path) -> Path:
    """Write a recipe as a file; values are TOML's own or paths."""

    def text(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return str(value) if isinstance(value, int | float) else f'"{value}"'

    lines, tables = [], []
    for key, value in what.model_dump(mode="json", exclude_none=True).items():
        if isinstance(value, dict):
            given = {k: v for k, v in value.items() if v != {}}
            tables += [f"[{key}]", *(f"{k} = {text(v)}" for k, v in given.items())]
        else:
            lines.append(f"{key} = {text(value)}")
    path.write_text("\n".join([*lines, *tables]) + "\n")
    return path


if __name__ == "__main__":
    from training.__main__ import run

    register()
    run()
