"""Scorers on the fake server: ways to it, images that are odd, and what a row must hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from giqa.bundle import Bundle
from giqa.client import Retry, TritonScorer
from giqa.contract import Profile
from giqa.decode import probe, views_by_pillow
from giqa.results import ImageResult
from giqa.types import Item, Views
from tests.fakes.kserve import FakeServer
from tests.fakes.scripts import UNDECODABLE, Seen, score_of
from tests.makers import chunk, jpeg, png_header

QUICK = Retry(attempts=3, base_s=0.01, max_s=0.05)
GRACE_S = 0.5


PATIENT = Retry(attempts=200, base_s=0.05, max_s=0.2)
WAYS: dict[str, dict[str, Any]] = {
    "unary": {},
    "stream": {"transport": "stream"},
    "shared": {"shared_memory": True},
    "shared-stream": {"shared_memory": True, "transport": "stream"},
    "batch": {"batch": 8},
}
"""Ways that images take to the server."""
TRANSPORTS = ("unary", "stream")
every_way = pytest.mark.parametrize("way", WAYS)
each_transport = pytest.mark.parametrize("transport", TRANSPORTS)
shared_ways = pytest.mark.parametrize("way", ["shared", "shared-stream"])


BAD_AT = (2, 9, 10)


def connect(server: FakeServer, bundle: Bundle, **options: Any) -> TritonScorer:
    return TritonScorer(
        server.url, **{"bundle": bundle, "retry": QUICK, "deadline_s": 10.0, **options}
    )


def items(images: Sequence[bytes]) -> list[Item]:
    return [Item(f"image {i}", data=image) for i, image in enumerate(images)]


def assert_right(rows: Sequence[ImageResult], images: Sequence[bytes], *bad: int) -> None:
    """One row an image, in order, each with its own score, but for the bad ones."""
    assert [row.path for row in rows] == [f"image {i}" for i in range(len(images))]
    for i, (row, image) in enumerate(zip(rows, images, strict=True)):
        assert (row.error is not None) == (i in bad), (i, row.error)
        if row.error is None:
            assert row.score == pytest.approx(score_of(image), abs=1e-3)


def of(image: bytes) -> Callable[[Seen], bool]:
    """Requests with this image."""
    return lambda seen: image in seen.images


def after(count: int) -> Callable[[Seen], bool]:
    """All requests after the first so many."""
    numbers = itertools.count()
    return lambda seen: next(numbers) >= count


def undecodable(seed: int) -> bytes:
    """A PNG that the probe lets pass and nothing decodes."""
    body = chunk(b"IDAT", b"\x78\x9c\x07" + bytes([seed]) * 300) + chunk(b"IEND", b"")
    return png_header(64, 48) + body


def refused_by_dali(seed: int) -> bytes:
    """A JPEG that the fake's DALI refuses and Pillow reads."""
    return jpeg(64, 48, seed, comment=UNDECODABLE)


def through_pillow(bundle: Bundle, image: bytes, profile: Profile = "fast") -> Views:
    from giqa.decode import view_boxes

    found, sizes = probe(image), bundle.manifest.tensors
    boxes = view_boxes(*found.upright_size, profile, sizes.local_side)
    return views_by_pillow(
        image,
        found,
        None if profile == "fast" else boxes,
        global_side=sizes.global_side,
        local_side=sizes.local_side,
    )


def score_of_views(views: Views) -> float:
    return score_of(views.global_view.tobytes() + views.local_view.tobytes())
