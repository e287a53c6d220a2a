"""The real server: the scores of in process, whatever the way, and clear errors for the rest."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2 as pb

from giqa import AsyncTritonScorer, LocalScorer, TritonScorer
from giqa.bundle import Bundle
from giqa.client import Retry
from giqa.contract import (
    FUSION,
    GIQA,
    GIQA_ISOLATED,
    GIQA_VIEWS,
    GLOBAL_BRANCH,
    GLOBAL_TOKENS,
    GLOBAL_VIEW,
    GRAPHS,
    IMAGE,
    LOCAL_TOKENS,
    LOCAL_VIEW,
    PREPROCESS,
    PREPROCESS_BYTES,
    PREPROCESS_ISOLATED,
    PREPROCESSES,
    SCORE,
)
from giqa.decode import Decoder
from giqa.errors import DeadlineExceededError, EngineMismatchError, GiqaError, ShapeMismatchError
from giqa.kserve import Connection, Tensor, request, service_stub, to_error
from giqa.results import ImageResult
from giqa.serving import Server
from giqa.tensors import inputs_of, outputs_of, tensor_shapes
from giqa.types import Item
from giqa.video import score_video
from tests.clips import pan, write
from tests.makers import BAD, GOOD, jpeg, png
from tests.triton.conftest import ADMIN

WAYS = {
    "unary": {},
    "stream": {"transport": "stream"},
    "shared memory": {"shared_memory": True, "admin_key": ADMIN},
    "stream, shared memory": {"transport": "stream", "shared_memory": True, "admin_key": ADMIN},
    "batches": {"batch": 8},
}


def row(result: ImageResult) -> dict:
    """A row as it is written, but for a note that only who decodes can give."""
    found = result.to_json()
    found["notes"] = [n for n in found["notes"] if n != "pillow_decoded"]
    return found


@pytest.fixture(scope="module")
def images() -> list[Item]:
    """Good, odd and bad files, mixed."""
    sized = [(f"sized-{i}.jpg", jpeg(200 + 16 * i, 300 - 8 * i, seed=i)) for i in range(12)]
    good = [(name, make()) for name, make in list(GOOD.items())[::3]]
    bad = [(name, make()) for name, (make, _) in list(BAD.items())[::3]]
    files = [file for group in zip(sized, good, bad, strict=False) for file in group]
    assert len(files) >= 30
    return [Item(name, data=data) for name, data in files]


@pytest.fixture(scope="module")
def expected(local: LocalScorer, images: list[Item]) -> dict[str, list[ImageResult]]:
    return {
        profile: list(local.score(images, profile=profile, quality_map=True))
        for profile in ("fast", "precise")
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("profile", ["fast", "precise"])
def test_rows_are_those_of_in_process(
    way: str, profile: str, url: str, images: list[Item], expected: dict[str, list[ImageResult]]
) -> None:
    with TritonScorer(url, **WAYS[way]) as scorer:
        found = list(scorer.score(images, profile=profile))
    assert [row(r) for r in found] == [row(r) for r in expected[profile]]
    for a, b in zip(found, expected[profile], strict=True):
        assert (a.boxes is None) == (b.boxes is None)
        assert a.boxes is None or np.array_equal(a.boxes, b.boxes)


@pytest.mark.parametrize("way", WAYS)
def test_asyncio_gives_the_same_rows(
    way: str, url: str, images: list[Item], expected: dict[str, list[ImageResult]]
) -> None:
    async def run() -> list[ImageResult]:
        async with AsyncTritonScorer(url, **WAYS[way]) as scorer:
            return [result async for result in scorer.score(images)]

    assert [row(r) for r in asyncio.run(run())] == [row(r) for r in expected["fast"]]


@pytest.mark.parametrize("profile", ["fast", "precise"])
def test_maps_are_those_of_in_process(
    profile: str, url: str, images: list[Item], expected: dict[str, list[ImageResult]]
) -> None:
    with TritonScorer(url) as scorer:
        found = list(scorer.score(images, profile=profile, quality_map=True))
    for a, b in zip(found, expected[profile], strict=True):
        assert a.score == b.score
        assert (a.quality_map is None) == (b.quality_map is None)
        assert a.quality_map is None or np.array_equal(a.quality_map, b.quality_map)


def test_videos_score_like_in_process(url: str, local: LocalScorer, tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.mp4", pan(20))
    wanted = score_video(clip, local)
    with TritonScorer(url) as scorer:
        found = score_video(clip, scorer)
    assert (found.status, len(found.frames)) == ("ok", 20)
    assert (found.frames, found.pooled) == (wanted.frames, wanted.pooled)


@pytest.mark.parametrize("profile", ["fast", "precise"])
def test_views_score_like_in_process(profile: str, url: str, local: LocalScorer) -> None:
    sizes = [(500, 400), (300, 300), (900, 700), (200, 1000)]
    items = [Item(str(s), data=jpeg(*s, seed=i)) for i, s in enumerate(sizes)]
    decoded = Decoder(local.manifest)(items, profile)
    views = [one.views for one in decoded if one.views is not None]
    wanted = list(local.score_views(views))
    with TritonScorer(url) as scorer:
        found = list(scorer.score_views(views))
        with pytest.raises(ShapeMismatchError):
            list(scorer.score_views([type(views[0])(views[0].local_view, views[0].local_view)]))

    async def run() -> list:
        async with AsyncTritonScorer(url, transport="stream") as scorer:
            return [s async for s in scorer.score_views(views)]

    for scores in (found, asyncio.run(run())):
        assert [s.score for s in scores] == [s.score for s in wanted]
        for a, b in zip(scores, wanted, strict=True):
            assert np.array_equal(a.quality_map, b.quality_map)


def ask(server: Server, model: str, inputs: dict[str, Tensor], **options: object) -> object:
    outputs = options.pop("outputs", [SCORE])
    message = request(model, inputs, outputs, **options)
    return server.call("ModelInfer", message, 120)


def image_tensor(data: bytes) -> dict[str, Tensor]:
    return {IMAGE: Tensor("UINT8", (1, len(data)), data)}


def test_isolated_gives_the_same_score(server: Server) -> None:
    data = image_tensor(jpeg(333, 222))
    raw = [ask(server, m, data).raw_output_contents for m in (GIQA, GIQA_ISOLATED)]
    assert raw[0] == raw[1]


ZEROS = bytes(8)
WRONG = {
    "empty": (GIQA, {IMAGE: Tensor("UINT8", (1, 0), b"")}, "empty"),
    "noise": (GIQA, image_tensor(b"\xff\xd8\xff" + bytes(100)), "truncated"),
    "wrong dtype": (GIQA, {IMAGE: Tensor("FP32", (1, 2), ZEROS)}, "shape_mismatch"),
    "wrong rank": (GIQA, {IMAGE: Tensor("UINT8", (1, 2, 4), ZEROS)}, "shape_mismatch"),
    "zero batch": (GIQA, {IMAGE: Tensor("UINT8", (0, 8), b"")}, "shape_mismatch"),
    "batch over the maximum": (GIQA, {IMAGE: Tensor("UINT8", (2, 4), ZEROS)}, "shape_mismatch"),
    "too few bytes": (GIQA, {IMAGE: Tensor("UINT8", (1, 9), ZEROS)}, "shape_mismatch"),
    "wrong name": (GIQA, {"PICTURE": Tensor("UINT8", (1, 8), ZEROS)}, "shape_mismatch"),
    "views of another size": (
        GIQA_VIEWS,
        {
            GLOBAL_VIEW: Tensor("UINT8", (1, 1, 2, 2, 3), bytes(12)),
            LOCAL_VIEW: Tensor("UINT8", (1, 1, 2, 2, 3), bytes(12)),
        },
        "shape_mismatch",
    ),
    "different numbers of views": (
        GIQA_VIEWS,
        {
            GLOBAL_VIEW: Tensor("UINT8", (1, 1, 224, 224, 3), bytes(224 * 224 * 3)),
            LOCAL_VIEW: Tensor("UINT8", (1, 2, 448, 448, 3), bytes(2 * 448 * 448 * 3)),
        },
        "shape_mismatch",
    ),
    "unknown model": ("nobody", image_tensor(ZEROS), "engine_mismatch"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_get_their_code_and_harm_nobody(case: str, server: Server) -> None:
    model, inputs, code = WRONG[case]
    with pytest.raises(GiqaError) as caught:
        ask(server, model, inputs)
    assert caught.value.code == code, caught.value
    assert abs(server.known_answer()) < 10


def test_tokens_that_are_no_numbers_give_no_score(server: Server, bundle: Bundle) -> None:
    """Asked of the fusion model itself, as nobody can who comes through a gateway."""
    sizes = bundle.manifest.tensors
    cells = np.full((1, 1, sizes.tokens, sizes.dim), np.nan, np.float32)
    stages = np.zeros((1, 1, sizes.stages, sizes.tokens, sizes.dim), np.float32)
    for stage, local in ((stages, cells), (stages + np.inf, np.zeros_like(cells))):
        tokens = {
            GLOBAL_TOKENS: Tensor("FP32", stage.shape, stage.tobytes()),
            LOCAL_TOKENS: Tensor("FP32", local.shape, local.tobytes()),
        }
        with pytest.raises(ShapeMismatchError, match="no finite numbers"):
            ask(server, FUSION, tokens)
    assert abs(server.known_answer()) < 10


def test_unknown_version_is_told(server: Server) -> None:
    message = request(GIQA, image_tensor(jpeg()), [SCORE])
    message.model_version = "7"
    with pytest.raises(EngineMismatchError):
        server.call("ModelInfer", message, 10)


def test_limits_hold_on_the_server(server: Server) -> None:
    make, code = BAD["claims-huge.png"]
    with pytest.raises(GiqaError) as caught:
        ask(server, GIQA, image_tensor(make()))
    assert caught.value.code == code


def counts(server: Server) -> dict[str, int]:
    message = pb.ModelStatisticsRequest()
    found = server.call("ModelStatistics", message, 10).model_stats
    return {stats.name: stats.execution_count for stats in found}


def test_differing_sizes_are_batched(server: Server, url: str) -> None:
    files = [jpeg(200 + i, 300 - i, seed=i) for i in range(64)]
    before = counts(server)
    with TritonScorer(url, in_flight=32) as scorer:
        assert all(r.score is not None for r in scorer.score(files))
    after = counts(server)
    end = time.monotonic() + 20
    while after[GIQA] - before[GIQA] < 64 and time.monotonic() < end:
        time.sleep(0.1)  # Triton counts a request when it has answered it
        after = counts(server)
    assert after[GIQA] - before[GIQA] == 64
    for model in (PREPROCESS, *GRAPHS):
        assert after[model] - before[model] <= 40, model


def test_a_bad_image_costs_its_neighbours_nothing(url: str, local: LocalScorer) -> None:
    """16 clients at once, a quarter of the images undecodable: exactly those fail."""
    damaged = bytearray(png(300, 200))
    damaged[len(damaged) // 2 : len(damaged) // 2 + 200] = bytes(200)
    files = [bytes(damaged) if i % 4 == 1 else jpeg(200 + i, 200, seed=i) for i in range(64)]
    wanted = [r.score for r in local.score(files)]
    assert wanted.count(None) == 16
    # Sent unprobed: the server alone isolates.
    channel = Connection.of(url).channel()
    stub = service_stub(channel)
    messages = [request(GIQA, image_tensor(data), [SCORE]) for data in files]
    found: list[float | None] = []
    codes: set[str] = set()
    futures = [stub.ModelInfer.future(message, timeout=30) for message in messages]
    for future in futures:
        try:
            raw = future.result().raw_output_contents[0]
            found.append(float(np.frombuffer(raw, np.float32)[0]))
        except grpc.RpcError as e:
            codes.add(to_error(e.code().name, e.details()).code)
            found.append(None)
    channel.close()
    assert found == wanted
    assert codes == {"corrupt"}


def busy(model: str, server: Server) -> tuple[dict[str, Tensor], int]:
    """A heavy request of a composing model, and how many of them keep it busy for a while."""
    sizes = tensor_shapes(server.bundle.manifest.tensors)
    if model in PREPROCESSES:
        data = jpeg(2000, 1500)
        if model == PREPROCESS_BYTES:
            return {IMAGE: Tensor.of_texts([data] * 8)}, 8
        count = 1 if model == PREPROCESS_ISOLATED else 8
        # One at a time takes long where others work, too: all must be done within the timeout.
        return {IMAGE: Tensor("UINT8", (count, len(data)), data * count)}, 8 // count + 7
    kinds = {"UINT8": np.uint8, "FP32": np.float32}
    inputs = {}
    for name in inputs_of(model):
        kind, shape = sizes[name]
        array = np.zeros((8, *(max(n, 1) for n in shape)), kinds[kind])
        inputs[name] = Tensor.of(array)
    return inputs, 8


@pytest.mark.parametrize("model", PREPROCESSES)
def test_a_deadline_holds_where_requests_come_in(model: str, server: Server) -> None:
    """The server's own clock: a request that waits too long is given back."""
    inputs, count = busy(model, server)
    outputs = outputs_of(model, server.bundle.manifest.tensors)
    channel = server.connection.channel()
    stub = service_stub(channel)
    flood = [
        stub.ModelInfer.future(request(model, inputs, outputs), timeout=300) for _ in range(count)
    ]
    time.sleep(0.05)
    # Triton answers when the request's turn comes: the client's clock is the prompt one.
    with pytest.raises(DeadlineExceededError, match="timeout expired"):
        ask(server, model, inputs, outputs=outputs, timeout_s=0.05)
    for future in flood:
        future.result()  # nobody else was hurt
    channel.close()
    assert abs(server.known_answer()) < 10


def test_the_clients_deadline_holds(server: Server, url: str) -> None:
    inputs, _ = busy(GLOBAL_BRANCH, server)
    channel = server.connection.channel()
    stub = service_stub(channel)
    message = request(GLOBAL_BRANCH, inputs, [GLOBAL_TOKENS])
    with TritonScorer(url, deadline_s=1) as scorer:  # opening has the same deadline
        flood = [stub.ModelInfer.future(message, timeout=300) for _ in range(30)]
        started = time.monotonic()
        results = list(scorer.score([jpeg()] * 4))
        assert time.monotonic() - started < 4
    assert {r.error.code for r in results if r.error} == {"deadline_exceeded"}
    for future in flood:
        future.result()
    channel.close()


def test_retries_are_for_full_queues(server: Server, url: str, local: LocalScorer) -> None:
    """Far more than the queue holds, from clients that come again: nothing is lost."""
    data = jpeg(64, 64)
    (wanted,) = local.score([data])
    with TritonScorer(url, in_flight=100, retry=Retry(attempts=1)) as scorer:
        codes = {r.error.code if r.error else "" for r in scorer.score([data] * 200)}
    assert codes == {"", "overloaded"}
    with TritonScorer(url, in_flight=60, retry=Retry(attempts=30)) as scorer:
        assert {r.score for r in scorer.score([data] * 120)} == {wanted.score}


def test_large_images(url: str, local: LocalScorer) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((3000, 5000, 3), np.uint8)).save(file, "PNG")
    items = [file.getvalue(), jpeg(4000, 3000)]
    with TritonScorer(url) as scorer:
        assert [r.score for r in scorer.score(items)] == [r.score for r in local.score(items)]


def test_back_pressure(url: str) -> None:
    """Items are pulled as the work proceeds."""
    pulled = 0

    def source() -> object:
        nonlocal pulled
        for _ in range(1000):
            pulled += 1
            yield data

    data = jpeg(64, 64)
    with TritonScorer(url, in_flight=4) as scorer:
        rows = scorer.score(source())
        for done in range(1, 40):
            next(rows)
            assert pulled <= done + 2 * 4 + 1
        rows.close()
