"""KServe v2 over gRPC: how a server is reached, what goes over the wire, what its errors mean.

What clients share with whoever looks after a server.
"""

import os

# Before anything imports gRPC, which reads it once. By default its core runs handlers of its own in
# forked children, without those of its Python part: about one child in six then dies of a
# segmentation fault, whatever it does. Nothing here uses a connection of its parent's.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from giqa.kserve._connection import (
    ADMIN_KEY,
    BUNDLE_DIGEST,
    KEY_PREFIX,
    SERVICE,
    TOKEN_KEY,
    Connection,
    ConnectionOptions,
    import_grpc,
    service_stub,
)
from giqa.kserve._wire import (
    Place,
    Tensor,
    answer,
    is_dead_stub,
    messages,
    request,
    to_error,
)

__all__ = [
    "ADMIN_KEY",
    "BUNDLE_DIGEST",
    "KEY_PREFIX",
    "SERVICE",
    "TOKEN_KEY",
    "Connection",
    "ConnectionOptions",
    "Place",
    "Tensor",
    "answer",
    "import_grpc",
    "is_dead_stub",
    "messages",
    "request",
    "service_stub",
    "to_error",
]
