"""TritonScorer against a server that does everything wrong: every input still gives its row."""

from __future__ import annotations

import itertools
import math
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import giqa.client._shared_memory
import giqa.client._stream as stream_module
import giqa.client._sync as client_module
from giqa.bundle import Bundle, load_bundle
from giqa.client import Retry, TritonScorer
from giqa.client._flow import Flow
from giqa.contract import (
    GIQA,
    GIQA_BYTES,
    GIQA_ISOLATED,
    GIQA_MAP,
    GIQA_PRECISE,
    GIQA_VIEWS,
    Profile,
)
from giqa.decode import _pillow, probe, views_by_pillow
from giqa.errors import (
    DeadlineExceededError,
    EngineMismatchError,
    GiqaError,
    OverloadedError,
    ServerFailedError,
    ServerRefusedError,
    ServerUnavailableError,
    ShapeMismatchError,
    all_errors,
)
from giqa.results import ImageResult
from giqa.types import Item, Limits, Views
from tests.fakes.kserve import (
    QUEUE_FULL,
    STOPPING,
    TOKEN_HEADER,
    UNDECODABLE,
    FakeServer,
    Seen,
    Status,
    decode,
    free_port,
    score_of,
)
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


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture
def server(bundle: Bundle) -> Iterator[FakeServer]:
    with FakeServer(bundle=bundle) as made:
        yield made


@pytest.fixture
def gpu(bundle: Bundle) -> Iterator[FakeServer]:
    with FakeServer("gpu", bundle=bundle) as made:
        yield made


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Small JPEGs whose scores all differ."""
    made = [jpeg(64, 48, seed=i) for i in range(64)]
    assert len({score_of(image) for image in made}) == len(made)
    return made


@pytest.fixture
def regions(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of all shared memory that the client makes; none may be left behind."""
    names: list[str] = []

    class Noted(shared_memory.SharedMemory):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            names.append(self.name)

    monkeypatch.setattr(giqa.client._shared_memory, "SharedMemory", Noted)
    yield names
    assert [name for name in names if Path("/dev/shm", name).exists()] == []


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


def test_makers_make_what_they_say() -> None:
    bad, odd = undecodable(1), refused_by_dali(1)
    assert probe(bad).route == probe(odd).route == "dali"
    assert decode(bad) is None
    assert decode(odd) is None
    assert decode(odd.replace(UNDECODABLE, b"x" * len(UNDECODABLE))) == (64, 48)


# Order and number of rows


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


# Status codes and retries

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


# Deadlines


@every_way
def test_a_server_that_never_answers_costs_the_deadline(
    server: FakeServer, bundle: Bundle, images: list[bytes], way: str
) -> None:
    some = images[:8]
    server.fault(never=True, when=of(some[3]))
    with connect(server, bundle, deadline_s=0.6, in_flight=8, **WAYS[way]) as scorer:
        start = time.monotonic()
        rows = list(scorer.score(items(some)))
        assert 0.5 < time.monotonic() - start < 1.5
    assert_right(rows, some, *(range(8) if way == "batch" else [3]))
    assert rows[3].error.code == "deadline_exceeded"
    assert server.sent()[some[3]] == 1
    for seen in server.infers():
        assert 0 < seen.timeout_us <= 600_000
        assert seen.stream or 0 < seen.remaining_s <= 0.61 + GRACE_S


@each_transport
def test_attempts_share_one_deadline(
    server: FakeServer, bundle: Bundle, images: list[bytes], transport: str
) -> None:
    server.fault(status=Status.UNAVAILABLE, message=QUEUE_FULL)
    retry = Retry(attempts=100_000, base_s=0.05, max_s=0.05)
    with connect(server, bundle, deadline_s=2.0, retry=retry, transport=transport) as scorer:
        start = time.monotonic()
        (row,) = scorer.score(images[:1])
        assert time.monotonic() - start < 4
    assert row.error.code in ("overloaded", "deadline_exceeded")
    left = [seen.timeout_us for seen in server.infers()]
    assert len(left) > 5
    assert left == sorted(left, reverse=True)
    assert left[0] <= 2_000_000
    assert left[-1] < 1_000_000


@each_transport
def test_a_late_answer_is_nobodys(
    server: FakeServer, bundle: Bundle, images: list[bytes], transport: str
) -> None:
    server.fault(delay_s=0.4, when=of(images[0]))
    with connect(server, bundle, deadline_s=0.2, in_flight=1, transport=transport) as scorer:
        rows = list(scorer.score(items(images[:4])))
        assert_right(rows, images[:4], 0)
        time.sleep(0.4)
        assert_right(list(scorer.score(items(images[:4]))), images[:4], 0)
    assert rows[0].error.code == "deadline_exceeded"


def test_a_server_that_never_says_what_it_serves(server: FakeServer, bundle: Bundle) -> None:
    server.fault(rpc="ModelConfig", never=True)
    start = time.monotonic()
    with pytest.raises((DeadlineExceededError, ServerUnavailableError)):
        connect(server, bundle, deadline_s=0.4)
    assert time.monotonic() - start < 1.5


def test_nobody_listens(bundle: Bundle) -> None:
    start = time.monotonic()
    with pytest.raises(ServerUnavailableError):
        TritonScorer(f"grpc://127.0.0.1:{free_port()}", bundle=bundle, retry=QUICK, deadline_s=5)
    assert time.monotonic() - start < 3


def test_a_port_that_takes_connections_and_says_nothing(bundle: Bundle) -> None:
    # As a firewall that drops packets, or a stopped process.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"grpc://127.0.0.1:{mute.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(ServerUnavailableError):
            TritonScorer(url, bundle=bundle, retry=QUICK, deadline_s=0.5)
        assert time.monotonic() - start < 1.5


# Back-pressure


@pytest.mark.parametrize("in_flight", [1, 4])
@every_way
def test_no_more_is_read_or_sent_than_needed(
    server: FakeServer, bundle: Bundle, images: list[bytes], way: str, in_flight: int
) -> None:
    server.fault(delay_s=0.005)
    batch = WAYS[way].get("batch", 1)
    pulled = 0

    def source() -> Iterator[Item]:
        nonlocal pulled
        for item in items(images):
            pulled += 1
            yield item

    with connect(server, bundle, in_flight=in_flight, **WAYS[way]) as scorer:
        rows = []
        for row in scorer.score(source()):
            rows.append(row)
            # Twice `in_flight` requests, and the one that is being put together.
            assert pulled <= len(rows) + 2 * in_flight * batch + batch
            if len(rows) in (1, 20):
                time.sleep(0.05)  # a slow consumer: nothing more may be read meanwhile
    assert_right(rows, images)
    assert server.most_in_flight <= in_flight
    if batch == 1:
        assert server.most_in_flight == in_flight


@each_transport
def test_retries_do_not_send_more_at_once(
    server: FakeServer, bundle: Bundle, images: list[bytes], transport: str
) -> None:
    server.fault(delay_s=0.005, status=Status.UNAVAILABLE, message=QUEUE_FULL, times=20)
    retry = Retry(attempts=40, base_s=0.01, max_s=0.02)
    with connect(server, bundle, in_flight=4, retry=retry, transport=transport) as scorer:
        assert_right(list(scorer.score(items(images))), images)
    assert server.most_in_flight <= 4


# Wrong answers


def _missing(response: Any) -> None:
    del response.outputs[:]
    del response.raw_output_contents[:]


def _extra(response: Any) -> None:
    response.outputs.add(name="MORE", datatype="FP32", shape=(1, 1))
    response.raw_output_contents.append(bytes(4))


def _twice(response: Any) -> None:
    response.outputs.append(response.outputs[0])
    response.raw_output_contents.append(response.raw_output_contents[0])


def _set(**values: Any) -> Callable[[Any], None]:
    def spoil(response: Any) -> None:
        output = response.outputs[0]
        for name, value in values.items():
            if name == "shape":
                output.shape[:] = value
            elif name == "raw":
                response.raw_output_contents[0] = value
            elif name == "score":
                response.raw_output_contents[0] = np.float32(value).tobytes()
            else:
                setattr(output, name, value)

    return spoil


WRONG: dict[str, Callable[[Any], None]] = {
    "model": lambda response: setattr(response, "model_name", "giqa_map"),
    "no model": lambda response: setattr(response, "model_name", ""),
    "missing output": _missing,
    "extra output": _extra,
    "output twice": _twice,
    "other output": _set(name="QUALITY"),
    "dtype": _set(datatype="FP64"),
    "dtype of that size": _set(datatype="INT32"),
    "rank": _set(shape=(1,)),
    "shape": _set(shape=(1, 2)),
    "shape with its bytes": _set(shape=(2, 1), raw=bytes(8)),
    "negative shape": _set(shape=(-1, -1)),
    "too few bytes": _set(raw=b"\0\0\0"),
    "too many bytes": _set(raw=bytes(8)),
    "no bytes": _set(raw=b""),
    "no contents": lambda response: response.ClearField("raw_output_contents"),
    "NaN": _set(score=math.nan),
    "infinite": _set(score=math.inf),
    "below the scale": _set(score=-0.5),
    "above the scale": _set(score=100.5),
}


@pytest.mark.parametrize("transport", ["unary", "stream"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_answer_is_the_servers_failure(
    server: FakeServer, bundle: Bundle, images: list[bytes], wrong: str, transport: str
) -> None:
    some = images[:4]
    server.fault(spoil=WRONG[wrong], when=of(some[1]))
    with connect(server, bundle, transport=transport) as scorer:
        rows = list(scorer.score(items(some)))
    assert_right(rows, some, 1)
    assert (rows[1].error.code, rows[1].error.item) == ("server_failed", "image 1")
    assert rows[1].boxes is None
    assert server.sent() == dict.fromkeys(some, 1)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_answer_to_a_batch(
    server: FakeServer, bundle: Bundle, images: list[bytes], wrong: str
) -> None:
    def spoil(response: Any) -> None:
        if response.model_name == GIQA_BYTES:
            WRONG[wrong](response)

    some = images[:8]
    server.fault(spoil=spoil)
    with connect(server, bundle, batch=8) as scorer:
        assert_right(list(scorer.score(items(some))), some)
    assert len(server.infers(GIQA_BYTES)) == 1


def test_nan_for_one_of_a_batch(server: FakeServer, bundle: Bundle, images: list[bytes]) -> None:
    def spoil(response: Any) -> None:
        scores = np.frombuffer(response.raw_output_contents[0], np.float32).copy()
        scores[2] = np.nan
        response.raw_output_contents[0] = scores.tobytes()

    server.fault(spoil=spoil, times=1)
    with connect(server, bundle, batch=8) as scorer:
        rows = list(scorer.score(items(images[:8])))
    assert_right(rows, images[:8], 2)
    assert rows[2].error.code == "server_failed"


def test_an_answer_with_an_id_that_nobody_gave(
    server: FakeServer, bundle: Bundle, images: list[bytes]
) -> None:
    some = images[:6]
    server.fault(spoil=lambda response: setattr(response, "id", "x"), when=of(some[2]))
    with connect(server, bundle, transport="stream", deadline_s=0.5) as scorer:
        rows = list(scorer.score(items(some)))
    assert_right(rows, some, 2)
    assert rows[2].error.code == "deadline_exceeded"


# The wrong server


@pytest.mark.parametrize(
    "said",
    [{"bundle_digest": "0" * 64}, {"bundle_digest": ""}, None],
    ids=["another bundle", "no digest", "not giqa's"],
)
def test_another_bundle_is_refused_before_any_image(
    server: FakeServer, bundle: Bundle, said: dict[str, str] | None
) -> None:
    server.parameters = {} if said is None else {**server.parameters, **said}
    with pytest.raises(EngineMismatchError):
        connect(server, bundle)
    assert server.infers() == []
    assert [seen.rpc for seen in server.seen] == ["ModelConfig"]


METADATA: dict[str, Callable[[Any], None]] = {
    "missing output": lambda m: m.ClearField("outputs"),
    "extra input": lambda m: m.inputs.add(name="MORE", datatype="FP32", shape=(-1, 1)),
    "dtype": lambda m: setattr(m.outputs[0], "datatype", "FP16"),
    "shape": lambda m: m.outputs[0].shape.append(7),
    "name": lambda m: setattr(m.inputs[0], "name", "PICTURE"),
}


@pytest.mark.parametrize("wrong", METADATA)
def test_other_tensors_are_refused_before_any_image(
    server: FakeServer, bundle: Bundle, wrong: str
) -> None:
    server.spoil_metadata[GIQA] = METADATA[wrong]
    with pytest.raises(EngineMismatchError):
        connect(server, bundle)
    assert server.infers() == []


@pytest.mark.parametrize("model", [GIQA_PRECISE, GIQA_MAP, GIQA_BYTES])
def test_other_tensors_of_another_model(
    server: FakeServer, bundle: Bundle, images: list[bytes], model: str
) -> None:
    server.spoil_metadata[model] = METADATA["dtype"]
    profile: Profile = "precise" if model == GIQA_PRECISE else "fast"
    with connect(server, bundle, batch=4) as scorer:
        rows = list(scorer.score(images[:4], profile=profile, quality_map=model == GIQA_MAP))
        assert [row.error.code for row in rows] == ["engine_mismatch"] * 4
    assert server.infers(model) == []


@every_way
def test_the_token_is_sent_with_everything(bundle: Bundle, images: list[bytes], way: str) -> None:
    with FakeServer(bundle=bundle, token="secret") as server:
        with connect(server, bundle, token="secret", **WAYS[way]) as scorer:
            assert_right(list(scorer.score(items(images[:9]))), images[:9])
        assert {seen.metadata.get(TOKEN_HEADER) for seen in server.seen} == {"secret"}
        assert {"ModelConfig", "ModelMetadata", "infer"} <= {seen.rpc for seen in server.seen}


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_wrong_token_is_refused_at_once(bundle: Bundle, token: str | None) -> None:
    with FakeServer(bundle=bundle, token="secret") as server:
        with pytest.raises(ServerRefusedError):
            connect(server, bundle, token=token)
        assert len(server.seen) == 1


@each_transport
def test_a_token_that_was_changed(
    server: FakeServer, bundle: Bundle, images: list[bytes], transport: str
) -> None:
    with connect(server, bundle, token="old", transport=transport) as scorer:
        server._token = "new"
        (row,) = scorer.score(images[:1])
    assert row.error.code == "server_refused"
    assert len(server.infers()) <= 1


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """Keys and certificates of two servers at 127.0.0.1, each its own authority."""
    made = []
    for name in ("one", "two"):
        folder = tmp_path_factory.mktemp(name)
        key, cert = folder / "key.pem", folder / "cert.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
                *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
                *("-keyout", str(key), "-out", str(cert)),
            ],
            check=True,
            capture_output=True,
        )
        made.append((key, cert))
    return made


@pytest.fixture
def tls(bundle: Bundle, certificates: list[tuple[Path, Path]]) -> Iterator[FakeServer]:
    key, cert = certificates[0]
    with FakeServer(bundle=bundle, tls=(key.read_bytes(), cert.read_bytes())) as made:
        yield made


@each_transport
def test_tls(
    tls: FakeServer,
    bundle: Bundle,
    images: list[bytes],
    certificates: list[tuple[Path, Path]],
    transport: str,
) -> None:
    with connect(tls, bundle, ca=certificates[0][1], transport=transport) as scorer:
        assert_right(list(scorer.score(items(images[:9]))), images[:9])


def test_a_plain_client_of_a_tls_server(tls: FakeServer, bundle: Bundle) -> None:
    start = time.monotonic()
    with pytest.raises(ServerUnavailableError):
        TritonScorer(tls.url.replace("grpcs", "grpc"), bundle=bundle, retry=QUICK, deadline_s=3)
    assert time.monotonic() - start < 4


def test_a_tls_client_of_a_plain_server(
    server: FakeServer, bundle: Bundle, certificates: list[tuple[Path, Path]]
) -> None:
    start = time.monotonic()
    with pytest.raises(ServerUnavailableError) as caught:
        TritonScorer(
            server.url.replace("grpc", "grpcs"),
            bundle=bundle,
            ca=certificates[0][1],
            retry=QUICK,
            deadline_s=3,
        )
    assert time.monotonic() - start < 4
    assert "grpcs://" in caught.value.remedy


def test_a_certificate_of_somebody_else(
    tls: FakeServer, bundle: Bundle, certificates: list[tuple[Path, Path]]
) -> None:
    start = time.monotonic()
    with pytest.raises(ServerUnavailableError) as caught:
        connect(tls, bundle, ca=certificates[1][1], deadline_s=3)
    assert time.monotonic() - start < 4
    assert "certificates" in caught.value.remedy
    assert tls.seen == []


# Servers that go and come back


def _start(port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.kserve", str(port)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("way", ["unary", "shared-stream"])
def test_a_server_killed_in_mid_run_comes_back(
    bundle: Bundle, images: list[bytes], regions: list[str], way: str
) -> None:
    port = free_port()
    process = _start(port)
    rows = []
    try:
        with TritonScorer(
            f"grpc://127.0.0.1:{port}", bundle=bundle, in_flight=8, retry=PATIENT, **WAYS[way]
        ) as scorer:
            for row in scorer.score(items(images)):
                rows.append(row)
                if len(rows) == 16:
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    process = _start(port)
    finally:
        process.kill()
        process.communicate()
    assert_right(rows, images)


@every_way
def test_a_server_started_again_in_mid_run(
    server: FakeServer, bundle: Bundle, images: list[bytes], way: str
) -> None:
    server.fault(delay_s=0.01)
    rows = []
    with connect(server, bundle, in_flight=8, retry=PATIENT, **WAYS[way]) as scorer:
        for row in scorer.score(items(images)):
            rows.append(row)
            if len(rows) == 10:
                server.stop()
                server.start()
    assert_right(rows, images)


@every_way
def test_a_server_that_stays_away(
    server: FakeServer, bundle: Bundle, images: list[bytes], way: str
) -> None:
    with connect(server, bundle, **WAYS[way]) as scorer:
        assert_right(list(scorer.score(items(images[:8]))), images[:8])
        server.stop()
        start = time.monotonic()
        rows = list(scorer.score(items(images[:8])))
        assert time.monotonic() - start < 3
        assert {row.error.code for row in rows} == {"server_unavailable"}
        server.start()


# Streams that break


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("status", [None, Status.UNAVAILABLE, Status.CANCELLED])
@pytest.mark.parametrize("answers", [0, 1, 20])
def test_a_broken_stream_is_opened_again(
    server: FakeServer,
    bundle: Bundle,
    images: list[bytes],
    answers: int,
    status: Any,
    shared: bool,
) -> None:
    server.fault(end_stream=True, status=status, when=after(answers), times=1)
    with connect(server, bundle, transport="stream", shared_memory=shared) as scorer:
        assert_right(list(scorer.score(items(images))), images)
    assert max(server.sent().values()) <= 2


def test_a_stream_that_ends_again_and_again(
    server: FakeServer, bundle: Bundle, images: list[bytes]
) -> None:
    numbers = itertools.count(1)
    server.fault(end_stream=True, when=lambda seen: next(numbers) % 10 == 0)
    with connect(server, bundle, transport="stream", retry=PATIENT) as scorer:
        assert_right(list(scorer.score(items(images))), images)


@pytest.mark.parametrize("at", [0, 20])
def test_a_stream_error_without_an_id(
    server: FakeServer, bundle: Bundle, images: list[bytes], at: int
) -> None:
    server.fault(status=Status.INTERNAL, anonymous=True, times=1, when=after(at))
    with connect(server, bundle, transport="stream") as scorer:
        assert_right(list(scorer.score(items(images))), images)


def test_stream_errors_without_an_id_for_one_image_are_bounded(
    server: FakeServer, bundle: Bundle, images: list[bytes]
) -> None:
    server.fault(status=Status.INTERNAL, anonymous=True, when=of(images[3]))
    with connect(server, bundle, transport="stream", in_flight=1) as scorer:
        rows = list(scorer.score(items(images[:8])))
    assert_right(rows, images[:8], 3)
    assert server.sent()[images[3]] <= 3


# Shared memory


@shared_ways
def test_inputs_lie_in_shared_memory_and_nothing_is_left(
    server: FakeServer, bundle: Bundle, images: list[bytes], regions: list[str], way: str
) -> None:
    with connect(server, bundle, in_flight=4, **WAYS[way]) as scorer:
        assert_right(list(scorer.score(items(images))), images)
        assert all(seen.shared for seen in server.infers())
        # The names are gone as soon as the server has the memory: a crash leaves nothing.
        assert [name for name in regions if Path("/dev/shm", name).exists()] == []
    assert sorted(server.keys) == sorted(f"/{name}" for name in regions)
    assert 0 < server.most_regions <= 4
    assert server.regions == {}


@shared_ways
@pytest.mark.parametrize("when", [0, 1, 30])
def test_a_server_that_forgets_its_regions(
    server: FakeServer,
    bundle: Bundle,
    images: list[bytes],
    regions: list[str],
    way: str,
    when: int,
) -> None:
    server.fault(before=server.forget, times=1, when=after(when))
    with connect(server, bundle, **WAYS[way]) as scorer:
        assert_right(list(scorer.score(items(images))), images)
        server.forget()
        assert_right(list(scorer.score(items(images))), images)
    assert server.regions == {}


@shared_ways
def test_many_forgotten_regions_do_not_use_up_an_images_attempts(
    server: FakeServer, bundle: Bundle, images: list[bytes], regions: list[str], way: str
) -> None:
    server.fault(delay_s=0.05, times=16)
    with connect(server, bundle, in_flight=16, **WAYS[way]) as scorer:
        assert_right(list(scorer.score(items(images[:32]))), images[:32])
        assert server.most_regions > QUICK.attempts
        server.forget()
        assert_right(list(scorer.score(items(images[:1]))), images[:1])


@shared_ways
def test_regions_of_a_client_that_died(
    server: FakeServer,
    bundle: Bundle,
    images: list[bytes],
    regions: list[str],
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A process number comes again; in containers it is 1 each time.
    for i in range(16):
        server.regions[f"giqa-{os.getpid()}-{i}"] = mmap.mmap(-1, 4096)
    with connect(server, bundle, in_flight=2, **WAYS[way]) as scorer:
        assert_right(list(scorer.score(items(images[:8]))), images[:8])


@shared_ways
def test_memory_is_bounded_whatever_the_order_of_sizes(
    server: FakeServer, bundle: Bundle, images: list[bytes], regions: list[str], way: str
) -> None:
    # Each fits none of the regions before it.
    growing = [images[i] + bytes(i << 20) for i in range(1, 8)]
    with connect(server, bundle, in_flight=2, **WAYS[way]) as scorer:
        assert_right(list(scorer.score(items(growing))), growing)
    assert server.most_regions <= 2


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"status": Status.UNAVAILABLE}, "server_unavailable"),
        ({"status": Status.PERMISSION_DENIED}, "server_refused"),
        ({"never": True}, "deadline_exceeded"),
    ],
    ids=["unavailable", "refused", "never"],
)
def test_a_server_that_does_not_register(
    server: FakeServer,
    bundle: Bundle,
    images: list[bytes],
    regions: list[str],
    fault: dict[str, Any],
    code: str,
) -> None:
    server.fault(rpc="SystemSharedMemoryRegister", **fault)
    with connect(server, bundle, shared_memory=True, deadline_s=0.5) as scorer:
        rows = list(scorer.score(images[:3]))
        assert server.infers() == []
    assert {row.error.code for row in rows} == {code}


@shared_ways
def test_a_server_that_is_gone_when_the_client_closes(
    bundle: Bundle, images: list[bytes], regions: list[str], way: str
) -> None:
    server = FakeServer(bundle=bundle)
    with server:
        scorer = connect(server, bundle, in_flight=3, **WAYS[way])
        assert_right(list(scorer.score(items(images))), images)
    start = time.monotonic()
    scorer.close()
    assert time.monotonic() - start < 3


# Batches in one request


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


# Ready-made views


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


# Ending early


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server has is left to end by itself, but here not for seconds."""
    for module in (client_module, stream_module):
        monkeypatch.setattr(module, "GRACE_S", GRACE_S)


def close_in_mid_run(
    scorer: TritonScorer, images: Sequence[bytes], is_time: Callable[[], bool]
) -> object:
    """Close from another thread; how the consumer's loop ended: its codes or an exception."""
    ended: list[object] = []

    def consume() -> None:
        try:
            rows = list(scorer.score(items(images)))
            ended.append({row.error.code for row in rows if row.error is not None})
        except BaseException as e:
            ended.append(e)

    consumer = threading.Thread(target=consume)
    consumer.start()
    latest = time.monotonic() + 5
    while not is_time() and time.monotonic() < latest:
        time.sleep(0.01)
    start = time.monotonic()
    scorer.close()
    consumer.join(5)
    assert time.monotonic() - start < 3
    (how,) = ended
    return how


@pytest.mark.parametrize("count", [14, 18, 64], ids=["all sent", "all read", "some unread"])
@pytest.mark.parametrize("way", ["unary", "stream", "shared", "shared-stream"])
def test_close_ends_what_is_under_way(
    server: FakeServer,
    bundle: Bundle,
    images: list[bytes],
    regions: list[str],
    way: str,
    count: int,
) -> None:
    server.fault(never=True, when=after(10))
    scorer = connect(server, bundle, in_flight=4, deadline_s=20, **WAYS[way])
    how = close_in_mid_run(scorer, images[:count], lambda: len(server.infers()) >= 14)
    assert isinstance(how, GiqaError) or how == {"server_unavailable"}, repr(how)


def test_close_while_memory_is_being_registered(
    server: FakeServer, bundle: Bundle, images: list[bytes], regions: list[str]
) -> None:
    server.fault(rpc="SystemSharedMemoryRegister", never=True)
    scorer = connect(server, bundle, in_flight=4, deadline_s=20, shared_memory=True)
    how = close_in_mid_run(scorer, images[:4], lambda: len(regions) >= 4)
    assert isinstance(how, GiqaError) or how == {"server_unavailable"}, repr(how)


@every_way
def test_a_consumer_that_stops_early(
    server: FakeServer, bundle: Bundle, images: list[bytes], regions: list[str], way: str
) -> None:
    server.fault(never=True, when=after(3))
    start = time.monotonic()
    with connect(server, bundle, in_flight=2, deadline_s=20, **WAYS[way]) as scorer:
        for row in scorer.score(items(images)):
            assert row.error is None
            break
    assert time.monotonic() - start < 5


# DALI's batches on a GPU


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


BAD_AT = (2, 9, 10)


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


FORKING = """
import collections, os, sys
from giqa import UsageError
from giqa.client import TritonScorer

ended = collections.Counter()
with TritonScorer(sys.argv[1]) as scorer:
    for _ in range(60):
        (before,) = scorer.score([sys.argv[2]])
        child = os.fork()
        if not child:
            try:
                list(scorer.score([sys.argv[2]]))
            except UsageError as e:
                scorer.close()
                os._exit(0 if "was opened before this process was forked" in str(e) else 2)
            finally:
                os._exit(1)
        ended[os.waitpid(child, 0)[1]] += 1
        (after,) = scorer.score([sys.argv[2]])
        assert after.score == before.score
print(dict(ended))
"""


def test_forked_children_are_told_at_once(
    server: FakeServer, images: list[bytes], tmp_path: Path
) -> None:
    """In a process of its own, as the server's threads here are gRPC's too."""
    picture = tmp_path / "one.jpg"
    picture.write_bytes(images[0])
    env = {k: v for k, v in os.environ.items() if k != "GRPC_ENABLE_FORK_SUPPORT"}
    ran = subprocess.run(
        [sys.executable, "-c", FORKING, server.url, str(picture)],
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
    )
    assert ran.stdout.strip() == "{0: 60}", ran.stderr


def test_a_scorer_can_be_pickled(server: FakeServer, images: list[bytes]) -> None:
    with (
        TritonScorer(server.url, batch=2, retry=QUICK, limits=Limits(max_pixels=5000)) as scorer,
        pickle.loads(pickle.dumps(scorer)) as again,
    ):
        for one in (scorer, again):
            found = [r.score for r in one.score(images[:3])]
            assert found == pytest.approx([score_of(i) for i in images[:3]])
            (large,) = one.score(jpeg(100, 100))
            assert large.error.code == "too_many_pixels"
