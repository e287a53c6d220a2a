"""The fake server's calls: between gRPC and what tests scripted."""

from __future__ import annotations

import contextlib
import mmap
import os
import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from giqa.contract import GIQA_BYTES, IMAGE
from giqa.tensors import ensembles, inputs_of, outputs_of, tensor_shapes
from tests.fakes.scripts import RefusalError, Seen, Status

if TYPE_CHECKING:
    from tests.fakes.kserve import FakeServer


class Service(rpc.GRPCInferenceServiceServicer):
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
