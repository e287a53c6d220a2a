"""Progress: a bar on a terminal, elsewhere a line a minute."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

from giqa.closing import Closing

EVERY = 60.0
"""Seconds between lines."""


class Progress(Closing):
    """Counts what is done, on stderr.

    Args:
        what: in words.
        total: how many there are.
        done: how many are done already.
        unit: of the count.
        quiet: show nothing.
    """

    def __init__(
        self, what: str, total: int, done: int = 0, *, unit: str = "", quiet: bool = False
    ) -> None:
        self._what, self._total, self._done, self._first = what, total, done, done
        self._unit, self._note, self._began = unit, "", time.monotonic()
        self._lines = not quiet and not sys.stderr.isatty()
        self._told = self._began
        self._bar: tqdm[Any] = tqdm(
            desc=what, total=total, initial=done, unit=unit or "it", disable=quiet or self._lines,
            file=sys.stderr, leave=False,
        )  # fmt: skip

    def update(self, count: int = 1, note: str = "") -> None:
        """So many more are done."""
        self._done, self._note = self._done + count, note or self._note
        if note:
            self._bar.set_postfix_str(note)
        self._bar.update(count)
        now = time.monotonic()
        if self._lines and now - self._told >= EVERY:
            self._told = now
            self.say(self._line(now))

    def say(self, line: str) -> None:
        """Write a line that stays."""
        self._bar.write(line, file=sys.stderr)
        sys.stderr.flush()

    def _line(self, now: float) -> str:
        each = (now - self._began) / max(1, self._done - self._first)
        left = each * (self._total - self._done) / 60
        parts = [f"{self._what}: {self._done} of {self._total} {self._unit}".rstrip()]
        parts += [f"{left:.0f} min left", self._note]
        return ", ".join(part for part in parts if part)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()
