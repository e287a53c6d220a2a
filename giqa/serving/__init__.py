"""Running a server: what it is made of, the process, and what keeps it alive.

What listens by itself is imported when it is first used: models in Triton's Python backend, which
import this package, too, do without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from giqa.errors import MissingExtraError
from giqa.serving._binary import Binary, find_tritonserver
from giqa.serving._exposure import describe_faults
from giqa.serving._folder import Folder
from giqa.serving._gpu import decoder_hints
from giqa.serving._models import GraphModel, PreprocessModel
from giqa.serving._options import ServerOptions, device_arguments, new_key
from giqa.serving._repository import render_repository, write_repository
from giqa.serving._repository_options import (
    BATCH,
    QUEUE,
    SAFE_REJECTION_SINCE,
    RepositoryOptions,
    memory_of,
    road_of,
)
from giqa.serving._server import Server
from giqa.serving._tensorrt import (
    DESCRIPTION,
    PLAN,
    SCHEMA,
    Engine,
    Machine,
    Shapes,
    all_gpus,
    engines_of,
    load_engines,
    source_digest,
    this_machine,
)

if TYPE_CHECKING:
    from giqa.serving._gateway_options import Backend, GatewayOptions
    from giqa.serving._gateway_process import GatewayProcess
    from giqa.serving._rollout import Rollout, read_plan
    from giqa.serving._serve import serve, serve_rollout
    from giqa.serving._watch import Watch

__all__ = [
    "BATCH",
    "DESCRIPTION",
    "PLAN",
    "QUEUE",
    "SAFE_REJECTION_SINCE",
    "SCHEMA",
    "Backend",
    "Binary",
    "Engine",
    "Folder",
    "GatewayOptions",
    "GatewayProcess",
    "GraphModel",
    "Machine",
    "PreprocessModel",
    "RepositoryOptions",
    "Rollout",
    "Server",
    "ServerOptions",
    "Shapes",
    "Watch",
    "all_gpus",
    "decoder_hints",
    "describe_faults",
    "device_arguments",
    "engines_of",
    "find_tritonserver",
    "load_engines",
    "memory_of",
    "new_key",
    "read_plan",
    "render_repository",
    "road_of",
    "serve",
    "serve_rollout",
    "source_digest",
    "this_machine",
    "write_repository",
]

_LATER = {
    "Backend": "_gateway_options",
    "GatewayOptions": "_gateway_options",
    "GatewayProcess": "_gateway_process",
    "Rollout": "_rollout",
    "read_plan": "_rollout",
    "Watch": "_watch",
    "serve": "_serve",
    "serve_rollout": "_serve",
}


def __getattr__(name: str) -> Any:
    """Import what listens.

    Raises:
        MissingExtraError: a package of the extra `gateway` is not installed.
    """
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("giqa"):
            raise
        raise MissingExtraError(f"{e.name} is not installed", extra="gateway") from e
