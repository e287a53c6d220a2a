"""Every input gives its row, in order, with its own score."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giqa.bundle import Bundle
from giqa.contract import Profile
from giqa.decode import probe
from giqa.types import Item
from tests.fakes.clients import (
    WAYS,
    assert_right,
    connect,
    every_way,
    items,
    refused_by_dali,
    undecodable,
)
from tests.fakes.kserve import FakeServer
from tests.fakes.scripts import UNDECODABLE, decode, score_of
from tests.makers import jpeg


def test_makers_make_what_they_say() -> None:
    bad, odd = undecodable(1), refused_by_dali(1)
    assert probe(bad).route == probe(odd).route == "dali"
    assert decode(bad) is None
    assert decode(odd) is None
    assert decode(odd.replace(UNDECODABLE, b"x" * len(UNDECODABLE))) == (64, 48)


@every_way
def test_rows_keep_order_whatever_comes_back_first(
    server: FakeServer, bundle: Bundle, images: list[bytes], way: str
) -> None:
    for nth, delay in ((3, 0.05), (2, 0.02), (1, 0.01)):
        server.fault(
            delay_s=delay, when=lambda seen, nth=nth: score_of(seen.images[0]) * 100 % 4 == nth
        )
    with connect(server, bundle, **WAYS[way]) as scorer:
        assert scorer.engine == "fake-f32"
        assert_right(list(scorer.score(items(images))), images)
    assert server.sent() == dict.fromkeys(images, 1)


@every_way
def test_what_is_bad_before_sending_is_a_row_and_not_sent(
    server: FakeServer, bundle: Bundle, images: list[bytes], way: str, tmp_path: Path
) -> None:
    mixed: list[Any] = items(images[:12])
    mixed[1] = Item("image 1", data=b"")
    mixed[4] = Item("image 4", data=images[4][:-100])
    mixed[5] = Item("image 5", path=tmp_path / "none.jpg")
    with connect(server, bundle, **WAYS[way]) as scorer:
        rows = list(scorer.score(mixed))
        assert list(scorer.score([])) == []
    assert_right(rows, images[:12], 1, 4, 5)
    assert [rows[i].error.code for i in (1, 4, 5)] == ["empty", "truncated", "not_found"]
    sent = [image for i, image in enumerate(images[:12]) if i not in (1, 4, 5)]
    assert server.sent() == dict.fromkeys(sent, 1)


@pytest.mark.parametrize("way", ["unary", "stream", "shared"])
@pytest.mark.parametrize("profile", ["fast", "precise"])
def test_quality_maps(
    server: FakeServer, bundle: Bundle, images: list[bytes], way: str, profile: Profile
) -> None:
    mixed = [*images[:3], jpeg(900, 500)]
    with connect(server, bundle, **WAYS[way]) as scorer:
        rows = list(scorer.score(items(mixed), profile=profile, quality_map=True))
    assert_right(rows, mixed)
    for row in rows:
        assert row.quality_map.shape == (len(row.boxes), 14, 14)
        assert np.all(row.quality_map == np.float32(row.score))
    assert (len(rows[3].boxes) > 1) == (profile == "precise")


@every_way
def test_several_threads_share_a_scorer(
    server: FakeServer, bundle: Bundle, images: list[bytes], way: str
) -> None:
    server.fault(delay_s=0.005)

    def one(k: int) -> None:
        mine = images[16 * k : 16 * (k + 1)]
        assert_right(list(scorer.score(items(mine))), mine)

    with connect(server, bundle, in_flight=6, **WAYS[way]) as scorer, ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(one, range(4)))) == 4
    assert server.most_in_flight <= 6
