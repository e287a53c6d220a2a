"""A new bundle without downtime: loaded beside the old one, asked, switched to, and back."""

from __future__ import annotations

import threading
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from giqa.errors import GiqaError, UsageError
from giqa.serving._gateway_options import Backend
from giqa.serving._gateway_process import GatewayProcess
from giqa.serving._metrics import WatchMetrics
from giqa.serving._server import Server
from giqa.serving._watch import Watch

_LOOK_S = 1.0


class _Bundle(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: str = Field(min_length=1)
    share: float = Field(1.0, gt=0, allow_inf_nan=False)


class _Plan(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    bundles: dict[str, _Bundle] = Field(min_length=1, max_length=4)


def read_plan(file: Path) -> dict[str, float]:
    """Read which bundles are served, and the share of the clients that each gets.

    Args:
        file: TOML with a table for each::

            [bundles.now]
            bundle = "giqa-s"
            share = 0.9

    Returns:
        Shares by the bundle's name or folder.

    Raises:
        UsageError: it is no such file.
    """
    try:
        found = _Plan.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as e:
        why = str(e).splitlines()[0]
        raise UsageError(f"names no bundles: {why}", item=str(file), remedy="") from e
    shares = {entry.bundle: entry.share for entry in found.bundles.values()}
    if len(shares) != len(found.bundles):
        raise UsageError("names a bundle twice", item=str(file), remedy="")
    return shares


@dataclass
class _Member:
    """A server of the rollout, watched in a thread of its own."""

    server: Server
    watch: Watch
    share: float
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def begin(self) -> None:
        self.thread = threading.Thread(target=self.watch.run, args=(self.stop,), daemon=True)
        self.thread.start()

    def end(self, *, drain: bool) -> None:
        self.stop.set()
        self.server.stopping.set()
        if self.thread is not None:
            self.thread.join()
        self.server.stopping.clear()
        self.server.stop(drain=drain)


class Rollout:
    """Keeps as many servers as a file names bundles, and tells the gateway of them.

    What cannot be started changes nothing: those that serve go on, and the file is tried again
    when it changes.

    Args:
        file: see `read_plan`.
        gateway: what clients reach.
        make: a server for a bundle, not started.
        watch: the watch of a server.
        say: takes lines for the log.

    Raises:
        UsageError: the file names no bundles.
    """

    def __init__(
        self,
        file: Path,
        *,
        gateway: GatewayProcess,
        make: Callable[[str], Server],
        watch: Callable[[Server], Watch],
        say: Callable[[str], None],
    ) -> None:
        self._file, self._gateway, self._make, self._watch = file, gateway, make, watch
        self._say = say
        self._members: dict[str, _Member] = {}
        self._text = ""
        self._plan = read_plan(file)
        self._starting: Server | None = None

    @property
    def metrics(self) -> WatchMetrics:
        """Of the server with the largest share."""
        return max(self._members.values(), key=lambda member: member.share).watch.metrics

    def start(self) -> float:
        """Start what the file names.

        Returns:
            The largest difference from a known answer.

        Raises:
            GiqaError: one of them does not start, or answers wrongly.
        """
        self._text = self._file.read_text(encoding="utf-8")
        return max(abs(self._add(bundle, share)) for bundle, share in self._plan.items())

    def backends(self) -> list[Backend]:
        """What the gateway is told."""
        return [
            Backend(
                target=member.server.options.grpc_socket,
                bundle=str(member.server.bundle.folder),
                share=member.share,
            )
            for member in self._members.values()
        ]

    def source(self) -> Path:
        """Triton's metrics of the server with the largest share."""
        largest = max(self._members.values(), key=lambda member: member.share)
        found = largest.server.options.metrics_socket
        assert found is not None
        return found

    def pids(self) -> set[int | None]:
        """Processes of the servers."""
        return {member.server.pid for member in self._members.values()}

    def hurry(self) -> None:
        """Wait for no canary and no start any more: all is to end."""
        for member in self._members.values():
            member.watch.metrics.stop()
            member.stop.set()
            member.server.stopping.set()
        if self._starting is not None:
            self._starting.stopping.set()

    def run(self, stop: threading.Event, tick: Callable[[], None]) -> None:
        """Follow the file until told to stop.

        Args:
            stop: ends it.
            tick: what else is to be looked after.
        """
        while not stop.wait(_LOOK_S):
            try:
                tick()
                text = self._file.read_text(encoding="utf-8")
                if text != self._text:
                    self._text = text
                    self._change(read_plan(self._file))
            except Exception as e:  # nothing but a signal ends a server
                self._say(f"the rollout stays as it is: {e}")

    def stop(self, *, drain: bool = True) -> None:
        """End all servers."""
        for member in self._members.values():
            member.end(drain=drain)
        self._members.clear()

    def _change(self, plan: dict[str, float]) -> None:
        new = [bundle for bundle in plan if bundle not in self._members]
        try:
            for bundle in new:
                self._say(f"loading {bundle} beside what is served")
                self._add(bundle, plan[bundle])
        except GiqaError:
            for bundle in new:
                if bundle in self._members:
                    self._members.pop(bundle).end(drain=False)
            raise
        for bundle, share in plan.items():
            self._members[bundle].share = share
        old = {b: self._members.pop(b) for b in [*self._members] if b not in plan}
        self._gateway.tell_backends(self.backends())
        self._say(f"serving {', '.join(f'{b} ({s:g})' for b, s in plan.items())}")
        for bundle, member in old.items():
            member.end(drain=True)  # what it has is finished
            self._say(f"{bundle} has ended")

    def _add(self, bundle: str, share: float) -> float:
        self._starting = server = self._make(bundle)
        try:
            server.start()
            watch = self._watch(server)
            difference = watch.known_answer()
        except BaseException:
            server.stop(drain=False)
            raise
        finally:
            self._starting = None
        member = self._members[bundle] = _Member(server, watch, share)
        member.begin()
        return difference
