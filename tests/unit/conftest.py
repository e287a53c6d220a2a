"""What tests of training share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def small_presets() -> Iterator[None]:
    """The presets of `tests.small`, known to `training` while a module runs."""
    from tests import small

    small.register()
    yield
    small.unregister()
