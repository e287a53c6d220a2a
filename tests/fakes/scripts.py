"""What goes wrong on the fake server, what it saw and what it says: scripted by tests."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from PIL import Image

Status = grpc.StatusCode

TOKEN_HEADER = "triton-grpc-protocol-giqa-token"
UNDECODABLE = b"a test: DALI does not decode this"
"""Stands in a comment of files that the fake's decoder refuses and Pillow reads."""
DALI_ERROR = (
    "DALI Backend error: Error in MIXED operator `nvidia.dali.fn.decoders.image`,\n"
    "which was used in the pipeline definition with the following traceback:\n\n"
    '  File "pipeline.py", line 140, in define\n'
    "    pixels = fn.decoders.image(encoded, device=decoder)\n\n"
    "encountered:\n\n"
    "Error in thread 1: [/opt/dali/dali/operators/imgcodec/image_decoder.h:789] "
    "Failed to decode sample 3\nCurrent pipeline object is no longer valid."
)
STOPPING = (
    "[request id: <id_unknown>] Server is stopping, scheduler for model has stopped accepting "
    "new inference requests"
)
QUEUE_FULL = "[request id: <id_unknown>] Exceeds maximum queue size"


def score_of(data: bytes) -> float:
    """The fake's score of an encoded image, or of both views one after the other: 0..100."""
    return zlib.crc32(data) % 10_001 / 100


@dataclass
class Seen:
    """A request that came in.

    Attributes:
        rpc: `infer` (both kinds), or the name of another call.
        model: the model that was asked for.
        images: encoded images, or the views' bytes.
        timeout_us: parameter `timeout`; None if there was none.
        metadata: of the call.
        stream: whether it came on a stream.
        shared: whether its inputs lay in shared memory.
        remaining_s: gRPC's own deadline when it came; None if there was none.
    """

    rpc: str
    model: str = ""
    images: list[bytes] = field(default_factory=list)
    timeout_us: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False
    shared: bool = False
    remaining_s: float | None = None


@dataclass
class Fault:
    """What happens to some requests.

    Attributes:
        times: to how many; None: all.
        when: to which.
        rpc: `infer`, or the name of another call.
        delay_s: wait so long first.
        status: refuse with this.
        message: what it says.
        anonymous: on a stream, leave the id out of the error.
        never: do not answer at all.
        spoil: change the answer.
        end_stream: end the stream instead of answering; with `status`, with that.
        before: do this when such a request comes in.
    """

    times: int | None = None
    when: Callable[[Seen], bool] = lambda seen: True
    rpc: str = "infer"
    delay_s: float = 0.0
    status: Any = None
    message: str = "injected"
    anonymous: bool = False
    never: bool = False
    spoil: Callable[[Any], None] | None = None
    end_stream: bool = False
    before: Callable[[], None] | None = None


class RefusalError(Exception):
    """A request that fails: with its own error, or (`how`) otherwise.

    Args:
        status: the error's.
        message: the error's.
        how: on a stream: `error`, with the request's id; `anonymous`, without; `end`, the stream
            with it; `silent`, not at all.
    """

    def __init__(self, status: Any, message: str, how: str = "error") -> None:
        super().__init__(message)
        self.status, self.message, self.how = status, message, how


def decode(data: bytes) -> tuple[int, int] | None:
    """The fake's decoder: the picture's size; None if it cannot be decoded."""
    if UNDECODABLE in data:
        return None
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            return picture.size
    except Exception:  # Pillow's plugins raise whatever their codecs do
        return None
