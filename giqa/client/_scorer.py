"""What both scorers of a server share: arguments, what they say of themselves, processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Unpack, get_args

from giqa import checks
from giqa.bundle import Bundle, load_bundle
from giqa.client._flow import Flow
from giqa.client._link import Link
from giqa.client._retry import Retry
from giqa.kserve import Connection, ConnectionOptions
from giqa.manifest import Manifest
from giqa.types import Limits

Transport = Literal["unary", "stream"]


class ServerScorer:
    """Arguments as in `TritonScorer`; whoever inherits connects."""

    def __init__(
        self,
        url: str | Connection,
        *,
        bundle: str | Path | Bundle | None = None,
        in_flight: int = 16,
        batch: int = 1,
        deadline_s: float = 30.0,
        retry: Retry | None = None,
        transport: Transport = "unary",
        shared_memory: bool = False,
        limits: Limits | None = None,
        **connection: Unpack[ConnectionOptions],
    ) -> None:
        connected = Connection.of(url, **connection)
        self._set(
            connected, bundle, in_flight, batch, deadline_s, retry, transport, shared_memory, limits
        )
        self._begin()

    def _set(
        self,
        connection: Connection,
        bundle: str | Path | Bundle | None,
        in_flight: int,
        batch: int,
        deadline_s: float,
        retry: Retry | None,
        transport: Transport,
        shared_memory: bool,
        limits: Limits | None,
    ) -> None:
        self._in_flight = checks.whole("in_flight", in_flight, 1, 1024)
        self._batch = checks.whole("batch", batch)
        checks.number("deadline_s", deadline_s, 0, 1e6, above=True)
        checks.one_of("transport", transport, get_args(Transport))
        checks.instance("retry", retry, Retry, type(None))
        checks.instance("limits", limits, Limits, type(None))
        checks.instance("shared_memory", shared_memory, bool)
        self._connection = connection
        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self._flow = Flow(loaded, limits or Limits(), self._connection.url)
        folder, limits = str(loaded.folder.resolve()), self._flow.limits
        self._made = (
            *(connection, folder, in_flight, batch, deadline_s, retry, transport, shared_memory),
            limits,
        )
        self._link = Link(
            self._connection,
            self._flow,
            in_flight=in_flight,
            deadline_s=deadline_s,
            retry=retry or Retry(),
            streamed=transport == "stream",
            shared_memory=shared_memory,
        )

    def _begin(self) -> None:
        """What comes after the arguments."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Where it is unpickled, a scorer is made with the same arguments, not connected yet.

        What fails while a worker unpickles its task ends or hangs the pool.
        """
        return _unpickled, (type(self), self._made)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle that scores."""
        return self._flow.manifest

    @property
    def engine(self) -> str:
        """Runtime and precision of the server, such as `openvino-bf16`; empty until it is known."""
        return self._flow.engine


def _unpickled(kind: type[ServerScorer], made: tuple[Any, ...]) -> ServerScorer:
    scorer = kind.__new__(kind)
    scorer._set(*made)
    return scorer
