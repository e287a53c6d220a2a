"""A failure has its code, and is sent again where that helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from giqa.bundle import Bundle
from giqa.client import Retry
from giqa.errors import OverloadedError, ServerUnavailableError, all_errors
from tests.fakes.clients import WAYS, assert_right, connect, each_transport, items, of, undecodable
from tests.fakes.kserve import FakeServer
from tests.fakes.scripts import QUEUE_FULL, STOPPING, Status

FAILURES: list[tuple[Any, str, str, int]] = [
    (Status.INTERNAL, "boom", "server_failed", 1),
    (Status.UNKNOWN, "boom", "server_failed", 1),
    (Status.ABORTED, "", "server_failed", 1),
    (Status.INVALID_ARGUMENT, "unexpected shape for input 'IMAGE'", "shape_mismatch", 1),
    (Status.INVALID_ARGUMENT, "in ensemble 'giqa', [corrupt] broken", "corrupt", 1),
    (Status.INVALID_ARGUMENT, "[too_many_pixels] too many", "too_many_pixels", 1),
    (Status.NOT_FOUND, "Request for unknown model: 'giqa' is not found", "engine_mismatch", 1),
    (Status.UNAUTHENTICATED, "who are you", "server_refused", 1),
    (Status.PERMISSION_DENIED, "no", "server_refused", 1),
    (Status.DEADLINE_EXCEEDED, "Request timeout expired", "deadline_exceeded", 1),
    (Status.UNAVAILABLE, "Request timeout expired", "deadline_exceeded", 1),
    (Status.UNAVAILABLE, STOPPING, "server_unavailable", 3),
    (Status.UNAVAILABLE, QUEUE_FULL, "overloaded", 3),
    (Status.RESOURCE_EXHAUSTED, "enough", "overloaded", 3),
    (Status.INTERNAL, "Stub process 'preprocess_0' is not healthy.", "server_unavailable", 3),
]
WORDS_SUFFICE = [f for f in FAILURES if f[1] not in ("", "enough", "who are you", "no")]
"""A stream's errors have no status. (`unexpected shape` is then a failure of the server's.)"""


@pytest.mark.parametrize(
    ("transport", "status", "message", "code", "sends"),
    [("unary", *f) for f in FAILURES]
    + [("stream", *f) for f in WORDS_SUFFICE if f[2] != "shape_mismatch"],
)
def test_a_failure_has_its_code_and_is_sent_again_only_if_that_helps(
    server: FakeServer,
    bundle: Bundle,
    images: list[bytes],
    transport: str,
    status: Any,
    message: str,
    code: str,
    sends: int,
) -> None:
    some = images[:8]
    server.fault(status=status, message=message, when=of(some[3]))
    with connect(server, bundle, transport=transport) as scorer:
        rows = list(scorer.score(items(some)))
    assert_right(rows, some, 3)
    assert (rows[3].error.code, rows[3].error.item) == (code, "image 3")
    assert rows[3].error.code in all_errors()
    assert server.sent() == {image: sends if image is some[3] else 1 for image in some}


@each_transport
def test_a_corrupt_image_is_sent_once(
    server: FakeServer, bundle: Bundle, images: list[bytes], transport: str
) -> None:
    some = [*images[:5], undecodable(1), *images[5:8]]
    with connect(server, bundle, transport=transport) as scorer:
        rows = list(scorer.score(items(some)))
    assert_right(rows, some, 5)
    assert rows[5].error.code == "corrupt"
    assert server.sent() == dict.fromkeys(some, 1)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        *((way, QUEUE_FULL) for way in WAYS),
        *((way, STOPPING) for way in ("unary", "shared", "batch")),  # see above for streams
    ],
)
def test_what_passes_is_scored_in_the_end(
    server: FakeServer, bundle: Bundle, images: list[bytes], way: str, message: str
) -> None:
    some = images[:24]
    server.fault(status=Status.UNAVAILABLE, message=message, times=2, when=of(some[3]))
    with connect(server, bundle, **WAYS[way]) as scorer:
        assert_right(list(scorer.score(items(some))), some)
    assert server.sent()[some[3]] == 3
    assert server.sent()[some[23]] == 1


def test_the_first_contact_is_tried_again(
    server: FakeServer, bundle: Bundle, images: list[bytes]
) -> None:
    server.fault(rpc="ModelConfig", status=Status.UNAVAILABLE, times=2)
    with connect(server, bundle) as scorer:
        assert_right(list(scorer.score(items(images[:2]))), images[:2])


PAUSES = st.floats(0, 100, allow_subnormal=False)


@given(st.integers(1, 1000), st.integers(1, 1000), PAUSES, PAUSES)
def test_pauses_are_bounded(attempts: int, attempt: int, base_s: float, max_s: float) -> None:
    retry = Retry(attempts=attempts, base_s=base_s, max_s=max_s)
    for error in (ServerUnavailableError("gone"), OverloadedError("full")):
        pause = retry.pause(attempt, error)
        assert (pause is None) == (attempt >= attempts)
        if pause is not None:
            assert 0 <= pause <= min(max_s, base_s * 2 ** (attempt - 1))


@given(st.integers(1, 100), st.sampled_from(sorted(all_errors())))
def test_only_two_errors_are_worth_another_attempt(attempt: int, code: str) -> None:
    pause = Retry(attempts=1000).pause(attempt, all_errors()[code]("failed"))
    assert (pause is not None) == (code in ("server_unavailable", "overloaded"))


def test_pauses_are_drawn_evenly() -> None:
    retry = Retry(attempts=8, base_s=0.1, max_s=1.0)
    for attempt, longest in ((1, 0.1), (2, 0.2), (3, 0.4), (5, 1.0), (7, 1.0)):
        pauses = [retry.pause(attempt, OverloadedError("full")) / longest for _ in range(2000)]
        counts = np.histogram(pauses, 4, (0, 1))[0]
        assert all(400 < n < 600 for n in counts), counts  # 500 on average, +- 19


def test_a_late_attempt_has_a_pause_too() -> None:
    pause = Retry(attempts=5000, base_s=0.01, max_s=0.05).pause(1100, OverloadedError("full"))
    assert pause is not None
    assert 0 <= pause <= 0.05
