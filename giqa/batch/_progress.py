"""How far a run is: for a callback, and for `status.json` in its folder."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from giqa.batch._folder import Folder
from giqa.batch._plan import Plan
from giqa.batch._units import Unit
from giqa.errors import GiqaError
from giqa.files import write

STATUS = "status.json"
SCHEMA = "giqa.batch.status/1"
State = Literal["running", "done", "interrupted", "failed"]
_EVERY_S = 0.5
_FILE_EVERY_S = 5.0


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        state: `running`, `done`, or how it ended before its time: `interrupted`, `failed`.
        done: images and frames of videos that are done, as far as the plan knows their number.
        total: how many there are.
        rows: rows that were made since the run was begun or resumed.
        failed: how many of them are errors.
        rate: rows a second since then; 0 before the first.
        eta_s: seconds until the end at this rate; None before the first row.
        error: code of what ended the run; empty unless it failed.
    """

    state: State
    done: int
    total: int
    rows: int = 0
    failed: int = 0
    rate: float = 0.0
    eta_s: float | None = None
    error: str = ""


OnProgress = Callable[[Progress], object]


class Meter:
    """Counts what is done.

    Args:
        folder: the run's folder.
        plan: its plan.
        tell: is told twice a second, and at the end.
    """

    def __init__(self, folder: Folder, plan: Plan, tell: OnProgress | None) -> None:
        self._path = folder.path / STATUS
        self._tell = tell
        self._now = Progress("running", 0, plan.weight)
        self._work = 0
        self._began = self._told = self._wrote = time.monotonic()

    def skip(self, units: tuple[Unit, ...]) -> None:
        """Count what an earlier run did."""
        weight = sum(unit.weight for unit in units)
        self._now = replace(self._now, done=self._now.done + weight)

    def unit(self, unit: Unit, rows: int, failed: int) -> None:
        """Count a unit that is scored."""
        now = self._now
        self._work += unit.weight
        seconds = max(time.monotonic() - self._began, 1e-9)
        left = max(now.total - now.done - unit.weight, 0)
        self._now = replace(
            now,
            done=min(now.done + unit.weight, now.total),
            rows=now.rows + rows,
            failed=now.failed + failed,
            rate=round((now.rows + rows) / seconds, 2),
            eta_s=round(left * seconds / self._work, 1),
        )
        self._say()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Say how it ends, whatever ends it."""
        self._say(at_once=True)
        try:
            yield
        except BaseException as e:
            state: State = "failed" if isinstance(e, Exception) else "interrupted"
            code = e.code if isinstance(e, GiqaError) else ""
            self._now = replace(self._now, state=state, error=code)
            self._say(at_once=True)
            raise
        self._now = replace(self._now, state="done", eta_s=0.0)
        self._say(at_once=True)

    def _say(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._wrote >= _FILE_EVERY_S:
            self._wrote = now
            about = {
                "schema": SCHEMA,
                **asdict(self._now),
                "updated": datetime.now(UTC).isoformat(timespec="seconds"),
                "process": os.getpid(),
                "host": socket.gethostname(),
            }
            with suppress(OSError, GiqaError):  # a full disk is told by what matters more
                write(self._path, json.dumps(about, indent=1).encode() + b"\n")
        if self._tell is not None and (at_once or now - self._told >= _EVERY_S):
            self._told = now
            self._tell(self._now)
