"""Whether a server that answers late works or hangs."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from giqa.contract import FUSION, GRAPHS, PREPROCESS, PREPROCESSES
from giqa.errors import GiqaError
from giqa.serving._python_processes import stub_processes
from giqa.serving._server import Server

_IDLE_S = 0.05
"""Less CPU time than this, of a model's processes, is no work: waiting takes none."""
_LOOK_S = 2.0
"""How long a model that seems to stand still is looked at once more."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class _Done:
    """What each model has done since it was loaded: batches, and CPU time in seconds."""

    batches: Mapping[str, int]
    cpu_s: Mapping[str, float]


class Progress:
    """Compares what a server's models have done with what they had when it was noted.

    A canary that is late waits for one of them. On a CPU that one works if it has finished
    batches or used CPU time: one picture may take longer than a canary waits, more so on a node
    without a CPU to spare. A graph that does neither, although it is given images, hangs. On a GPU
    there are batches alone, and a canary's own are no progress.

    Args:
        server: the server.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._noted = _Done({}, {})
        self._fused = time.monotonic()

    def note(self) -> None:
        """Remember what was done until now.

        Raises:
            GiqaError: the server does not say.
        """
        now = self._look()
        if now.batches.get(FUSION) != self._noted.batches.get(FUSION):
            self._fused = time.monotonic()
        self._noted = now

    def made(self, hang_s: float) -> bool:
        """Whether what a late canary waits for works.

        Args:
            hang_s: how long work counts that ends in no score.
        """
        if time.monotonic() - self._fused > hang_s:
            return False
        try:
            if self._works(self._noted, self._look()):
                return True
            if self._server.repository_options.device != "cpu":
                return False
            before = self._look()
            time.sleep(_LOOK_S)  # what it waits for may just have come
            return self._works(before, self._look())
        except GiqaError:
            return False

    def _works(self, before: _Done, now: _Done) -> bool:
        batches = {n: now.batches[n] - before.batches.get(n, 0) for n in now.batches}
        if self._server.repository_options.device != "cpu":
            return batches[FUSION] > 0 or batches[PREPROCESS] > 1
        moved = {
            n
            for n in batches
            if batches[n] or now.cpu_s.get(n, 0.0) - before.cpu_s.get(n, 0.0) > _IDLE_S
        }
        given = any(batches[n] for n in PREPROCESSES)
        return set(GRAPHS) <= moved if given else bool(moved)

    def _look(self) -> _Done:
        cpu: Counter[str] = Counter()
        pid = self._server.pid
        for stub, model in stub_processes(pid) if pid is not None else ():
            try:
                fields = Path(f"/proc/{stub}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            cpu[model] += int(fields[11]) + int(fields[12])
        return _Done(self._server.executed(), {n: ticks / _TICKS for n, ticks in cpu.items()})
