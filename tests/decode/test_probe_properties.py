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


def faults(data: bytes) -> list[str]:
    """What is wrong with what the probe makes of it."""
    start = time.perf_counter()
    try:
        found: Probe | GiqaError = probe(data)
    except GiqaError as e:
        found = e
    wrong = {"slow": time.perf_counter() - start >= 1}
    if isinstance(found, GiqaError):
        wrong |= {"code": found.code not in all_errors(), "message": not found.message}
    else:
        wrong |= {"size": min(found.width, found.height) < 1}
        wrong |= {"orientation": found.orientation not in range(1, 9)}
    return [name for name, is_so in wrong.items() if is_so]


@given(st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    assert faults(data) == []


@given(st.sampled_from(MAGIC), st.binary(max_size=600))
def test_random_bytes_behind_a_magic_number(magic: bytes, data: bytes) -> None:
    assert faults(magic + data) == []


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
    assert faults(bytes(content)) == []
