"""The model card: a bundle's README, made from what was measured."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from giqa.manifest import Accuracy, Correlation
from training.data import datasets
from training.model.presets import Preset
from training.provenance import Origins
from training.recipe import Data, Recipe

_ASK = "QUESTION: "


class Card(BaseModel):
    """The words of a model card; a TOML file beside the recipe.

    Attributes:
        summary: what the model is and is for.
        code: licence of the code.
        weights: terms of the weights.
        data: terms of each data set, by name.
        backbones: what is to be said of the pretrained backbones beside the run's own record.
        training: how it was trained, beside what the recipe says.
        limits: where it fails or was not tested.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: str
    code: str
    weights: str
    data: dict[str, str]
    backbones: list[str] = []
    training: list[str] = []
    limits: list[str]

    def questions(self) -> list[str]:
        """What `template` asked and nobody answered."""
        return re.findall(rf"{_ASK}[^\"]*", self.model_dump_json())


def read_card(path: Path) -> Card:
    """Read a card's words from a TOML file.

    Raises:
        FileNotFoundError: no such file.
        pydantic.ValidationError: a field is missing or unknown.
    """
    with path.open("rb") as f:
        return Card.model_validate(tomllib.load(f))


def template(recipe: Recipe) -> str:
    """A card to be filled in: what the recipe does not know is a question.

    Args:
        recipe: of the run.

    Returns:
        TOML.
    """
    name = title(recipe.data)
    known = "" if recipe.data.dataset == "table" else datasets.info(recipe.data.dataset).terms
    lines = {
        "summary": f"{_ASK}what does it score, for whom?",
        "code": f"{_ASK}licence of the code?",
        "weights": f"{_ASK}terms of the weights? Those of the backbones and of {name} bind them.",
    }
    asked = [f"{_ASK}on which pictures was it not tested, where does it fail?"]
    terms = known or f"{_ASK}terms of {name}?"
    return "".join(
        [
            *(f"{key} = {json.dumps(text)}\n" for key, text in lines.items()),
            f"limits = {json.dumps(asked)}\n\n[data]\n{json.dumps(name)} = {json.dumps(terms)}\n",
        ]
    )


def title(data: Data) -> str:
    """How a recipe's data are called in print."""
    return data.root.stem if data.dataset == "table" else datasets.info(data.dataset).title


def facts(recipe: Recipe) -> list[str]:
    """What a recipe says of a run, in sentences."""
    options, data = recipe.optimisation, recipe.data
    told = [f"{title(data)}" + (f", round {data.round}" if data.round else "") + "."]
    frozen = recipe.freeze.global_blocks
    vit = "the whole ViT" if frozen is None else f"{frozen} ViT blocks"
    parts = [vit, *(["the CNN"] if recipe.freeze.local else [])]
    told.append(
        f"{options.epochs} epochs of {options.batch} images a step; {', '.join(parts)} frozen."
    )
    if recipe.features is not None:
        told.append(f"{recipe.features.variants} cached views an image.")
    if (rendered := recipe.rendered) is not None:
        told.append(
            f"Beside, in each step: {rendered.groups} groups of rendered damage, which learn their "
            f"order, and {rendered.anchors} pictures with a label of their own."
        )
    told.append("The epoch with the highest validation SROCC was kept.")
    return told


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


def model_card(
    preset: Preset,
    version: str,
    accuracy: list[Accuracy],
    card: Card,
    *,
    name: str = "",
    origins: Origins | None = None,
    told: Sequence[str] = (),
    board: str = "",
) -> str:
    """Render a model card.

    Args:
        preset: the model as data.
        version: the bundle's version.
        accuracy: what was measured.
        card: the words.
        name: of the bundle; the preset's unless given.
        origins: of the backbones, as the run recorded them.
        told: what the recipe says of the run, see `facts`.
        board: what `python -m training board` found of the same weights, as Markdown.

    Returns:
        Markdown.
    """
    lines = [f"# {name or preset.name} {version}", "", card.summary, "", "## Accuracy", ""]
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
    if board:
        lines += ["## Board", "", *board.splitlines(), ""]
    spec_g, spec_l = preset.global_branch, preset.local_branch
    lines += [
        "## Model",
        "",
        f"- global branch: `{spec_g.backbone}`, {spec_g.view} px, blocks {list(spec_g.blocks)}",
        f"- local branch: `{spec_l.backbone}`, {spec_l.view} px, stages {list(spec_l.stages)}",
        f"- D = {preset.dim}, head `{preset.head}`",
        *(f"- {one.words()}" for one in (origins or {}).values()),
        *(f"- {line}" for line in card.backbones),
        "",
        "## Training",
        "",
        *(f"- {line}" for line in (*told, *card.training)),
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
