"""Running a server: what it is made of, the process, and what keeps it alive."""

from giqa.serving._binary import Binary, find_tritonserver
from giqa.serving._models import GraphModel, PreprocessModel
from giqa.serving._options import (
    BATCH,
    QUEUE,
    SAFE_REJECTION_SINCE,
    RepositoryOptions,
    ServerOptions,
    device_arguments,
    memory_of,
    new_key,
)
from giqa.serving._process import Server
from giqa.serving._repository import render_repository, write_repository
from giqa.serving._serve import serve
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
from giqa.serving._watch import Watch

__all__ = [
    "BATCH",
    "DESCRIPTION",
    "PLAN",
    "QUEUE",
    "SAFE_REJECTION_SINCE",
    "SCHEMA",
    "Binary",
    "Engine",
    "GraphModel",
    "Machine",
    "PreprocessModel",
    "RepositoryOptions",
    "Server",
    "ServerOptions",
    "Shapes",
    "Watch",
    "all_gpus",
    "device_arguments",
    "engines_of",
    "find_tritonserver",
    "load_engines",
    "memory_of",
    "new_key",
    "render_repository",
    "serve",
    "source_digest",
    "this_machine",
    "write_repository",
]
