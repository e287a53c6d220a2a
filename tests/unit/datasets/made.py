"""Small trees of the data sets, and what tests do to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from giqa.errors import TableInvalidError
from tests.iqa_trees import Tree
from training.data.datasets import load


def each(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("tree", names, indirect=True)


def refused(tree: Tree) -> str:
    with pytest.raises(TableInvalidError) as caught:
        load(tree.name, tree.root, "all")
    assert Path(caught.value.item).is_file()
    return caught.value.message
