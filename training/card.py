"""The model card: a bundle's README, made from what was measured."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from giqa.manifest import Accuracy, Correlation
from training.model.presets import Preset


class Card(BaseModel):
    """The words of a model card; a TOML file beside the recipe.

    Attributes:
        summary: what the model is and is for.
        code: licence of the code.
        weights: terms of the weights.
        data: terms of each data set, by name.
        backbones: where the pretrained backbones come from and their licences.
        training: how it was trained.
        limits: where it fails or was not tested.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: str
    code: str
    weights: str
    data: dict[str, str]
    backbones: list[str]
    training: list[str]
    limits: list[str]


def read_card(path: Path) -> Card:
    """Read a card's words from a TOML file.

    Raises:
        FileNotFoundError: no such file.
        pydantic.ValidationError: a field is missing or unknown.
    """
    with path.open("rb") as f:
        return Card.model_validate(tomllib.load(f))


def _row(name: str, row: Correlation) -> str:
    interval = ""
    if row.srocc_interval is not None:
        interval = f" ({row.srocc_interval[0]:.3f} .. {row.srocc_interval[1]:.3f})"
    logistic = "" if row.plcc_logistic is None else f"{row.plcc_logistic:.3f}"
    krcc = "" if row.krcc is None else f"{row.krcc:.3f}"
    rmse = "" if row.rmse is None else f"{row.rmse:.2f}"
    return (
        f"| {name} | {row.n} | {row.srocc:.3f}{interval} | {row.plcc:.3f} | {logistic} "
        f"| {krcc} | {rmse} |"
    )


def model_card(preset: Preset, version: str, accuracy: list[Accuracy], card: Card) -> str:
    """Render a model card.

    Args:
        preset: the model as data.
        version: the bundle's version.
        accuracy: what was measured.
        card: the words.

    Returns:
        Markdown.
    """
    lines = [f"# {preset.name} {version}", "", card.summary, "", "## Accuracy", ""]
    if not accuracy:
        lines += ["Not measured.", ""]
    for one in accuracy:
        lines += [
            f"**{one.dataset}, {one.split}**, profile `{one.profile}`, `{one.engine}`. "
            f"{one.protocol}",
            "",
            "| images | n | SROCC (95 %) | PLCC | after logistic | KRCC | RMSE of 100 |",
            "|---|---|---|---|---|---|---|",
            _row("all", one),
            *(_row(name, row) for name, row in one.subsets.items()),
            "",
        ]
    spec_g, spec_l = preset.global_branch, preset.local_branch
    lines += [
        "## Model",
        "",
        f"- global branch: `{spec_g.backbone}`, {spec_g.view} px, blocks {list(spec_g.blocks)}",
        f"- local branch: `{spec_l.backbone}`, {spec_l.view} px, stages {list(spec_l.stages)}",
        f"- D = {preset.dim}, head `{preset.head}`",
        *(f"- {line}" for line in card.backbones),
        "",
        "## Training",
        "",
        *(f"- {line}" for line in card.training),
        "",
        "## Limits",
        "",
        *(f"- {line}" for line in card.limits),
        "",
        "## Terms",
        "",
        f"- code: {card.code}",
        f"- weights: {card.weights}",
        *(f"- {name}: {terms}" for name, terms in card.data.items()),
        "",
    ]
    return "\n".join(lines)
