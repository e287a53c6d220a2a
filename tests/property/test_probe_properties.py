"""The probe on anything: a Probe or a GiqaError, quickly."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from giqa.decode import Probe, probe
from giqa.errors import GiqaError, all_errors
from tests.makers import GOOD

SMALL = [n for n in GOOD if n not in ("text-bomb.png", "thin.png", "wide.jpg")]
FILES = {name: GOOD[name]() for name in SMALL}
MAGIC = sorted({data[:12] for data in FILES.values()})


def checked(data: bytes) -> None:
    start = time.perf_counter()
    try:
        found: Probe | GiqaError = probe(data)
    except GiqaError as e:
        found = e
    if isinstance(found, GiqaError):
        assert found.code in all_errors()
        assert found.message
    else:
        assert found.width > 0
        assert found.height > 0
        assert 1 <= found.orientation <= 8
    assert time.perf_counter() - start < 1


@given(st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    checked(data)


@given(st.sampled_from(MAGIC), st.binary(max_size=600))
def test_random_bytes_behind_a_magic_number(magic: bytes, data: bytes) -> None:
    checked(magic + data)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SMALL), st.data())
def test_mutated_files(name: str, data: st.DataObject) -> None:
    content = bytearray(FILES[name])
    header = min(len(content), 1200)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, header - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    checked(bytes(content))
