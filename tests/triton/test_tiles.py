"""Tiles on a real server: the scores of in process, whatever the way; and repositories for them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from giqa import AsyncTritonScorer, LocalScorer, TritonScorer
from giqa.bundle import Bundle
from giqa.client._flow import Flow
from giqa.contract import (
    FUSION,
    GIQA,
    GIQA_BYTES,
    GIQA_ISOLATED,
    GIQA_VIEWS,
    GLOBAL_BRANCH,
    GLOBAL_TOKENS,
    GLOBAL_VIEW,
    GRAPHS,
    IMAGE,
    LOCAL_BRANCH,
    LOCAL_TOKENS,
    LOCAL_VIEW,
    MAX_VIEWS,
    PREPROCESS,
    PREPROCESS_BYTES,
    PREPROCESS_ISOLATED,
    PREPROCESS_PRECISE,
    QUALITY_MAP,
    SCORE,
    TILES,
)
from giqa.decode import Decoder
from giqa.errors import GiqaError, ShapeMismatchError
from giqa.kserve import Tensor
from giqa.serving import Server, memory_of, render_repository
from giqa.tensors import outputs_of
from giqa.types import Item, Limits
from giqa.video import score_video
from tests.clips import pan, write
from tests.makers import jpeg, oriented, png, rgba
from tests.tiled import DIM, GLOBAL, LOCAL, PIXELS, STAGES, without_tiles
from tests.triton.conftest import ADMIN, options, serving
from tests.triton.test_repository import checked_in, configs, image_bytes
from tests.triton.test_serving import WAYS, ask, image_tensor, row


@pytest.fixture(scope="module")
def bundle(tiled: Bundle) -> Bundle:
    return tiled


@pytest.fixture(scope="module")
def server(bundle: Bundle) -> Iterator[Server]:
    asked = options(bundle, precision="f32")
    with serving(bundle, asked, client_shared_memory=True, admin_key=ADMIN) as started:
        yield started


@pytest.fixture(scope="module")
def local(bundle: Bundle) -> Iterator[LocalScorer]:
    with LocalScorer(bundle, precision="f32") as scorer:
        yield scorer


@pytest.fixture(scope="module")
def images() -> list[Item]:
    sizes = [(300, 200), (90, 70), (400, 300), (1000, 40), (200, 100), (199, 100), (64, 64)]
    files = [jpeg(*size, seed=i) for i, size in enumerate(sizes)]
    files += [png(333, 222), rgba(), oriented(6, "JPEG"), b"no image", jpeg(250, 250, 8)]
    return [Item(str(i), data=data) for i, data in enumerate(files)]


def scorer(server: Server, bundle: Bundle, **way: object) -> TritonScorer:
    return TritonScorer(server.connection.url, bundle=bundle, **way)


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_those_of_in_process(
    way: str, server: Server, bundle: Bundle, local: LocalScorer, images: list[Item]
) -> None:
    for profile in ("fast", "precise"):
        wanted = list(local.score(images, profile=profile))
        with scorer(server, bundle, **WAYS[way]) as client:
            found = list(client.score(images, profile=profile))
        assert [row(r) for r in found] == [row(r) for r in wanted]


def test_maps_and_videos_are_those_of_in_process(
    server: Server, bundle: Bundle, local: LocalScorer, images: list[Item], tmp_path: Path
) -> None:
    clip = write(tmp_path / "clip.mp4", pan(6, 320, 240))
    wanted = list(local.score(images, quality_map=True))
    with scorer(server, bundle) as client:
        for a, b in zip(client.score(images, quality_map=True), wanted, strict=True):
            assert a.score == b.score
            assert (a.quality_map is None) == (b.quality_map is None)
            assert a.quality_map is None or np.array_equal(a.quality_map, b.quality_map)
        assert score_video(clip, client).frames == score_video(clip, local).frames


def test_a_request_holds_images_with_tiles_or_without(bundle: Bundle) -> None:
    """The server refuses a request of both, so that clients send two."""
    sizes = [(300, 200), (90, 70), (400, 300), (64, 64), (250, 250)]
    flow = Flow(bundle, Limits(), "server")
    flow.device = "cpu"
    files = [jpeg(*size) for size in sizes]
    steps = flow.steps([flow.prepare(Item.of(data), "fast", False) for data in files])
    calls = [next(steps)]
    calls.append(steps.send({SCORE: np.array([[1], [3], [5]], np.float32)}))
    with pytest.raises(StopIteration) as done:
        steps.send({SCORE: np.array([[2], [4]], np.float32)})
    assert [call.model for call in calls] == [GIQA_BYTES] * 2
    expected = [[files[i] for i in (0, 2, 4)], [files[i] for i in (1, 3)]]
    assert [c.inputs[IMAGE].data for c in calls] == [Tensor.of_texts(e).data for e in expected]
    assert [result.score for result in done.value.value] == [1, 2, 3, 4, 5]


def test_views_are_sent_with_their_tiles(
    server: Server, bundle: Bundle, local: LocalScorer, images: list[Item]
) -> None:
    decoded = Decoder(bundle.manifest)(images, "fast")
    views = [one.views for one in decoded if one.views is not None]
    assert {one.counts for one in views} == {(1, 1), (1, 5)}
    wanted = [s.score for s in local.score_views(views)]
    one = next(one for one in views if one.counts == (1, 5))
    with scorer(server, bundle) as client:
        assert [s.score for s in client.score_views(views)] == wanted
        for count in (2, 4, 6):
            wrong = dataclasses.replace(
                one, local_view=np.resize(one.local_view, (count, LOCAL, LOCAL, 3))
            )
            with pytest.raises(ShapeMismatchError):
                list(client.score_views([wrong]))

    async def run() -> list[float]:
        url = server.connection.url
        async with AsyncTritonScorer(url, bundle=bundle, transport="stream") as client:
            return [s.score async for s in client.score_views(views)]

    assert asyncio.run(run()) == wanted


def test_isolated_gives_the_same_score(server: Server) -> None:
    data = image_tensor(jpeg(333, 222))
    raw = [ask(server, m, data).raw_output_contents for m in (GIQA, GIQA_ISOLATED)]
    assert raw[0] == raw[1]


def views(count: int, local: int) -> dict[str, Tensor]:
    shapes = (1, count, GLOBAL, GLOBAL, 3), (1, local, LOCAL, LOCAL, 3)
    return {
        name: Tensor("UINT8", shape, bytes(int(np.prod(shape))))
        for name, shape in zip((GLOBAL_VIEW, LOCAL_VIEW), shapes, strict=True)
    }


def tokens(count: int, local: int) -> dict[str, Tensor]:
    shapes = (1, count, STAGES, 196, DIM), (1, local, 196, DIM)
    return {
        name: Tensor("FP32", shape, bytes(4 * int(np.prod(shape))))
        for name, shape in zip((GLOBAL_TOKENS, LOCAL_TOKENS), shapes, strict=True)
    }


WRONG = {
    "too few tiles": (GIQA_VIEWS, views(1, 4)),
    "too many tiles": (GIQA_VIEWS, views(1, 6)),
    "tiles of nothing": (GIQA_VIEWS, views(5, 1)),
    "too many views": (GIQA_VIEWS, views(MAX_VIEWS + 1, MAX_VIEWS + 1)),
    "too many local views": (LOCAL_BRANCH, {LOCAL_VIEW: views(1, 14)[LOCAL_VIEW]}),
    "too many global views": (GLOBAL_BRANCH, {GLOBAL_VIEW: views(10, 1)[GLOBAL_VIEW]}),
    "tokens that do not fit": (FUSION, tokens(2, 5)),
    "a batch of both": (
        PREPROCESS_BYTES,
        {"IMAGE": Tensor.of_texts([jpeg(300, 200), jpeg(90, 70)])},
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_get_their_code_and_harm_nobody(
    case: str, server: Server, bundle: Bundle
) -> None:
    model, inputs = WRONG[case]
    with pytest.raises(GiqaError) as caught:
        ask(server, model, inputs, outputs=outputs_of(model, bundle.manifest.tensors))
    assert caught.value.code == "shape_mismatch", caught.value
    assert abs(server.known_answer()) < 0.01


def test_as_many_views_and_tiles_as_there_may_be(server: Server) -> None:
    found = ask(server, GIQA_VIEWS, views(9, 13), outputs=[SCORE, QUALITY_MAP])
    shapes = {entry.name: tuple(entry.shape) for entry in found.outputs}
    assert shapes == {SCORE: (1, 1), QUALITY_MAP: (1, 9, 14, 14)}
    ask(server, FUSION, tokens(2, 6), outputs=[SCORE, QUALITY_MAP])


def test_a_cpu_warms_up_with_tiles_and_without(bundle: Bundle) -> None:
    asked = options(bundle, precision="f32")
    files, found = render_repository(bundle, asked), configs(bundle, asked)
    for name in (PREPROCESS, PREPROCESS_ISOLATED):
        sample = files[f"{name}/warmup/tiles.jpg"]
        (decoded,) = Decoder(bundle.manifest)([Item.of(sample)], "fast")
        assert decoded.views is not None
        assert decoded.views.counts == (1, 1 + TILES)
        samples = {e.inputs["IMAGE"].input_data_file for e in found[name].model_warmup}
        assert samples == {"tiles.jpg", bundle.self_test_image.name}
    assert f"{PREPROCESS_PRECISE}/warmup/tiles.jpg" not in files
    warmed = [
        (e.batch_size, *(e.inputs[n].dims[0] for n in (GLOBAL_TOKENS, LOCAL_TOKENS)))
        for e in found[FUSION].model_warmup
    ]
    assert warmed == [(1, 1, 1), (8, 1, 1), (1, 1, 5), (8, 1, 5)]
    limits = dataclasses.replace(asked.limits, max_pixels=PIXELS // 2)
    small = render_repository(bundle, dataclasses.replace(asked, limits=limits))
    assert not [name for name in small if name.endswith("tiles.jpg")]


def test_a_gpu_finds_tiles_in_the_graph(bundle: Bundle) -> None:
    files = render_repository(bundle, checked_in("gpu"))
    plain = render_repository(without_tiles(bundle), checked_in("gpu"))
    assert not [name for name in files if name.endswith("tiles.jpg")]
    for name in (PREPROCESS, PREPROCESS_ISOLATED):
        with_tiles, without = (f[f"{name}/1/model.dali"] for f in (files, plain))
        assert with_tiles.count(b"Resize") > without.count(b"Resize")
    peeked = files[f"{PREPROCESS}/1/model.dali"]
    assert b"PeekImageShape" in peeked
    assert b"PeekImageShape" not in plain[f"{PREPROCESS}/1/model.dali"]


def test_memory_counts_the_tiles(bundle: Bundle) -> None:
    asked = dataclasses.replace(checked_in("gpu"), precision="f32")
    memory, found = memory_of(bundle.manifest, asked), configs(bundle, asked)
    for name, views, tiles in (
        ("giqa", 1, TILES),
        ("giqa_map", 1, TILES),
        ("giqa_precise", MAX_VIEWS, 0),
        ("giqa_isolated", 1, TILES),
    ):
        limit = found[name].ensemble_scheduling.max_inflight_requests
        assert memory.in_flight[name] == limit * image_bytes(bundle, views, tiles)
    # Views come from the host: tokens alone.
    tokens = 4 * 196 * DIM * (STAGES * MAX_VIEWS + MAX_VIEWS + TILES)
    requests, rest = divmod(memory.in_flight["giqa_views"], tokens)
    assert requests > 0
    assert rest == 0
    images = {
        name: config.max_batch_size * config.instance_group[0].count
        for name, config in found.items()
        if config.instance_group
    }
    assert memory.bindings[LOCAL_BRANCH] == images[LOCAL_BRANCH] * (MAX_VIEWS + TILES) * (
        LOCAL * LOCAL * 3 + 4 * 196 * DIM
    )
    assert memory.bindings[GLOBAL_BRANCH] == images[GLOBAL_BRANCH] * MAX_VIEWS * (
        GLOBAL * GLOBAL * 3 + 4 * STAGES * 196 * DIM
    )
    one = GLOBAL**2 * 3 + (1 + TILES) * LOCAL**2 * 3
    assert memory.bindings[PREPROCESS_ISOLATED] == images[PREPROCESS_ISOLATED] * one


def test_cuda_graphs_are_captured_with_tiles_and_without(bundle: Bundle) -> None:
    found = configs(bundle, dataclasses.replace(checked_in("gpu"), cuda_graphs=True))
    for name in GRAPHS:
        counts = {
            tuple(spec.input[tensor.name].dim[0] for tensor in found[name].input)
            for spec in found[name].optimization.cuda.graph_spec
        }
        expected = {(1,)} if name == GLOBAL_BRANCH else {(1,), (5,)}
        assert counts == ({(1, 1), (1, 5)} if name == FUSION else expected)
