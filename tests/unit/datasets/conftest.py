"""A tree of a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import iqa_trees
from tests.iqa_trees import Tree


@pytest.fixture
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    return iqa_trees.small(request.param, tmp_path).write()
