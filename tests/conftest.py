"""What all tests share: no network, data outside the checkout, and what to skip where."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from benchmarks.demo import forbid_network
from giqa.decode import has_dali
from giqa.errors import MissingExtraError

CHECKOUT = Path(__file__).parents[1]

# Nothing here may download anything; local servers are fine.
forbid_network()


def _has_gpu() -> bool:
    smi = shutil.which("nvidia-smi")
    return smi is not None and subprocess.run([smi, "-L"], capture_output=True).returncode == 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of a GPU and of DALI where there is none."""
    for name, has, reason in (("gpu", _has_gpu, "no NVIDIA GPU"), ("dali", has_dali, "no DALI")):
        marked = [item for item in items if item.get_closest_marker(name)]
        if marked and not has():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip what asks for DALI itself where there is none: training, GPU repositories, its tests.

    Scoring never does, so whoever comes to DALI by the decoder of all scorers has failed.
    `PYTHONPATH=$PWD/tests/without_dali` makes a machine without.
    """
    report = yield
    if call.excinfo is None or not isinstance(call.excinfo.value, MissingExtraError) or has_dali():
        return report
    asked = {Path(entry.path).name for entry in call.excinfo.traceback}
    if call.excinfo.value.message.startswith("DALI ") and "_decoder.py" not in asked:
        report.outcome, report.longrepr = "skipped", (__file__, 0, "no DALI")
    return report


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the checkout."""
    return CHECKOUT


@pytest.fixture(scope="module")
def small_default() -> Iterator[None]:
    """A small default bundle in this process, where scores are not looked at."""
    from tests.tiled import small_bundle

    folder = small_bundle().parent  # made of the default one: before that is another
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("giqa.bundle._packaged", lambda: folder)
        yield


@pytest.fixture(scope="session")
def data() -> Path:
    """Measuring data, which is not in the repository: $GIQA_DATA, or ../shared/data.

    Tests that take this fixture are skipped where it is absent.
    """
    folder = Path(os.environ.get("GIQA_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set GIQA_DATA")
    return folder
