"""Which pictures a client sends where, with a server on a GPU."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from giqa.bundle import Bundle, load_bundle
from giqa.client import TritonScorer
from giqa.contract import GIQA, GIQA_ISOLATED, GIQA_MAP, GIQA_PRECISE, GIQA_VIEWS
from giqa.decode import LARGE
from giqa.results import ImageResult
from giqa.types import Item
from tests.fakes.kserve import FakeServer


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture
def gpu(bundle: Bundle) -> Iterator[FakeServer]:
    with FakeServer("gpu", bundle=bundle) as made:
        yield made


def encoded(mode: str, width: int, height: int, kind: str) -> Item:
    file = io.BytesIO()
    Image.new(mode, (width, height), 128 if mode == "L" else None).save(file, kind)
    return Item("picture", data=file.getvalue())


def score(gpu: FakeServer, item: Item, **how: object) -> ImageResult:
    with TritonScorer(gpu.url) as scorer:
        (row,) = scorer.score([item], **how)
    assert row.error is None, row.error
    return row


ALL = (GIQA, GIQA_MAP, GIQA_PRECISE, GIQA_ISOLATED, GIQA_VIEWS)


def asked(gpu: FakeServer) -> list[str]:
    return [model for model in ALL for _ in gpu.infers(model)]


def test_large_pictures_go_alone(gpu: FakeServer) -> None:
    side = int(LARGE**0.5) + 1
    score(gpu, encoded("L", side, side, "PNG"))
    assert asked(gpu) == [GIQA_ISOLATED]


@pytest.mark.parametrize("how", [{"quality_map": True}, {"profile": "precise"}])
def test_what_more_is_wanted_of_large_pictures_is_decoded_here(
    gpu: FakeServer, how: dict[str, object]
) -> None:
    side = int(LARGE**0.5) + 1
    score(gpu, encoded("L", side, side, "PNG"), **how)
    assert asked(gpu) == [GIQA_VIEWS]


def test_the_largest_that_is_not_large_goes_with_others(gpu: FakeServer) -> None:
    score(gpu, encoded("L", LARGE // 5000, 5000, "PNG"))
    assert asked(gpu) == [GIQA]


def test_four_components_are_decoded_here(gpu: FakeServer) -> None:
    score(gpu, encoded("CMYK", 300, 200, "JPEG"))
    assert asked(gpu) == [GIQA_VIEWS]


def test_one_and_three_components_are_not(gpu: FakeServer) -> None:
    for mode in ("L", "RGB"):
        score(gpu, encoded(mode, 300, 200, "JPEG"))
    assert asked(gpu) == [GIQA, GIQA]
