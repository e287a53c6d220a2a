"""What the steps work on."""

from __future__ import annotations

import pytest

from benchmarks import images
from benchmarks.options import Options
from benchmarks.suites.micro import OPTIONS, SIDE
from giqa.bundle import Bundle, load_bundle


@pytest.fixture(scope="session")
def options(request: pytest.FixtureRequest) -> Options:
    """The run's; the defaults if pytest was started by hand."""
    return request.config.stash.get(OPTIONS, Options())


@pytest.fixture(scope="session")
def bundle(options: Options) -> Bundle:
    """The bundle."""
    return load_bundle(options.bundle)


@pytest.fixture(scope="session")
def jpegs(options: Options) -> list[bytes]:
    """Eight JPEG files."""
    return images.sized(options, SIDE, SIDE, 8)
