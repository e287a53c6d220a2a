"""A board's recipe, a model that scores by brightness, and the command."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from training import checkpoint
from training.__main__ import main
from training.board import recipe as recipes
from training.board.recipe import BoardRecipe
from training.model import Giqa, Preset

RECIPE = """
cache = "cache"
pictures = "pictures"
threads = 1
amp = false

[data]
dataset = "biq2021"
root = "biq"
validation_more = 16

[weights]
global_branch = "biq/global_branch.safetensors"
local_branch = "biq/local_branch.safetensors"

[opinions.people]
table = "tables/people.csv"
root = "photos"
low = 1
high = 5
reference = '(\\d)-'
count = 8

[native]
root = "photos"
files = ["*-0.png"]
count = 2
pixels = 8000
whole = 2

[steps]
root = "steps"
every = 50
count = 6

[[jpeg]]
root = "photos"
files = ["*-0.png"]
count = 2

[flats]
root = "photos"
files = ["0-0.png"]
count = 1

[types.small]
root = "photos"
files = ["*-0.png"]
count = 2
side = 64

[forms]
root = "photos"
files = ["*-0.png"]
count = 2
"""


def read(folder: Path, **changes: object) -> BoardRecipe:
    return recipes.read(folder / "board.toml").model_copy(update=changes)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["board", *map(str, arguments)], catch_exceptions=True)


def as_in_a_manifest(preset: Preset) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(asdict(preset)))
    return found


def weights(folder: Path, model: Giqa) -> Path:
    folder.mkdir()
    checkpoint.write_tensors(
        folder / "final.safetensors", model.state_dict(), {"preset": model.preset.name}
    )
    return folder
