"""Triton's response cache answers wrongly where its key is blind; giqa keeps clear of that."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack

import numpy as np
import pytest

from giqa import LocalScorer, TritonScorer
from giqa.bundle import Bundle
from giqa.client import Retry
from giqa.contract import FUSION, GIQA, GIQA_MAP, GIQA_VIEWS, IMAGE, QUALITY_MAP, SCORE
from giqa.errors import ServerFailedError
from giqa.kserve import Tensor, answer, request
from giqa.serving import Server
from giqa.serving import _repository as repository
from giqa.serving._configs import from_text
from giqa.tensors import tensor_shapes
from tests.makers import jpeg
from tests.triton.conftest import options, serving
from tests.triton.test_serving import ask, counts, image_tensor


@pytest.fixture(scope="module")
def bundle(tiled: Bundle) -> Bundle:
    return tiled


def test_the_cache_answers_for_giqa(bundle: Bundle) -> None:
    data = jpeg(400, 300)
    with (
        LocalScorer(bundle) as local,
        serving(bundle, options(bundle, cache=True), cache_bytes=16 * 2**20) as server,
        TritonScorer(server.connection.url, bundle=bundle, in_flight=1) as scorer,
    ):
        (wanted,) = local.score([data])
        before = counts(server)[FUSION]
        found = list(scorer.score([data] * 5 + [b"\xff\xd8\xff"] + [data]))
        assert counts(server)[FUSION] - before == 1
        assert [r.score for r in found] == [wanted.score] * 5 + [None, wanted.score]
        maps = list(scorer.score([data] * 2, quality_map=True))
        assert all(np.array_equal(m.quality_map, maps[0].quality_map) for m in maps)
        assert maps[0].score == wanted.score


@pytest.fixture(scope="module")
def careless(bundle: Bundle) -> object:
    """A server whose cache is on where it must not be: two outputs, batches."""
    made = repository.ensemble_config

    def cached(name: str, *args: object) -> object:
        config = made(name, *args)
        if name in (GIQA_MAP, GIQA_VIEWS):
            config.response_cache.enable = True
        return config

    with ExitStack() as stack:
        repository.ensemble_config = cached
        try:
            server = stack.enter_context(serving(bundle, options(bundle), cache_bytes=16 * 2**20))
        finally:
            repository.ensemble_config = made
        yield server


def test_the_key_ignores_the_wanted_outputs(careless: Server, bundle: Bundle) -> None:
    data = jpeg(500, 300)
    ask(careless, GIQA_MAP, image_tensor(data), outputs=[SCORE])
    both = [SCORE, QUALITY_MAP]
    reply = ask(careless, GIQA_MAP, image_tensor(data), outputs=both)
    assert [o.name for o in reply.outputs] == [SCORE]  # the collision
    shapes = tensor_shapes(bundle.manifest.tensors)
    expected = {name: (shapes[name][0], (1, *shapes[name][1])) for name in both}
    with pytest.raises(ServerFailedError, match="instead of"):
        answer(reply, GIQA_MAP, expected, "here")
    # The client finds it, too: no row has half an answer.
    with TritonScorer(careless.connection.url, bundle=bundle, retry=Retry(attempts=1)) as scorer:
        (row,) = scorer.score([data], quality_map=True)
    assert row.error is not None
    assert row.error.code == "server_failed"


def test_the_key_ignores_shapes(careless: Server, bundle: Bundle) -> None:
    sizes = bundle.manifest.tensors
    rng = np.random.default_rng(0)

    def views(*count: int) -> dict[str, Tensor]:
        found = {}
        for name, side in (("GLOBAL_VIEW", sizes.global_side), ("LOCAL_VIEW", sizes.local_side)):
            array = np.zeros((*count, side, side, 3), np.uint8)
            array[:] = rng.integers(0, 255, (side, 1, 3), np.uint8)
            found[name] = Tensor.of(array)
            rng.bit_generator.state = state
        return found

    state = rng.bit_generator.state
    one, two = views(1, 2), views(2, 1)  # one picture of two views; two of one: equal bytes
    assert [t.data for t in one.values()] == [t.data for t in two.values()]
    first = ask(careless, GIQA_VIEWS, one)
    reply = ask(careless, GIQA_VIEWS, two)
    assert list(first.outputs[0].shape) == [1, 1]
    assert list(reply.outputs[0].shape) == [1, 1]  # the collision: two pictures were asked
    with pytest.raises(ServerFailedError):
        answer(reply, GIQA_VIEWS, {SCORE: ("FP32", (2, 1))}, "here")


def test_giqa_cannot_collide(careless: Server, bundle: Bundle) -> None:
    """One output, batches of one: there is nothing for the key to ignore."""
    cached = dataclasses.replace(options(bundle), cache=True)
    files = repository.render_repository(bundle, cached)
    on = [n for n, text in files.items() if b"response_cache" in text]
    assert on == [f"{GIQA}/config.pbtxt"]
    config = from_text(files[on[0]].decode())
    assert (config.max_batch_size, [o.name for o in config.output]) == (1, [SCORE])
    message = request(GIQA, {IMAGE: Tensor("UINT8", (2, 5), bytes(10))}, [SCORE])
    with pytest.raises(Exception, match="batch-size"):
        careless.call("ModelInfer", message, 10)
