"""Small models."""

from __future__ import annotations

import pytest

from tests.unit.model.made import randomized
from training.model import Giqa


@pytest.fixture(scope="session")
def small() -> Giqa:
    return randomized("giqa-s")


@pytest.fixture(scope="session")
def glint() -> Giqa:
    return randomized("glint")
