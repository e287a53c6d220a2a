"""Requests and answers on the wire (KServe v2 over gRPC), and what errors mean.

tritonclient's messages are used directly: its own client hides the request's id in errors of a
stream, and the deadline that is left when a request is sent again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from giqa.errors import (
    CorruptError,
    DeadlineExceededError,
    EngineMismatchError,
    GiqaError,
    OverloadedError,
    ServerFailedError,
    ServerRefusedError,
    ServerUnavailableError,
    ShapeMismatchError,
    TooManyPixelsError,
    UnsupportedFormatError,
    all_errors,
)
from giqa.extras import importing

_DTYPES: dict[str, Any] = {"UINT8": np.uint8, "FP16": np.float16, "FP32": np.float32}


_CODED = re.compile(r"\[([a-z_]+)\] (.*)", re.DOTALL)
# Of DALI's and nvImageCodec's messages, most specific first. The backend gives them to every
# request of a batch.
_DALI = (
    (re.compile(r"[Uu]nrecognized image format|[Uu]nsupported (image )?format"), "format"),
    (re.compile(r"too (large|big)|exceeds? (the )?(max|limit)", re.I), "pixels"),
    (re.compile(r"nvjpeg|nvimgcodec|nvimagecodec|decoders?[._]+image|failed to decode", re.I), ""),
    (re.compile(r"libjpeg|libpng|libtiff|\bDALI\b.*(decod|image)", re.I | re.DOTALL), ""),
)
_OUT_OF_MEMORY = re.compile(r"out of memory|cudaErrorMemoryAllocation|bad_alloc", re.I)


@dataclass(frozen=True)
class Place:
    """A tensor's bytes in a registered shared-memory region."""

    region: str
    offset: int
    size: int


@dataclass(frozen=True)
class Tensor:
    """An input on the wire.

    Attributes:
        datatype: KServe's name: `UINT8`, `BYTES`, ...
        shape: with the batch.
        data: its bytes.
    """

    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> Tensor:
        """An array as it is."""
        name = next(n for n, kind in _DTYPES.items() if array.dtype == kind)
        return cls(name, array.shape, np.ascontiguousarray(array).tobytes())

    @classmethod
    def of_texts(cls, texts: Sequence[bytes]) -> Tensor:
        """Byte strings as BYTES (B, 1): each after its length, 4 bytes little-endian."""
        data = b"".join(len(t).to_bytes(4, "little") + t for t in texts)
        return cls("BYTES", (len(texts), 1), data)


def messages() -> Any:
    """Tritonclient's protobuf module.

    Raises:
        MissingExtraError: it is not installed.
    """
    with importing("tritonclient", "client"):
        from tritonclient.grpc import service_pb2
    return service_pb2


def request(
    model: str,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    *,
    request_id: str = "",
    timeout_s: float | None = None,
    places: Mapping[str, Place] | None = None,
) -> Any:
    """Build a `ModelInferRequest`.

    Args:
        model: name of the ensemble or model.
        inputs: tensors by name.
        outputs: names of the wanted outputs.
        request_id: comes back in the answer.
        timeout_s: longest wait for preprocessing in seconds.
        places: where inputs lie in shared memory, instead of in the message.
    """
    message = messages().ModelInferRequest(model_name=model, id=request_id)
    for name, tensor in inputs.items():
        entry = message.inputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        if places is not None and name in places:
            place = places[name]
            entry.parameters["shared_memory_region"].string_param = place.region
            entry.parameters["shared_memory_byte_size"].int64_param = place.size
            entry.parameters["shared_memory_offset"].int64_param = place.offset
        else:
            message.raw_input_contents.append(bytes(tensor.data))
    for name in outputs:
        message.outputs.add(name=name)
    if timeout_s is not None:
        message.parameters["timeout"].int64_param = max(1, int(timeout_s * 1e6))
    return message


def answer(
    response: Any, model: str, expected: Mapping[str, tuple[str, tuple[int, ...]]], server: str
) -> dict[str, npt.NDArray[Any]]:
    """Read a `ModelInferResponse`, checking all that the contract says of it.

    Args:
        response: the message.
        model: the model that was asked.
        expected: datatype and shape (batch included; -1: any) by output name.
        server: its address, for errors.

    Returns:
        Arrays by name.

    Raises:
        ServerFailedError: another model answered, an output is missing, unasked for, of another
            type or shape, or has another number of bytes than its shape says.
    """

    def wrong(what: str) -> ServerFailedError:
        return ServerFailedError(f"answer of {model}: {what}", item=server)

    if response.model_name != model:
        raise wrong(f"comes from {response.model_name!r}")
    names = [entry.name for entry in response.outputs]
    if sorted(names) != sorted(expected):
        raise wrong(f"has {names} instead of {sorted(expected)}")
    if len(response.raw_output_contents) != len(names):
        raise wrong(f"has {len(response.raw_output_contents)} contents for {len(names)} outputs")
    found = {}
    for entry, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        datatype, shape = expected[entry.name]
        given = tuple(entry.shape)
        fits = len(given) == len(shape) and all(
            n == m or (m == -1 and n > 0) for n, m in zip(given, shape, strict=True)
        )
        if entry.datatype != datatype or not fits:
            raise wrong(f"{entry.name} is {entry.datatype} {given}, not {datatype} {shape}")
        kind = np.dtype(_DTYPES[datatype])
        if len(raw) != kind.itemsize * int(np.prod(given)):
            raise wrong(f"{entry.name} {given} has {len(raw)} bytes")
        found[entry.name] = np.frombuffer(raw, kind).reshape(given)
    return found


def to_error(status: str, message: str, item: str = "") -> GiqaError:
    """What a failed request means.

    Args:
        status: name of the gRPC status, such as `UNAVAILABLE`; empty on a stream.
        message: its details.
        item: what the error shall concern.

    Returns:
        The coded error that a server of ours put into the message, else the closest code.
    """
    coded = _CODED.search(message)
    if coded and (kind := all_errors().get(coded[1])) is not None:
        return kind(coded[2], item=item)
    if status == "DEADLINE_EXCEEDED" or "timeout expired" in message:
        return DeadlineExceededError(message or "no answer in time", item=item)
    if status == "RESOURCE_EXHAUSTED" or "Exceeds maximum queue size" in message:
        return OverloadedError(message, item=item)
    if "protocol is restricted" in message or status in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return ServerRefusedError(message, item=item)
    leaving = "Server is stopping" in message or "no available versions" in message
    if is_dead_stub(message) or leaving:
        return ServerUnavailableError(message, item=item)
    if status in ("UNAVAILABLE", "CANCELLED"):
        remedy = None
        if re.search(r"ssl|tls|handshake|wrong_version|certificate", message, re.I):
            remedy = "check certificates, and whether it is grpc:// or grpcs://"
        return ServerUnavailableError(message, item=item, remedy=remedy)
    if _OUT_OF_MEMORY.search(message):
        return OverloadedError(message, item=item)
    if (dali := dali_error(message, item)) is not None:
        return dali
    if status == "NOT_FOUND" or re.search(r"unknown (model|version)|not found", message):
        return EngineMismatchError(message, item=item, remedy="serve it with `giqa serve`")
    if status == "INVALID_ARGUMENT":
        return ShapeMismatchError(message, item=item)
    return ServerFailedError(message or status, item=item)


def dali_error(message: str, item: str = "") -> GiqaError | None:
    """The code of a decoding error in DALI's words; None if it is none.

    The DALI backend gives one image's error to the whole batch: it says nothing yet about the
    image that was sent.
    """
    for pattern, kind in _DALI:
        if pattern.search(message):
            if kind == "format":
                return UnsupportedFormatError("is not of a known image format", item=item)
            if kind == "pixels":
                return TooManyPixelsError("the decoder refuses its size", item=item)
            return CorruptError("cannot be decoded", item=item)
    return None


def is_dead_stub(message: str) -> bool:
    """Whether a message says that the process of a Python model is gone."""
    return "not healthy" in message or "Stub process" in message or "stub process" in message
