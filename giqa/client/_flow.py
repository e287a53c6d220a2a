"""What the synchronous and the asyncio client share: everything but waiting.

An image's way through the server is a generator: it yields calls, is sent their answers (or
thrown their errors), and returns the row. So isolation of bad images is written once.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from giqa import inputs
from giqa.bundle import Bundle
from giqa.contract import (
    GIQA,
    GIQA_BYTES,
    GIQA_ISOLATED,
    GIQA_MAP,
    GIQA_PRECISE,
    GIQA_VIEWS,
    GLOBAL_VIEW,
    IMAGE,
    LOCAL_VIEW,
    QUALITY_MAP,
    SCORE,
    Profile,
)
from giqa.decode import (
    LARGE,
    Probe,
    listen,
    probe,
    tile_boxes,
    view_boxes,
    views_by_pillow,
)
from giqa.errors import (
    EngineMismatchError,
    GiqaError,
    InputError,
    OutOfMemoryError,
    ServerFailedError,
)
from giqa.kserve import BUNDLE_DIGEST, Tensor
from giqa.results import ImageResult
from giqa.tensors import check_views, inputs_of, outputs_of, tensor_shapes
from giqa.types import BoxArray, FloatArray, Item, Limits, UInt8Array, Views, ViewScore

Answer = Mapping[str, Any]
Steps = Generator["Call", Answer, list[ImageResult]]


@dataclass(frozen=True)
class Call:
    """One request to make.

    Attributes:
        model: the ensemble.
        inputs: its inputs.
        expected: datatype and shape of each output.
    """

    model: str
    inputs: Mapping[str, Tensor]
    expected: Mapping[str, tuple[str, tuple[int, ...]]]


@dataclass
class Job:
    """One image on its way."""

    item: Item
    profile: Profile
    quality_map: bool
    probe: Probe | None = None
    boxes: BoxArray | None = None
    tiles: BoxArray | None = None
    data: UInt8Array | None = None
    views: Views | None = None
    error: GiqaError | None = None


class Flow:
    """The client's side of the contract with one server.

    Args:
        bundle: the bundle that the server must serve.
        limits: limits that hold before anything is sent.
        server: the server's address, for errors.
    """

    def __init__(self, bundle: Bundle, limits: Limits, server: str) -> None:
        self.manifest = bundle.manifest
        self.engine = ""
        self.device = ""
        self._digest = bundle.digest
        self.limits = limits
        self._server = server
        self._shapes = tensor_shapes(self.manifest.tensors)

    def check_config(self, config: Any) -> None:
        """Check what the server says of `giqa`, before the first image.

        Raises:
            EngineMismatchError: it serves another bundle, or was not set up by giqa.
        """
        said = {key: value.string_value for key, value in config.parameters.items()}
        if missing := {"bundle_id", "bundle_digest", "device", "engine"} - set(said):
            raise EngineMismatchError(
                f"its model {GIQA!r} does not say {sorted(missing)}",
                item=self._server,
                remedy="serve it with `giqa serve` or `python -m build repository`",
            )
        if said["bundle_digest"] != self._digest:
            raise EngineMismatchError(
                f"serves {said['bundle_id']} ({said['bundle_digest'][:12]}), "
                f"here is {self.manifest.id} ({self._digest[:12]})",
                item=self._server,
                remedy="name the server's bundle with --bundle, or serve this one",
            )
        self.engine, self.device = said["engine"], said["device"]

    def check_answer(self, response: Any) -> None:
        """Refuse an answer of another bundle: a gateway may have been told to serve that since.

        Raises:
            EngineMismatchError: it is one.
        """
        if BUNDLE_DIGEST not in response.parameters:
            return
        said = response.parameters[BUNDLE_DIGEST].string_param
        if said != self._digest:
            raise EngineMismatchError(
                f"serves another bundle by now ({said[:12]})",
                item=self._server,
                remedy="connect again, with the server's bundle",
            )

    def check_metadata(self, model: str, metadata: Any) -> None:
        """Compare a model's tensors with the manifest's.

        Raises:
            EngineMismatchError: they differ.
        """
        text = {IMAGE: ("BYTES", (1,))} if model == GIQA_BYTES else {}
        for kind, names, given in (
            ("inputs", inputs_of(model), metadata.inputs),
            ("outputs", outputs_of(model, self.manifest.tensors), metadata.outputs),
        ):
            wanted = {name: (self._shapes | text)[name] for name in names}
            found = {t.name: (t.datatype, tuple(t.shape)[1:]) for t in given}
            if found != wanted:
                raise EngineMismatchError(
                    f"{model} has {kind} {found} instead of {wanted}", item=self._server
                )

    def prepare(self, item: Item, profile: Profile, quality_map: bool) -> Job:
        """Read and probe an image; what fails here is not sent."""
        job = Job(item, profile, quality_map and self.manifest.tensors.quality_map)
        try:
            if item.error is not None:
                raise item.error
            limits = inputs.limits_of(item, self.limits)
            job.data = inputs.read(item, limits)
            job.probe = found = listen(probe(job.data, limits), job.data)
            size, side = found.upright_size, self._sizes.local_side
            job.boxes = view_boxes(*size, profile, side)
            job.tiles = tile_boxes(*size, self.manifest.profiles[profile], side)
            if self.device == "gpu" and self._is_decoded_here(found, job):
                self._decode_here(job)
        except GiqaError as e:
            e.item = e.item or item.name
            job.error = e
        except MemoryError:
            job.error = OutOfMemoryError("decoding it takes too much", item=item.name)
        return job

    def steps(self, jobs: Sequence[Job]) -> Steps:
        """The way of one image, or of several that may go in one request.

        Args:
            jobs: prepared images; all with the same profile.

        Returns:
            One row a job, in order.
        """
        rows: dict[int, ImageResult] = {}
        for together in self._together(jobs):
            try:
                answer = yield self._bytes([jobs[i] for i in together])
            except (InputError, ServerFailedError):
                pass  # one of them is bad: find out which
            except GiqaError as e:
                rows |= {i: self._row(jobs[i], error=e) for i in together}
            else:
                for n, i in enumerate(together):
                    rows[i] = self._row(jobs[i], {SCORE: answer[SCORE][n : n + 1]})
        for i, job in enumerate(jobs):
            if i not in rows:
                rows[i] = yield from self._one(job)
        return [rows[i] for i in range(len(jobs))]

    def _together(self, jobs: Sequence[Job]) -> list[list[int]]:
        """Which images go in one request: views of one are as many as those of the others."""
        groups: dict[int, list[int]] = {}
        for i, job in enumerate(jobs):
            usual = job.profile == "fast" and self.device == "cpu" and not job.quality_map
            if usual and job.error is None and job.views is None and job.tiles is not None:
                groups.setdefault(len(job.tiles), []).append(i)
        return [group for group in groups.values() if len(group) > 1]

    def views(self, views: Views) -> Call:
        """The request for ready-made views.

        Raises:
            ShapeMismatchError: another dtype, shape or number than the manifest's.
        """
        check_views(views, self.manifest)
        tensors = {
            GLOBAL_VIEW: Tensor.of(views.global_view[None]),
            LOCAL_VIEW: Tensor.of(views.local_view[None]),
        }
        return self._call(GIQA_VIEWS, tensors, views=len(views.global_view))

    def view_score(self, answer: Answer) -> ViewScore:
        """What the answer to `views` says."""
        quality = self._map(answer) if QUALITY_MAP in answer else None
        return ViewScore(self._score(answer), quality)

    @property
    def _sizes(self) -> Any:
        return self.manifest.tensors

    def _one(self, job: Job) -> Generator[Call, Answer, ImageResult]:
        if job.error is not None:
            return self._row(job, error=job.error)
        try:
            if job.views is not None:
                return self._row(job, (yield self.views(job.views)))
            try:
                return self._row(job, (yield self._image(job)))
            except InputError as e:
                if self.device == "cpu":
                    raise  # each image was tried alone there
                first = e
            return (yield from self._alone(job, first))
        except GiqaError as e:
            return self._row(job, error=e)

    def _alone(self, job: Job, first: GiqaError) -> Generator[Call, Answer, ImageResult]:
        """After an error that may be a neighbour's: ask for this image alone."""
        assert job.data is not None
        image = {IMAGE: Tensor("UINT8", (1, len(job.data)), job.data.tobytes())}
        try:
            answer = yield self._call(GIQA_ISOLATED, image)
            if job.profile == "fast" and not job.quality_map:
                return self._row(job, answer)
            self._decode_here(job)  # it is good, but its batcher may be poisoned again
        except InputError:
            try:  # Pillow reads some odd files that DALI does not
                self._decode_here(job)
            except GiqaError:
                raise first from None
        assert job.views is not None
        assert job.probe is not None
        job.probe = replace(job.probe, notes=(*job.probe.notes, "pillow_decoded"))
        return self._row(job, (yield self.views(job.views)))

    def _is_decoded_here(self, found: Probe, job: Job) -> bool:
        """What a GPU's decoders read otherwise, and large pictures that need more than a score."""
        # Of JPEGs with four components nobody has compared their colours yet.
        if found.route == "pillow" or (found.format == "JPEG" and found.mode == "CMYK"):
            return True
        return self._is_large(found) and (job.profile != "fast" or job.quality_map)

    @staticmethod
    def _is_large(found: Probe) -> bool:
        """Whether a picture is too large for a batch on a GPU, see `giqa.serving`'s roads."""
        return found.width * found.height > LARGE

    def _decode_here(self, job: Job) -> None:
        assert job.data is not None
        assert job.probe is not None
        job.views = views_by_pillow(
            job.data,
            job.probe,
            None if job.profile == "fast" else job.boxes,
            job.tiles,
            global_side=self._sizes.global_side,
            local_side=self._sizes.local_side,
        )

    def _image(self, job: Job) -> Call:
        assert job.data is not None
        assert job.boxes is not None
        fast = GIQA_MAP if job.quality_map else GIQA
        if self.device == "gpu" and job.probe is not None and self._is_large(job.probe):
            fast = GIQA_ISOLATED
        model = fast if job.profile == "fast" else GIQA_PRECISE
        image = {IMAGE: Tensor("UINT8", (1, len(job.data)), job.data.tobytes())}
        return self._call(model, image, views=len(job.boxes))

    def _bytes(self, jobs: Sequence[Job]) -> Call:
        texts = [job.data.tobytes() for job in jobs if job.data is not None]
        return self._call(GIQA_BYTES, {IMAGE: Tensor.of_texts(texts)}, batch=len(texts))

    def _call(
        self, model: str, tensors: Mapping[str, Tensor], *, batch: int = 1, views: int = 1
    ) -> Call:
        expected = {}
        for name in outputs_of(model, self.manifest.tensors):
            datatype, shape = self._shapes[name]
            expected[name] = datatype, (batch, *(views if n == -1 else n for n in shape))
        return Call(model, tensors, expected)

    def _score(self, answer: Answer) -> float:
        score = float(answer[SCORE][0, 0])
        scale = self.manifest.score
        if not scale.minimum <= score <= scale.maximum:  # NaN, too
            raise ServerFailedError(f"score {score} is not on the scale", item=self._server)
        return score

    def _map(self, answer: Answer) -> FloatArray:
        quality = np.array(answer[QUALITY_MAP][0], np.float32)
        scale = self.manifest.score
        if not np.all((quality >= scale.minimum) & (quality <= scale.maximum)):
            raise ServerFailedError("a map is not on the scale", item=self._server)
        return quality

    def _row(
        self, job: Job, answer: Answer | None = None, error: GiqaError | None = None
    ) -> ImageResult:
        score = quality = None
        if answer is not None:
            try:
                score = self._score(answer)
                if job.quality_map and QUALITY_MAP in answer:
                    quality = self._map(answer)
            except GiqaError as e:
                error = e
        if error is not None:  # one error may stand in several rows
            error = type(error)(error.message, item=job.item.name, remedy=error.remedy)
        width, height = job.probe.upright_size if job.probe else (None, None)
        return ImageResult(
            path=job.item.name,
            bundle=self.manifest.id,
            engine=self.engine,
            profile=job.profile,
            score=score if error is None else None,
            error=error,
            width=width,
            height=height,
            notes=job.probe.notes if job.probe else (),
            boxes=job.boxes if error is None else None,
            quality_map=quality if error is None else None,
        )
