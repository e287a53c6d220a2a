"""How a gateway listens, and what it lets through."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields

from giqa.tensors import Device
from giqa.types import Limits


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A tritonserver behind the gateway.

    Attributes:
        target: its socket, as gRPC names it.
        bundle: the folder of the bundle that it serves.
        share: how much of the clients it gets, beside the others.
    """

    target: str
    bundle: str
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class GatewayOptions:
    """How a gateway listens and what it lets through.

    Attributes:
        address: the address to listen on.
        port: gRPC port.
        socket: path of a UNIX socket for the supervisor.
        backends: the servers behind it.
        device: what that runs on.
        http_port: HTTP port; None: none.
        tls_cert: PEM file of the certificate; with `tls_key`: TLS, on both ports.
        tls_key: PEM file of its key.
        tls_client_ca: PEM file of the authority whose clients alone are let in.
        token_file: who may come in, see `Tokens`; None: anyone.
        admin_key: what loading and unloading models, and shared memory, need.
        client_shared_memory: let who has the admin key use shared memory.
        max_batch: most images of a request.
        limits: limits on images.
        in_flight_bytes: most bytes of requests that Triton has at the same time; more wait.
        decoded_bytes: most bytes that large pictures of requests have together when they are
            decoded; more of them wait.
        patience_s: longest wait for that, in seconds.
        request_log: file for a line a request; None: none.
        request_log_bytes: its largest size.
        reflection: answer gRPC reflection.
    """

    address: str = "127.0.0.1"
    port: int = 8001
    socket: str
    backends: tuple[Backend, ...]
    device: Device = "cpu"
    http_port: int | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    token_file: str | None = None
    admin_key: str = field(repr=False)
    client_shared_memory: bool = False
    max_batch: int = 8
    limits: Limits = field(default_factory=Limits)
    in_flight_bytes: int = 256 * 2**20
    decoded_bytes: int = 2**30
    patience_s: float = 10.0
    request_log: str | None = None
    request_log_bytes: int = 64 * 2**20
    reflection: bool = False

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> GatewayOptions:
        """What `to_json` wrote."""
        given = json.loads(text)
        given["backends"] = tuple(Backend(**one) for one in given["backends"])
        given["limits"] = Limits(**given["limits"])
        return cls(**{f.name: given[f.name] for f in fields(cls)})
