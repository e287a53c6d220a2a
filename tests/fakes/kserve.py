"""A scripted, fault-injecting KServe v2 gRPC server: Triton as a client sees it, without models.

Scores are a function of the bytes that were sent (`score_of`), so a swapped answer is seen. What
goes wrong is scripted with `Fault`. With device `gpu` it gathers images of all clients into
batches, as Triton's DALI backend does, and one that cannot be decoded fails its whole batch.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import queue
import socket
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from PIL import Image
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
from giqa.tensors import Device, ensembles, inputs_of, outputs_of, tensor_shapes

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
        self._batcher = _Batcher(self, window_s, max_batch)
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
        rpc.add_GRPCInferenceServiceServicer_to_server(_Service(self), self._server)
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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


class _Batcher:
    """Gathers images of all clients; one that cannot be decoded fails them all."""

    def __init__(self, owner: FakeServer, window_s: float, most: int) -> None:
        self._owner, self._window_s, self._most = owner, window_s, most
        self._lock = threading.Condition()
        self._open: list[tuple[bytes, Future[Any]]] | None = None

    def __call__(self, image: bytes) -> tuple[int, int]:
        future: Future[Any] = Future()
        with self._lock:
            first = self._open is None
            if self._open is None:
                self._open = []
            batch = self._open
            batch.append((image, future))
            if first:
                self._lock.wait_for(lambda: len(batch) >= self._most, self._window_s)
                if self._open is batch:
                    self._open = None
            elif len(batch) >= self._most:
                self._open = None  # whoever comes next begins another
                self._lock.notify_all()
        if first:
            sizes = [decode(one) for one, _ in batch]
            with self._owner.lock:
                self._owner.batches.append(len(batch))
            for size, (_, waiting) in zip(sizes, batch, strict=True):
                if None in sizes:
                    waiting.set_exception(RefusalError(self._owner.dali, DALI_ERROR))
                else:
                    waiting.set_result(size)
        found: tuple[int, int] = future.result(10)
        return found


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


class _Service(rpc.GRPCInferenceServiceServicer):
    """Between gRPC and the server."""

    def __init__(self, owner: FakeServer) -> None:
        self._owner = owner

    def ServerReady(self, request: Any, context: Any) -> Any:
        self._arrive("ServerReady", "", context)
        return pb.ServerReadyResponse(ready=True)

    def ModelConfig(self, request: Any, context: Any) -> Any:
        self._arrive("ModelConfig", request.name, context)
        response = pb.ModelConfigResponse()
        response.config.name = request.name
        for key, value in self._owner.parameters.items():
            response.config.parameters[key].string_value = value
        return response

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        owner, name = self._owner, request.name
        self._arrive("ModelMetadata", name, context)
        if name not in ensembles(owner.device):
            message = f"Request for unknown model: '{name}' is not found"
            context.abort(Status.NOT_FOUND, message)
        response = pb.ModelMetadataResponse(name=name, versions=["1"], platform="ensemble")
        for message, names in (
            (response.inputs, inputs_of(name)),
            (response.outputs, outputs_of(name, owner.sizes)),
        ):
            for tensor in names:
                datatype, shape = tensor_shapes(owner.sizes)[tensor]
                if name == GIQA_BYTES and tensor == IMAGE:
                    datatype, shape = "BYTES", (1,)
                message.add(name=tensor, datatype=datatype, shape=(-1, *shape))
        if name in owner.spoil_metadata:
            owner.spoil_metadata[name](response)
        return response

    def ModelInfer(self, request: Any, context: Any) -> Any:
        try:
            return self._owner.infer(request, context, stream=False)
        except RefusalError as e:
            context.abort(e.status, e.message)

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[Any]:
        owner = self._owner
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def one(request: Any) -> None:
            try:
                response = owner.infer(request, context, stream=True)
                answers.put(pb.ModelStreamInferResponse(infer_response=response))
            except RefusalError as e:
                if e.how == "end":
                    answers.put(None if e.status is None else e)
                elif e.how != "silent":
                    response = pb.ModelStreamInferResponse(error_message=e.message)
                    if e.how != "anonymous":
                        response.infer_response.id = request.id
                    answers.put(response)

        def read() -> None:
            with contextlib.suppress(Exception):  # the client breaks it, or the server stops
                for request in requests:
                    owner._workers.submit(one, request)
            answers.put(None)

        threading.Thread(target=read, daemon=True).start()
        while context.is_active() and not owner.stopping.is_set():
            try:
                answer = answers.get(timeout=0.1)
            except queue.Empty:
                continue
            if answer is None:
                return
            if isinstance(answer, RefusalError):
                context.abort(answer.status, answer.message)
            yield answer

    def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:
        self._arrive("SystemSharedMemoryRegister", request.name, context)
        owner = self._owner
        with owner.lock:
            if request.name in owner.regions:
                message = f"shared memory region '{request.name}' already in manager"
                context.abort(Status.ALREADY_EXISTS, message)
            try:
                # Not multiprocessing's: its tracker would remove what is the client's.
                handle = os.open(f"/dev/shm{request.key}", os.O_RDONLY)
            except OSError:
                message = f"Unable to open shared memory region: '{request.key}'"
                context.abort(Status.INTERNAL, message)
            try:
                owner.regions[request.name] = mmap.mmap(
                    handle, request.byte_size, prot=mmap.PROT_READ
                )
            finally:
                os.close(handle)
            owner.keys.append(request.key)
            owner.most_regions = max(owner.most_regions, len(owner.regions))
        return pb.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        self._arrive("SystemSharedMemoryUnregister", request.name, context)
        with self._owner.lock:
            self._owner.regions.pop(request.name, None)
        return pb.SystemSharedMemoryUnregisterResponse()

    def _arrive(self, name: str, model: str, context: Any) -> None:
        try:
            self._owner.arrive(Seen(name, model), context)
        except RefusalError as e:
            context.abort(e.status, e.message)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Serve until killed: `python -m tests.fakes.kserve PORT`; each answer takes 20 ms."""
    with FakeServer(port=int(sys.argv[1])) as server:
        server.fault(delay_s=0.02)
        print("ready", flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
