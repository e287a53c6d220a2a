"""Several images in one request, and views made by the caller."""

from __future__ import annotations

import pytest

from giqa.bundle import Bundle
from giqa.contract import GIQA, GIQA_BYTES
from giqa.errors import ServerFailedError, ShapeMismatchError
from giqa.types import Views
from tests.fakes.clients import (
    WAYS,
    assert_right,
    connect,
    items,
    score_of_views,
    through_pillow,
    undecodable,
)
from tests.fakes.kserve import FakeServer
from tests.fakes.scripts import Status
from tests.makers import jpeg


@pytest.mark.parametrize("at", [0, 3, 7])
@pytest.mark.parametrize("way", ["unary", "stream", "shared"])
def test_a_bad_image_among_eight_fails_alone(
    server: FakeServer, bundle: Bundle, images: list[bytes], at: int, way: str
) -> None:
    some = images[:24]
    some[8 + at] = undecodable(1)
    with connect(server, bundle, **{**WAYS[way], "batch": 8}) as scorer:
        rows = list(scorer.score(items(some)))
    assert_right(rows, some, 8 + at)
    assert rows[8 + at].error.code == "corrupt"
    assert server.sent(GIQA_BYTES) == dict.fromkeys(some, 1)
    assert server.sent(GIQA) == dict.fromkeys(some[8:16], 1)


def test_a_batch_of_bad_images(server: FakeServer, bundle: Bundle) -> None:
    some = [undecodable(i) for i in range(8)]
    with connect(server, bundle, batch=8) as scorer:
        rows = list(scorer.score(items(some)))
    assert_right(rows, some, *range(8))
    assert {row.error.code for row in rows} == {"corrupt"}


@pytest.mark.parametrize("way", ["unary", "stream", "shared"])
def test_views(server: FakeServer, bundle: Bundle, images: list[bytes], way: str) -> None:
    made = [through_pillow(bundle, image) for image in images[:6]]
    made.append(through_pillow(bundle, jpeg(900, 500), "precise"))
    with connect(server, bundle, **WAYS[way]) as scorer:
        found = list(scorer.score_views(iter(made)))
        assert [one.score for one in found] == pytest.approx(
            [score_of_views(views) for views in made], abs=1e-3
        )
        assert found[-1].quality_map.shape == (len(made[-1].local_view), 14, 14)
        with pytest.raises(ShapeMismatchError):
            list(scorer.score_views([Views(made[0].local_view, made[0].local_view)]))
        server.fault(status=Status.INTERNAL)
        with pytest.raises(ServerFailedError):
            list(scorer.score_views(made[:1]))
