"""A scripted, fault-injecting KServe v2 gRPC server: Triton as a client sees it, without models.

Scores are a function of the bytes that were sent (`score_of`), so a swapped answer is seen. What
goes wrong is scripted with `Fault`. With device `gpu` it gathers images of all clients into
batches, as Triton's DALI backend does, and one that cannot be decoded fails its whole batch.
"""

from __future__ import annotations

import mmap
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from giqa.bundle import Bundle, load_bundle
from giqa.contract import (
    GIQA_BYTES,
    GIQA_ISOLATED,
    GIQA_PRECISE,
    GIQA_VIEWS,
    IMAGE,
    QUALITY_MAP,
    SCORE,
)
from giqa.decode import view_boxes
from giqa.tensors import Device, ensembles, inputs_of, outputs_of
from tests.fakes.batcher import Batcher
from tests.fakes.scripts import (
    DALI_ERROR,
    STOPPING,
    TOKEN_HEADER,
    Fault,
    RefusalError,
    Seen,
    Status,
    decode,
    score_of,
)
from tests.fakes.services import Service


class FakeServer:
    """The server; a context manager.

    Args:
        device: `cpu`, where each image fails alone, or `gpu`, where a batch does.
        bundle: what it serves.
        port: 0: a free one.
        tls: private key and certificate, PEM.
        token: wanted of every client.
        window_s: how long a batch on a GPU gathers.
        max_batch: its most images.
        dali: status of what the DALI backend fails with.
    """

    def __init__(
        self,
        device: Device = "cpu",
        *,
        bundle: Bundle | None = None,
        port: int = 0,
        tls: tuple[bytes, bytes] | None = None,
        token: str | None = None,
        window_s: float = 0.02,
        max_batch: int = 8,
        dali: Any = Status.UNKNOWN,
    ) -> None:
        loaded = bundle or load_bundle()
        self.device, self.sizes = device, loaded.manifest.tensors
        self.port, self._tls, self._token = port, tls, token
        self.dali = dali
        self.parameters = {
            "bundle_id": loaded.manifest.id,
            "bundle_digest": loaded.digest,
            "device": device,
            "engine": "fake-f32",
        }
        self.spoil_metadata: dict[str, Callable[[Any], None]] = {}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.regions: dict[str, mmap.mmap] = {}
        self.keys: list[str] = []
        self.most_regions = 0
        self.in_flight = self.most_in_flight = 0
        self.batches: list[int] = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self._batcher = Batcher(self, window_s, max_batch)
        self._server: Any = None

    # What tests say and ask.

    @property
    def url(self) -> str:
        return f"grpc{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def fault(self, **what: Any) -> Fault:
        """Script a fault; of several that match, the first scripted happens."""
        made = Fault(**what)
        with self.lock:
            self.faults.append(made)
        return made

    def infers(self, model: str | None = None) -> list[Seen]:
        """The inference requests so far."""
        with self.lock:
            return [s for s in self.seen if s.rpc == "infer" and model in (None, s.model)]

    def sent(self, model: str | None = None) -> Counter[bytes]:
        """How often each image came."""
        return Counter(image for seen in self.infers(model) for image in seen.images)

    def forget(self) -> None:
        """Forget all shared memory, as a server does that was started again."""
        with self.lock:
            self.regions.clear()

    def start(self) -> None:
        """Listen; on the same port as before, if it did."""
        self.stopping = threading.Event()
        self._pool = ThreadPoolExecutor(128)
        self._workers = ThreadPoolExecutor(128)
        self._server = grpc.server(self._pool, options=[("grpc.max_receive_message_length", -1)])
        rpc.add_GRPCInferenceServiceServicer_to_server(Service(self), self._server)
        address = f"127.0.0.1:{self.port}"
        if self._tls:
            credentials = grpc.ssl_server_credentials([self._tls])
            self.port = self._server.add_secure_port(address, credentials)
        else:
            self.port = self._server.add_insecure_port(address)
        self._server.start()

    def stop(self) -> None:
        """Break all connections and stop listening."""
        self.stopping.set()
        self._server.stop(None).wait(5)
        self._pool.shutdown(wait=True)
        self._workers.shutdown(wait=True)
        self.forget()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    # What the service does.

    def arrive(self, seen: Seen, context: Any) -> Fault | None:
        """Note a call and find its fault; wait where that says so."""
        seen.metadata = dict(context.invocation_metadata())
        left = context.time_remaining()
        seen.remaining_s = None if left is None or left > 1e6 else left
        with self.lock:
            self.seen.append(seen)
            fault = next(
                (f for f in self.faults if f.times != 0 and f.rpc == seen.rpc and f.when(seen)),
                None,
            )
            if fault and fault.times is not None:
                fault.times -= 1
        if self._token is not None and seen.metadata.get(TOKEN_HEADER) != self._token:
            raise RefusalError(
                Status.UNAVAILABLE,
                f"This protocol is restricted, expecting header '{TOKEN_HEADER}'",
                "end",
            )
        if fault is None:
            return None
        if fault.before:
            fault.before()
        if fault.delay_s:
            self.stopping.wait(fault.delay_s)
        while fault.never and context.is_active() and not self.stopping.wait(0.02):
            pass
        if fault.never:
            raise RefusalError(Status.CANCELLED, "never", "silent")
        if fault.end_stream and seen.stream:
            raise RefusalError(fault.status, fault.message, "end")
        if fault.status is not None:
            how = "anonymous" if fault.anonymous else "error"
            raise RefusalError(fault.status, fault.message, how)
        return fault

    def infer(self, request: Any, context: Any, *, stream: bool) -> Any:
        """Answer one request."""
        stopping = self.stopping
        with self.lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            timeout = request.parameters["timeout"]
            seen = Seen(
                "infer",
                request.model_name,
                stream=stream,
                timeout_us=timeout.int64_param if timeout.HasField("int64_param") else None,
                shared=bool(request.inputs and request.inputs[0].parameters),
            )
            lost: RefusalError | None = None
            try:
                inputs = dict(self._inputs(request))
                seen.images = self._images(request, inputs)
            except RefusalError as e:
                lost = e
            fault = self.arrive(seen, context)
            if lost is not None:
                raise lost
            if stopping.is_set():
                raise RefusalError(Status.UNAVAILABLE, STOPPING, "silent")  # it was killed
            response = self._answer(request, seen.images)
            if fault and fault.spoil:
                fault.spoil(response)
            return response
        finally:
            with self.lock:
                self.in_flight -= 1

    def _inputs(self, request: Any) -> Iterator[tuple[str, bytes]]:
        raw = iter(request.raw_input_contents)
        for entry in request.inputs:
            if "shared_memory_region" not in entry.parameters:
                yield entry.name, next(raw)
                continue
            name = entry.parameters["shared_memory_region"].string_param
            start = entry.parameters["shared_memory_offset"].int64_param
            size = entry.parameters["shared_memory_byte_size"].int64_param
            with self.lock:
                region = self.regions.get(name)
            if region is None:
                message = f"Unable to find shared memory region: '{name}'"
                raise RefusalError(Status.NOT_FOUND, message)
            if start + size > len(region):
                message = f"Invalid offset + byte size for shared memory region: '{name}'"
                raise RefusalError(Status.INVALID_ARGUMENT, message)
            yield entry.name, bytes(region[start : start + size])

    def _images(self, request: Any, inputs: Mapping[str, bytes]) -> list[bytes]:
        model = request.model_name
        if model not in ensembles(self.device):
            message = f"Request for unknown model: '{model}' is not found"
            raise RefusalError(Status.NOT_FOUND, message)
        if set(inputs) != set(inputs_of(model)):
            message = f"[request id: ] {model} got {sorted(inputs)}"
            raise RefusalError(Status.INVALID_ARGUMENT, message)
        for entry in request.inputs:
            count = int(np.prod(entry.shape))
            text = entry.datatype == "BYTES"
            if text != (model == GIQA_BYTES) or (not text and len(inputs[entry.name]) != count):
                raise RefusalError(Status.INVALID_ARGUMENT, f"unexpected size of {entry.name}")
        if model == GIQA_VIEWS:
            return [b"".join(inputs[name] for name in inputs_of(model))]
        if model != GIQA_BYTES:
            return [inputs[IMAGE]]
        images, rest = [], inputs[IMAGE]
        while rest:
            size = 4 + int.from_bytes(rest[:4], "little")
            images.append(rest[4:size])
            rest = rest[size:]
        if len(images) != request.inputs[0].shape[0]:
            raise RefusalError(Status.INVALID_ARGUMENT, "unexpected number of strings")
        return images

    def _answer(self, request: Any, images: list[bytes]) -> Any:
        model, views = request.model_name, 1
        if model == GIQA_VIEWS:
            views = request.inputs[0].shape[1]
        elif self.device == "cpu":
            pictures = [decode(image) for image in images]
            if None in pictures:
                message = "in ensemble, [corrupt] cannot be decoded"
                raise RefusalError(Status.INVALID_ARGUMENT, message)
        elif model == GIQA_ISOLATED:
            pictures = [decode(images[0])]
            if None in pictures:
                raise RefusalError(self.dali, DALI_ERROR)
        else:
            pictures = [self._batcher(images[0])]
        if model == GIQA_PRECISE:
            size = pictures[0]
            assert size is not None
            views = len(view_boxes(*size, "precise", self.sizes.local_side))
        scores = np.array([[score_of(image)] for image in images], np.float32)
        response = pb.ModelInferResponse(model_name=model, model_version="1", id=request.id)
        arrays = {SCORE: scores}
        if QUALITY_MAP in outputs_of(model, self.sizes):
            grid = self.sizes.grid
            shape = (len(images), views, grid, grid)
            arrays[QUALITY_MAP] = np.full(shape, scores[0, 0], np.float32)
        for entry in request.outputs:
            array = arrays[entry.name]
            response.outputs.add(name=entry.name, datatype="FP32", shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        return response


def main() -> None:
    """Serve until killed: `python -m tests.fakes.kserve PORT`; each answer takes 20 ms."""
    with FakeServer(port=int(sys.argv[1])) as server:
        server.fault(delay_s=0.02)
        print("ready", flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
