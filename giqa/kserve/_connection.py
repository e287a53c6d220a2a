"""How a client reaches a server: address, TLS, token, keep-alive."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack
from urllib.parse import urlsplit

from giqa import checks, forks
from giqa.errors import UsageError
from giqa.extras import importing

DEFAULT_PORT = 8001
SERVICE = "inference.GRPCInferenceService"
"""KServe's name of the service."""
TOKEN_KEY = "giqa-token"
"""Key of Triton's restricted protocols that guards what clients use."""
ADMIN_KEY = "giqa-admin"
"""Key of Triton's restricted protocols that guards loading and unloading of models."""

BUNDLE_DIGEST = "bundle_digest"
"""Parameter of a gateway's answers, and of a model's configuration: which bundle it is."""

KEY_PREFIX = "triton-grpc-protocol-"
"""How Triton calls its keys in metadata."""
_UNLIMITED = 2**31 - 1


class ConnectionOptions(TypedDict, total=False):
    """What may stand beside an address, see `Connection`."""

    ca: str | Path | None
    cert: str | Path | None
    key: str | Path | None
    server_name: str | None
    token: str | None
    admin_key: str | None
    keepalive_s: float


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where a server is and how to talk to it.

    Attributes:
        host: name or address; `unix:PATH`: a UNIX socket on this machine.
        port: gRPC port.
        tls: encrypt (`grpcs://`).
        ca: PEM file of the authorities to trust; None: the system's.
        cert: PEM file of the client's certificate, where the server asks for one.
        key: PEM file of the client certificate's key.
        server_name: the name that the server's certificate is for, where it is not `host`.
        token: the server's token, if it was started with one.
        admin_key: the server's admin key, to load and unload models.
        keepalive_s: seconds between pings on a quiet connection with work under way. Servers close
            connections that ping too often: Triton by default, below 300 (`giqa serve`: below 5).
    """

    host: str
    port: int = DEFAULT_PORT
    tls: bool = False
    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None
    token: str | None = field(default=None, repr=False)
    admin_key: str | None = field(default=None, repr=False)
    keepalive_s: float = 330.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        checks.instance("host", self.host, str)
        checks.instance("tls", self.tls, bool)
        for name in ("ca", "cert", "key"):
            checks.instance(name, getattr(self, name), str, Path, type(None))
        for name in ("server_name", "token", "admin_key"):
            text = getattr(self, name)
            checks.instance(name, text, str, type(None))
            if text is not None and not (text.isascii() and text.isprintable() and text):
                raise UsageError("is empty, or not printable ASCII", item=name)
        if (self.cert is None) != (self.key is None):
            raise UsageError("a certificate and its key go together", item="cert, key")
        checks.whole("port", self.port, 1, 65535)
        checks.number("keepalive_s", self.keepalive_s, 0, above=True)

    @classmethod
    def of(cls, url: str | Connection, **options: Unpack[ConnectionOptions]) -> Connection:
        """Parse `grpc://HOST[:PORT]` or, with TLS, `grpcs://HOST[:PORT]`.

        Args:
            url: the address, or a connection, which is given back.
            **options: other attributes.

        Returns:
            The connection.

        Raises:
            UsageError: not such an address, no such option, or options beside a connection, which
                says all of them itself.
        """
        if unknown := set(options) - ConnectionOptions.__optional_keys__:
            raise UsageError("is no option of a connection", item=sorted(unknown)[0], remedy="")
        if isinstance(url, Connection):
            if given := [name for name, value in options.items() if value is not None]:
                raise UsageError("stands in the connection", item=given[0], remedy="give one")
            return url
        checks.instance("url", url, str)
        try:
            parts = urlsplit(url)
            port = parts.port or DEFAULT_PORT
        except ValueError as e:
            raise UsageError(str(e), item=url) from e
        wrong = parts.path not in ("", "/") or parts.query or parts.username
        if parts.scheme not in ("grpc", "grpcs") or not parts.hostname or wrong:
            raise UsageError("is not grpc://HOST:PORT or grpcs://HOST:PORT", item=url, remedy="")
        return cls(host=parts.hostname, port=port, tls=parts.scheme == "grpcs", **options)

    @property
    def target(self) -> str:
        """Host and port, as gRPC wants them."""
        if self.host.startswith("unix:"):
            return self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as users write it."""
        if self.host.startswith("unix:"):
            return self.host
        return f"grpc{'s' if self.tls else ''}://{self.target}"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Sent with every request."""
        keys = ((TOKEN_KEY, self.token), (ADMIN_KEY, self.admin_key))
        return tuple((KEY_PREFIX + name, value) for name, value in keys if value is not None)

    def channel_options(self) -> list[tuple[str, int | str]]:
        """Arguments of the gRPC channel."""
        name = self.server_name
        return [
            *([("grpc.ssl_target_name_override", name)] if name else ()),
            ("grpc.max_send_message_length", _UNLIMITED),
            ("grpc.max_receive_message_length", _UNLIMITED),
            ("grpc.keepalive_time_ms", int(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", 10_000),
            # A server that comes back is found within a second, not after minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 200 if self.host.startswith("unix:") else 1000),
            # Channels of one process to one server would share a connection and its fate.
            ("grpc.use_local_subchannel_pool", 1),
        ]

    def channel(self, *, aio: bool = False) -> Any:
        """Open a gRPC channel.

        Args:
            aio: for asyncio.

        Raises:
            MissingExtraError: grpcio is not installed.
            UsageError: a PEM file cannot be read; or this process was forked from one that used
                gRPC.
        """
        forks.use_runtime(forks.GRPC)
        grpc = import_grpc()
        module = grpc.aio if aio else grpc
        if not self.tls:
            return forks.keep(module.insecure_channel(self.target, self.channel_options()))
        credentials = grpc.ssl_channel_credentials(
            _read(self.ca), _read(self.key), _read(self.cert)
        )
        channel = module.secure_channel(self.target, credentials, self.channel_options())
        return forks.keep(channel)


def import_grpc() -> Any:
    """The module `grpc`.

    Raises:
        MissingExtraError: it is not installed.
    """
    with importing("grpcio", "client"):
        import grpc
        import grpc.aio
    return grpc


def service_stub(channel: Any) -> Any:
    """The KServe v2 service on a channel: tritonclient's own stub.

    Raises:
        MissingExtraError: tritonclient is not installed.
    """
    with importing("tritonclient", "client"):
        from tritonclient.grpc import service_pb2_grpc
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def _read(path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as e:
        raise UsageError(f"cannot be read: {e.strerror}", item=str(path)) from e
    if b"-----BEGIN " not in content:  # gRPC would fail to connect, and say why on stderr alone
        raise UsageError("is no PEM file", item=str(path), remedy="")
    return content
