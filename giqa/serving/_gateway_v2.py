"""KServe's v2 over HTTP: a JSON header, then the tensors' bytes; or all of it as JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from giqa.errors import ServerFailedError, ShapeMismatchError
from giqa.kserve import messages

_MOST_JSON = 4 * 2**20
"""Most bytes that are read as JSON: a number takes many times its text while it is read."""
_LENGTH = re.compile(r"\d{1,9}")
LENGTH_HEADER = "Inference-Header-Content-Length"
_KINDS = {"FP32": "<f4", "FP16": "<f2", "UINT8": "u1"}


def to_message(model: str, body: bytes, header_length: str | None) -> tuple[Any, bool]:
    """Read a request.

    Args:
        model: the ensemble.
        body: of the request.
        header_length: `LENGTH_HEADER`; None: all of the body is JSON.

    Returns:
        The `ModelInferRequest`, and whether outputs are wanted as bytes.

    Raises:
        ShapeMismatchError: it is none.
    """
    length = len(body)
    if header_length is not None:
        if not _LENGTH.fullmatch(header_length) or int(header_length) > len(body):
            raise ShapeMismatchError("is not the length of a header", item=LENGTH_HEADER)
        length = int(header_length)
    if length > _MOST_JSON:
        raise ShapeMismatchError(
            f"{length} bytes of JSON", remedy=f"send tensors as bytes, see {LENGTH_HEADER}"
        )
    try:
        return _read(model, json.loads(body[:length]), memoryview(body)[length:])
    except ShapeMismatchError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as e:
        raise ShapeMismatchError(f"is no inference request: {type(e).__name__}") from None


def _read(model: str, header: Any, rest: memoryview) -> tuple[Any, bool]:
    message = messages().ModelInferRequest(model_name=model, id=str(header.get("id", "")))
    wanted = (header.get("parameters") or {}).get("binary_data_output", False)
    at = 0
    for tensor in header["inputs"]:
        shape, datatype = [int(n) for n in tensor["shape"]], str(tensor["datatype"])
        message.inputs.add(name=str(tensor["name"]), datatype=datatype, shape=shape)
        parameters = tensor.get("parameters") or {}
        if set(parameters) - {"binary_data_size"}:
            raise ShapeMismatchError(f"unknown parameters of {tensor['name']!s:.64}")
        if "binary_data_size" in parameters:
            size = int(parameters["binary_data_size"])
            if not 0 <= size <= len(rest) - at:
                raise ShapeMismatchError(f"{size} bytes of {tensor['name']!s:.64} are not there")
            raw, at = bytes(rest[at : at + size]), at + size
        else:
            raw = bytes(_numbers(tensor["data"]))
        message.raw_input_contents.append(raw)
    if at != len(rest):
        raise ShapeMismatchError(f"{len(rest) - at} bytes too many")
    for tensor in header.get("outputs") or ():
        message.outputs.add(name=str(tensor["name"]))
        wanted = wanted or (tensor.get("parameters") or {}).get("binary_data", False)
    return message, bool(wanted)


def _numbers(data: Any) -> list[int]:
    """A list of numbers: `bytes` would take a number alone for a length."""
    if not isinstance(data, list):
        raise TypeError
    return data


def to_body(reply: bytes, *, binary: bool) -> tuple[bytes, dict[str, str]]:
    """Write an answer.

    Args:
        reply: a `ModelInferResponse`.
        binary: outputs as bytes after the header.

    Returns:
        The body and its headers.

    Raises:
        ServerFailedError: it is none.
    """
    found = messages().ModelInferResponse.FromString(reply)
    header: dict[str, Any] = {"model_name": found.model_name, "model_version": found.model_version}
    if found.id:
        header["id"] = found.id
    outputs, rest = [], b""
    for tensor, raw in zip(found.outputs, found.raw_output_contents, strict=True):
        output = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if binary:
            output["parameters"] = {"binary_data_size": len(raw)}
            rest += raw
        else:
            kind = np.dtype(_KINDS[tensor.datatype])
            if len(raw) % kind.itemsize:
                raise ServerFailedError(f"{len(raw)} bytes of {tensor.datatype}")
            output["data"] = np.frombuffer(raw, kind).tolist()
        outputs.append(output)
    text = json.dumps(header | {"outputs": outputs}).encode()
    if not binary:
        return text, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(len(text))}
    return text + rest, headers
