"""A bad image fails its whole batch on a GPU, and not its neighbours' rows."""

from __future__ import annotations

import itertools
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from giqa.bundle import Bundle
from giqa.client._flow import Flow
from giqa.contract import GIQA, GIQA_BYTES, GIQA_ISOLATED, GIQA_VIEWS, Profile
from giqa.decode import _pillow
from giqa.errors import GiqaError
from giqa.results import ImageResult
from tests.fakes.clients import (
    BAD_AT,
    WAYS,
    after,
    assert_right,
    connect,
    each_transport,
    items,
    refused_by_dali,
    score_of_views,
    through_pillow,
    undecodable,
)
from tests.fakes.kserve import FakeServer
from tests.fakes.scripts import QUEUE_FULL, STOPPING, Seen, Status, score_of


def run_clients(
    server: FakeServer, bundle: Bundle, parts: Sequence[Sequence[bytes]], **options: Any
) -> list[list[ImageResult]]:
    """Score a part with each of several clients at the same time."""
    ready = threading.Barrier(len(parts))

    def one(part: Sequence[bytes]) -> list[ImageResult]:
        profile = options.get("profile", "fast")
        quality_map = options.get("quality_map", False)
        way = WAYS[options.get("way", "unary")]
        with connect(server, bundle, in_flight=16, **way) as scorer:
            ready.wait(10)
            return list(scorer.score(items(part), profile=profile, quality_map=quality_map))

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(one, parts))


@pytest.fixture
def parts(images: list[bytes]) -> list[list[bytes]]:
    """Images of four clients; `BAD_AT` of each cannot be decoded."""
    made = [images[16 * k : 16 * (k + 1)] for k in range(4)]
    for k, part in enumerate(made):
        for at in BAD_AT:
            part[at] = undecodable(16 * k + at)
    return made


@pytest.mark.parametrize("way", ["unary", "stream", "shared", "batch"])
@pytest.mark.parametrize("status", [Status.UNKNOWN, Status.INTERNAL])
def test_only_bad_images_fail_on_a_gpu(
    gpu: FakeServer, bundle: Bundle, parts: list[list[bytes]], way: str, status: Any
) -> None:
    gpu.dali = status
    found = run_clients(gpu, bundle, parts, way=way)
    assert max(gpu.batches) > 1  # neighbours were there to suffer
    for rows, part in zip(found, parts, strict=True):
        assert_right(rows, part, *BAD_AT)
        assert {rows[i].error.code for i in BAD_AT} == {"corrupt"}
    assert gpu.sent(GIQA) == dict.fromkeys(itertools.chain(*parts), 1)
    assert max(gpu.sent(GIQA_ISOLATED).values()) == 1
    assert gpu.infers(GIQA_BYTES) == []


def test_without_isolation_good_images_are_lost(
    gpu: FakeServer,
    bundle: Bundle,
    parts: list[list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The test above can fail."""

    def not_alone(self: Flow, job: Any, first: GiqaError) -> Any:
        yield from ()
        raise first

    monkeypatch.setattr(Flow, "_alone", not_alone)
    found = run_clients(gpu, bundle, parts)
    lost = sum(
        row.error is not None for rows in found for i, row in enumerate(rows) if i not in BAD_AT
    )
    assert lost > 0


@pytest.mark.parametrize("profile", ["fast", "precise"])
def test_only_bad_images_fail_on_a_gpu_with_maps(
    gpu: FakeServer, bundle: Bundle, parts: list[list[bytes]], profile: Profile
) -> None:
    found = run_clients(gpu, bundle, parts, profile=profile, quality_map=True)
    alone = 0
    for rows, part in zip(found, parts, strict=True):
        assert [i for i, row in enumerate(rows) if row.error is not None] == [*BAD_AT]
        assert {rows[i].error.code for i in BAD_AT} == {"corrupt"}
        for row, image in zip(rows, part, strict=True):
            if row.error is not None:
                continue
            right = score_of(image)
            if "pillow_decoded" in row.notes:
                alone += 1
                right = score_of_views(through_pillow(bundle, image, profile))
            assert row.score == pytest.approx(right, abs=1e-3)
            assert row.quality_map.shape == (len(row.boxes), 14, 14)
    assert alone > 0


@each_transport
def test_what_dali_refuses_and_pillow_reads_is_scored_on_a_gpu(
    gpu: FakeServer, bundle: Bundle, images: list[bytes], transport: str
) -> None:
    part = images[:16]
    part[5] = odd = refused_by_dali(5)
    (rows,) = run_clients(gpu, bundle, [part], way=transport)
    row = rows.pop(5)
    assert row.error is None
    assert "pillow_decoded" in row.notes
    assert row.score == pytest.approx(score_of_views(through_pillow(bundle, odd)), abs=1e-3)
    assert [r.score for r in rows] == pytest.approx(
        [score_of(image) for i, image in enumerate(part) if i != 5], abs=1e-3
    )
    assert len(gpu.infers(GIQA_VIEWS)) == 1


def test_isolation_survives_a_full_queue_and_a_restart(
    gpu: FakeServer, bundle: Bundle, parts: list[list[bytes]]
) -> None:
    def alone(seen: Seen) -> bool:
        return seen.model == GIQA_ISOLATED

    gpu.fault(status=Status.UNAVAILABLE, message=QUEUE_FULL, when=alone, times=2)
    gpu.fault(status=Status.UNAVAILABLE, message=STOPPING, when=after(30), times=2)
    found = run_clients(gpu, bundle, parts)
    for rows, part in zip(found, parts, strict=True):
        assert_right(rows, part, *BAD_AT)


def test_warning_filters_are_left_as_they_were(
    gpu: FakeServer, bundle: Bundle, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python's `catch_warnings` is for one thread: with several, what one sets stays for ever.
    lazily, times = _pillow.open_lazily, itertools.count(1)

    def slowly(*args: Any) -> Any:
        time.sleep(0.1 * next(times))
        return lazily(*args)

    monkeypatch.setattr(_pillow, "open_lazily", slowly)
    before = [*warnings.filters]
    (rows,) = run_clients(gpu, bundle, [[refused_by_dali(i) for i in range(2)]])
    assert {row.notes for row in rows} == {("pillow_decoded",)}
    assert warnings.filters == before
