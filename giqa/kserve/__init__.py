"""KServe v2 over gRPC: how a server is reached, what goes over the wire, what its errors mean.

What clients share with whoever looks after a server.
"""

from giqa.kserve._connection import (
    ADMIN_KEY,
    BUNDLE_DIGEST,
    KEY_PREFIX,
    SERVICE,
    TOKEN_KEY,
    Connection,
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
