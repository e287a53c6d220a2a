"""The composing models of the CPU repository, in Triton's Python backend.

`model.py` of each model names one of these classes; Triton's stub calls them. What varies comes
from the model's parameters, see `RepositoryOptions`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from giqa.bundle import Bundle, load_bundle
from giqa.contract import (
    FUSION,
    GLOBAL_VIEW,
    IMAGE,
    LOCAL_VIEW,
    PREPROCESS_BYTES,
    PREPROCESS_PRECISE,
    SCORE,
    Profile,
)
from giqa.decode import Decoded, Decoder
from giqa.errors import (
    BundleInvalidError,
    EngineMismatchError,
    GiqaError,
    ShapeMismatchError,
)
from giqa.openvino import CompiledGraph, choose_precision, cpu_count
from giqa.tensors import counts_fit, most_views
from giqa.types import Item, Limits

FAILURES = "giqa_failures_total"
FAILURES_HELP = "Requests that a model answered with an error, by its code"


class _Model(ABC):
    """What both kinds share."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load what the model needs; an error here fails its loading."""
        import triton_python_backend_utils as pb_utils

        if int(np.__version__.split(".")[0]) >= 2:
            raise EngineMismatchError(
                f"numpy {np.__version__}: Triton's Python backend is silently wrong with 2",
                remedy="pip install 'numpy<2'",
            )
        self._pb = pb_utils
        self._config = json.loads(args["model_config"])
        self._name: str = self._config["name"]
        self._parameters = {
            key: value["string_value"] for key, value in self._config["parameters"].items()
        }
        bundle = load_bundle(self._parameters["bundle"])
        if bundle.digest != self._parameters["bundle_digest"]:
            raise BundleInvalidError(
                f"the repository was rendered for {self._parameters['bundle_id']}, "
                f"here lies {bundle.manifest.id} with other contents",
                item=str(bundle.folder),
                remedy="render the repository again",
            )
        self._threads = int(self._parameters["threads"]) or cpu_count()
        self._failures = self._pb.MetricFamily(
            name=FAILURES,
            description=FAILURES_HELP,
            kind=self._pb.MetricFamily.COUNTER,
        )
        self._failed: dict[str, Any] = {}
        self._load(bundle)

    @abstractmethod
    def _load(self, bundle: Bundle) -> None: ...

    def _error(self, error: GiqaError) -> Any:
        if error.code not in self._failed:
            self._failed[error.code] = self._failures.Metric(
                labels={"model": self._name, "code": error.code}
            )
        self._failed[error.code].increment(1)
        # Code and message: the client knows the item and the remedy.
        text = f"[{error.code}] {error.message}"
        return self._pb.InferenceResponse(
            error=self._pb.TritonError(text, self._pb.TritonError.INVALID_ARG)
        )

    def _answer(self, **tensors: Any) -> Any:
        return self._pb.InferenceResponse(
            output_tensors=[
                self._pb.Tensor(name, np.ascontiguousarray(array))
                for name, array in tensors.items()
            ]
        )

    def _input(self, request: Any, name: str) -> Any:
        return self._pb.get_input_tensor_by_name(request, name).as_numpy()


class PreprocessModel(_Model):
    """IMAGE to GLOBAL_VIEW and LOCAL_VIEW: a bad image fails its own request only."""

    def _load(self, bundle: Bundle) -> None:
        limits = {key: int(self._parameters[key]) for key in ("max_bytes", "max_pixels")}
        self._profile: Profile = "precise" if self._name == PREPROCESS_PRECISE else "fast"
        self._text = self._name == PREPROCESS_BYTES
        self._decoder = Decoder(
            bundle.manifest,
            limits=Limits(**limits, max_frames=int(self._parameters["max_frames"])),
            batch=self._config["max_batch_size"],
            threads=self._threads,
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Decode the images of all requests together.

        Args:
            requests: each with IMAGE, (B, n) uint8 or (B, 1) of bytes.

        Returns:
            One response a request.
        """
        items = [self._items(request) for request in requests]
        decoded = iter(self._decode([item for part in items for item in part]))
        responses = []
        for part in items:
            mine = [next(decoded) for _ in part]
            try:
                responses.append(self._response(mine))
            except GiqaError as e:
                responses.append(self._error(e))
        return responses

    def _items(self, request: Any) -> list[Item]:
        images = self._input(request, IMAGE)
        if self._text:
            return [Item(IMAGE, data=bytes(row[0])) for row in images]
        return [Item(IMAGE, data=row.tobytes()) for row in images]

    def _decode(self, items: list[Item]) -> list[Decoded]:
        return self._decoder(items, self._profile)

    def _response(self, decoded: list[Decoded]) -> Any:
        for n, one in enumerate(decoded, 1):
            if one.error is not None:
                if len(decoded) > 1:  # who asked must learn which one
                    one.error.message = f"image {n} of {len(decoded)}: {one.error.message}"
                raise one.error
        views = [one.views for one in decoded if one.views is not None]
        if len({v.counts for v in views}) != 1:
            raise ShapeMismatchError("images of one request need different numbers of views")
        return self._answer(
            **{
                GLOBAL_VIEW: _stack([v.global_view for v in views]),
                LOCAL_VIEW: _stack([v.local_view for v in views]),
            }
        )


def _stack(arrays: list[Any]) -> Any:
    """`np.stack` that does not copy a single one."""
    return np.stack(arrays) if len(arrays) > 1 else arrays[0][None]


class GraphModel(_Model):
    """A branch or the fusion model with OpenVINO."""

    def _load(self, bundle: Bundle) -> None:
        asked: Any = self._parameters["precision"]
        precision = choose_precision(bundle, asked)
        self._graph = CompiledGraph(bundle, self._name, precision, self._threads)
        self._inputs = [str(tensor["name"]) for tensor in self._config["input"]]
        self._tiles = bundle.manifest.tiles

    def execute(self, requests: list[Any]) -> list[Any]:
        """Infer all requests with equal V and T together.

        Args:
            requests: each with the graph's inputs, (B, V, ...) or (B, V + T, ...).

        Returns:
            One response a request.
        """
        responses: list[Any] = [None] * len(requests)
        groups: dict[tuple[int, ...], list[tuple[int, list[Any]]]] = {}
        for i, request in enumerate(requests):
            tensors = [self._input(request, name) for name in self._inputs]
            try:
                groups.setdefault(self._views(tensors), []).append((i, tensors))
            except GiqaError as e:
                responses[i] = self._error(e)
        for members in groups.values():
            columns = zip(*(tensors for _, tensors in members), strict=True)
            found = self._graph(
                {
                    name: parts[0] if len(parts) == 1 else np.concatenate(parts)
                    for name, parts in zip(self._inputs, columns, strict=True)
                }
            )
            start = 0
            for i, tensors in members:
                end = start + len(tensors[0])
                mine = {name: array[start:end] for name, array in found.items()}
                if len(groups) > 1:  # the graph's memory is used again by the next group
                    mine = {name: array.copy() for name, array in mine.items()}
                start = end
                if SCORE in mine and not np.isfinite(mine[SCORE]).all():
                    wrong = ShapeMismatchError("tokens that are no finite numbers")
                    responses[i] = self._error(wrong)
                    continue
                responses[i] = self._answer(**mine)
        return responses

    def _views(self, tensors: list[Any]) -> tuple[int, ...]:
        """How many views each input of one request has; Triton checks the other dimensions."""
        counts = tuple(int(tensor.shape[1]) for tensor in tensors)
        if self._name == FUSION:
            views, local = counts
            fits = counts_fit(views, local, self._tiles)
        else:
            fits = 1 <= counts[0] <= most_views(self._inputs[0], self._tiles)
        if not fits or not all(len(tensor) for tensor in tensors):
            shapes = ", ".join(f"{n} {t.shape}" for n, t in zip(self._inputs, tensors, strict=True))
            raise ShapeMismatchError(f"empty, or numbers of views that no image has: {shapes}")
        return counts
