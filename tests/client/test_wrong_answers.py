"""An answer that cannot be right is no score."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from giqa.bundle import Bundle
from giqa.contract import GIQA_BYTES
from tests.fakes.clients import assert_right, connect, items, of
from tests.fakes.kserve import FakeServer


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
