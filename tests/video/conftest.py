"""A scorer that costs nothing, for what is not about scores."""

import pytest

from tests.brightness import Brightness


@pytest.fixture
def brightness() -> Brightness:
    return Brightness()
