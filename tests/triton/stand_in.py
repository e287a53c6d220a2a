"""A GPU's repository on a machine without one: its own configs, with Python models in its backends'
places. The decoder does as Triton's DALI backend does: one bad image fails its whole batch, in
DALI's words, and the pipeline is built again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from giqa.bundle import Bundle
from giqa.contract import PREPROCESSES
from giqa.serving import Binary, Folder, RepositoryOptions, Server, ServerOptions, find_tritonserver
from giqa.serving import _server as process
from giqa.serving._configs import from_text, to_text
from giqa.types import Limits

REBUILD_S = 0.05

_DALI = f'''
import time

from giqa.serving import PreprocessModel


class TritonPythonModel(PreprocessModel):
    """All or nothing."""

    def execute(self, requests):
        parts = [self._items(request) for request in requests]
        items = [item for part in parts for item in part]
        decoded = self._decode(items)
        bad = [n for n, one in enumerate(decoded) if one.error is not None]
        if bad:
            time.sleep({REBUILD_S})
            text = (
                "Critical error in pipeline:\\\\n"
                "Error in CPU operator `nvidia.dali.fn.decoders.image`,\\\\n"
                "encountered:\\\\n\\\\n"
                f"Failed to decode sample #{{bad[0]}}\\\\n"
                "Current pipeline object is no longer valid."
            )
            # An error each: the backend frees what two share twice, and dies.
            errors = [self._pb.TritonError(text) for _ in requests]
            return [self._pb.InferenceResponse(error=error) for error in errors]
        found = iter(decoded)
        return [self._response([next(found) for _ in part]) for part in parts]
'''
_GRAPH = '''
import numpy as np

from giqa.serving import GraphModel

KINDS = {"TYPE_FP16": np.float16, "TYPE_FP32": np.float32}


class TritonPythonModel(GraphModel):
    """Tokens in halves, where engines hand them over so."""

    def _input(self, request, name):
        found = super()._input(request, name)
        return found.astype(np.float32) if found.dtype == np.float16 else found

    def _answer(self, **tensors):
        kinds = {t["name"]: KINDS[t["data_type"]] for t in self._config["output"]}
        return super()._answer(**{n: a.astype(kinds[n]) for n, a in tensors.items()})
'''


def stand_in(files: Mapping[str, bytes], bundle: Bundle) -> dict[str, bytes]:
    """Put Python models in the places of DALI's and TensorRT's.

    Args:
        files: a GPU's repository, as it is rendered.
        bundle: what it serves.

    Returns:
        The repository; ensembles, queues, batches and warm-ups are as they were.
    """
    found = {}
    limits = Limits()
    parameters = {
        "bundle": str(bundle.folder.resolve()),
        "precision": "f32",
        "threads": "1",
        "max_bytes": str(limits.max_bytes),
        "max_pixels": str(limits.max_pixels),
        "max_frames": str(limits.max_frames),
    }
    for path, content in files.items():
        name = path.split("/")[0]
        if path.endswith("model.dali"):
            continue
        if path.endswith("config.pbtxt"):
            config = from_text(content.decode())
            if config.backend in ("dali", "tensorrt"):
                config.backend = "python"
                config.ClearField("default_model_filename")
                config.ClearField("optimization")
                for group in config.instance_group:
                    group.kind = group.KIND_CPU
                    group.ClearField("gpus")
                    group.ClearField("profile")
                for key, value in parameters.items():
                    config.parameters[key].string_value = value
                model = _DALI if name in PREPROCESSES else _GRAPH
                found[f"{name}/1/model.py"] = model.encode()
            content = to_text(config).encode()
        found[path] = content
    return found


class _Binary(Binary):
    """The bundled server, taken for one that has a GPU's backends."""

    def environment(self) -> dict[str, str]:
        return replace(find_tritonserver()).environment()

    def lay_out(self, folder: Path) -> list[str]:
        return find_tritonserver().lay_out(folder)


class _Options(ServerOptions):
    """Without what the bundled server, older than those with a GPU, does not know."""

    def arguments(self, *args: object) -> list[str]:
        found = super().arguments(*args)
        return [a for a in found if not a.startswith("--grpc-infer-thread-count")]


@contextmanager
def gpu_like(bundle: Bundle, **changes: object) -> Iterator[Server]:
    """A server with a GPU's repository, and stand-ins in it.

    Args:
        bundle: what it serves.
        **changes: fields of `RepositoryOptions`.
    """
    real = find_tritonserver()
    binary = _Binary(real.path, real.version, bundled=False)
    options = RepositoryOptions(
        device="gpu",
        bundle=str(bundle.folder.resolve()),
        precision="f16",
        server=real.version,
        **{"max_batch": 8, "instances": 1, **changes},
    )
    render = process.render_repository

    def rendered(*args: object) -> dict[str, bytes]:
        return stand_in(render(*args), bundle)

    with Folder() as folder, patch.object(process, "render_repository", rendered):
        listen = _Options(sockets=folder, drain_s=10, start_s=300)
        server = Server(bundle, binary, listen, options)
        try:
            server.start()
            yield server
        finally:
            server.stop()
