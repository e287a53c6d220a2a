"""What a gateway passes on of a request, before Triton sees a byte of it."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from PIL import Image

from giqa.contract import GIQA_BYTES, GIQA_VIEWS, IMAGE
from giqa.errors import (
    EngineMismatchError,
    ServerRefusedError,
    ShapeMismatchError,
    TooManyBytesError,
)
from giqa.kserve import messages
from giqa.manifest import Manifest
from giqa.tensors import (
    Device,
    ensembles,
    inputs_of,
    max_batch_of,
    most_views,
    outputs_of,
    shape_with,
)
from giqa.types import Limits

_SLACK = 64 * 1024
"""Names, shapes and parameters of a request."""
_MOST_FIELDS = 64
_MOST_BESIDE = 2**20
"""Bytes of a request beside raw contents: what is read of them takes a hundred times as much."""
_REGION = "shared_memory"
_DATATYPES = {"UINT8": 1, "FP16": 2, "FP32": 4}


def read_message(raw: bytes) -> Any:
    """Read a request whose fields are few, and small but for raw contents.

    Args:
        raw: a `ModelInferRequest`.

    Returns:
        The message.

    Raises:
        ShapeMismatchError: it is none, or none that a client of ours could need.
    """
    kind = messages().ModelInferRequest
    try:
        fields = [*islice(_fields(raw), _MOST_FIELDS + 1)]
        beside = sum(size for n, size in fields if n != kind.RAW_INPUT_CONTENTS_FIELD_NUMBER)
        if len(fields) > _MOST_FIELDS or beside > _MOST_BESIDE:
            raise ShapeMismatchError(
                f"more than {_MOST_FIELDS} fields, or {_MOST_BESIDE} bytes beside raw contents",
                remedy="send tensors as raw_input_contents",
            )
        return kind.FromString(raw)
    except ShapeMismatchError:
        raise
    except Exception as e:
        raise ShapeMismatchError("not a ModelInferRequest") from e


def _fields(raw: bytes) -> Iterator[tuple[int, int]]:
    """Number and size of a message's own fields; what is inside them is not looked at."""
    at = 0

    def varint() -> int:
        nonlocal at
        found = 0
        for shift in range(0, 70, 7):
            byte = raw[at]
            at += 1
            found |= (byte & 127) << shift
            if byte < 128:
                return found
        raise ValueError

    while at < len(raw):
        tag = varint()
        size = {0: 0, 1: 8, 2: -1, 5: 4}[tag & 7]  # others are of groups, which nobody uses
        if tag & 7 == 0:
            varint()
        size = varint() if size < 0 else size
        if size > len(raw) - at:
            raise ValueError
        at += size
        yield tag >> 3, size


class Checks:
    """Knows what requests of a bundle's ensembles look like.

    Args:
        manifest: the bundle's.
        device: the server's.
        max_batch: most images of a request.
        limits: for the bytes of an image.
        shared_memory: whether tensors may lie in shared memory.
    """

    def __init__(
        self,
        manifest: Manifest,
        device: Device,
        max_batch: int,
        limits: Limits,
        *,
        shared_memory: bool,
    ) -> None:
        self._manifest, self._max_batch, self._limits = manifest, max_batch, limits
        self._shared_memory = shared_memory
        self.ensembles = ensembles(device)

    @property
    def max_message(self) -> int:
        """Most bytes that a request may have: a file, or a full batch of views."""
        sizes, tiles = self._manifest.tensors, self._manifest.tiles
        views = sum(
            math.prod(shape_with(name, sizes, most_views(name, 0), tiles))
            for name in inputs_of(GIQA_VIEWS)
        )
        return _SLACK + max(self._limits.max_bytes, views * self._max_batch)

    def check(self, message: Any) -> None:
        """Refuse what no server of ours could answer.

        Args:
            message: a `ModelInferRequest`.

        Raises:
            ServerRefusedError: of a model inside an ensemble, or of shared memory that is off.
            EngineMismatchError: of a model that is not there.
            ShapeMismatchError: of tensors that the ensemble does not have.
            TooManyBytesError: of a file that is too large.
        """
        name = message.model_name
        if name not in self.ensembles or message.model_version not in ("", "1"):
            raise EngineMismatchError(
                f"no such ensemble; there are {', '.join(self.ensembles)}", item=name[:64]
            )
        wanted = inputs_of(name)
        if sorted(tensor.name for tensor in message.inputs) != sorted(wanted):
            raise ShapeMismatchError(f"the inputs of {name} are {', '.join(wanted)}")
        known = outputs_of(name, self._manifest.tensors)
        asked = [tensor.name for tensor in message.outputs]
        if len(set(asked)) != len(asked) or not set(asked) <= set(known):
            raise ShapeMismatchError(f"the outputs of {name} are {', '.join(known)}, each once")
        regions = self._regions(message)
        if len(message.raw_input_contents) not in (0, len(wanted) - regions):
            raise ShapeMismatchError("as many raw contents as inputs that are not elsewhere")
        for tensor in message.inputs:
            self._check_shape(name, tensor)
        if not regions and message.raw_input_contents:
            for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True):
                self._check_bytes(name, tensor, len(raw))

    def _regions(self, message: Any) -> int:
        """How many inputs lie in shared memory."""
        inputs = sum(_REGION in "".join(t.parameters) for t in message.inputs)
        outputs = sum(_REGION in "".join(t.parameters) for t in message.outputs)
        if (inputs or outputs) and not self._shared_memory:
            raise ServerRefusedError(
                "shared memory is off", remedy="giqa serve --allow-client-shared-memory"
            )
        return inputs

    def _check_shape(self, ensemble: str, tensor: Any) -> None:
        shape = tuple(tensor.shape)
        sizes, tiles = self._manifest.tensors, self._manifest.tiles
        rest: tuple[int, ...]
        if tensor.name == IMAGE:
            text = ensemble == GIQA_BYTES
            datatype, rest = ("BYTES", (1,)) if text else ("UINT8", ())
            length, views = 2, 1
        else:
            datatype, rest = "UINT8", shape_with(tensor.name, sizes, 1, 0)[1:]
            length, views = 2 + len(rest), most_views(tensor.name, tiles)
        fits = (
            tensor.datatype == datatype
            and len(shape) == length
            and 1 <= shape[0] <= max_batch_of(ensemble, self._max_batch)
            and shape[length - len(rest) :] == rest
            and shape[1] >= 1
            and (tensor.name == IMAGE or shape[1] <= views)
        )
        if not fits:
            given = f"{tensor.datatype[:16]} {shape[:8]}"
            raise ShapeMismatchError(f"{given} is no {datatype} that fits", item=tensor.name)

    def _check_bytes(self, ensemble: str, tensor: Any, size: int) -> None:
        shape = tuple(tensor.shape)
        if tensor.datatype in _DATATYPES and size != math.prod(shape):
            raise ShapeMismatchError(f"{size} bytes for {shape}", item=tensor.name)
        if tensor.name == IMAGE and ensemble != GIQA_BYTES and size > self._limits.max_bytes:
            raise TooManyBytesError(f"{size} bytes, the limit is {self._limits.max_bytes}")


def decoding_cost(message: Any) -> int:
    """Estimate the bytes that a request's pictures have when they are decoded.

    Args:
        message: a `ModelInferRequest` of an ensemble that takes pictures.

    Returns:
        Pixels times channels times bytes of a channel; what no header tells costs nothing.
    """
    raws = message.raw_input_contents
    if message.model_name == GIQA_VIEWS:
        return 0
    if raws:
        return sum(map(_cost, _texts(raws[0]) if message.model_name == GIQA_BYTES else raws[:1]))
    typed = message.inputs[0].contents
    if max(typed.uint_contents, default=0) > 255:
        raise ShapeMismatchError("values beyond 255", item=IMAGE)
    return sum(map(_cost, [bytes(typed.uint_contents), *typed.bytes_contents]))


def _texts(data: bytes) -> Iterator[bytes]:
    """The elements of a BYTES tensor."""
    at = 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        yield data[at + 4 : end]
        at = end


def _cost(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            wide = 4 if picture.mode in ("I", "F") else 2 if ";16" in picture.mode else 1
            return width * height * max(3, len(picture.getbands()) * wide)
    except Exception:  # Pillow's plugins raise whatever their code does
        return 0


def parameters_of(values: Mapping[str, int]) -> Any:
    """A `ModelInferRequest` with parameters alone: appended to another, it adds them."""
    message = messages().ModelInferRequest()
    for key, value in values.items():
        message.parameters[key].int64_param = value
    return message
