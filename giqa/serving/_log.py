"""The log of a running tritonserver."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO


class ServerLog:
    """Passes a server's log on, and remembers the end of it.

    Args:
        say: takes its lines.
        file: the file that lines are added to; None: none.
    """

    def __init__(self, say: Callable[[str], None], file: Path | None) -> None:
        self._say, self._file = say, file
        self._tail: deque[str] = deque(maxlen=200)
        self._pump: threading.Thread | None = None

    def follow(self, stream: IO[bytes]) -> None:
        """Read a stream to its end, in a thread of its own."""
        self._pump = threading.Thread(
            target=self._read, args=(stream,), name="giqa-log", daemon=True
        )
        self._pump.start()

    def join(self, timeout_s: float) -> None:
        """Wait until all was read, but not for ever."""
        if self._pump is not None:
            self._pump.join(timeout_s)

    def reason(self) -> str:
        """Why the server ended: the last model that did not load, or error, or line."""
        self.join(2)
        errors = [line for line in self._tail if re.match(r"E\d{4} |error|Error", line)]
        errors = [line for line in errors if "failed to load" in line] or errors
        line = (errors or list(self._tail) or ["it said nothing"])[-1]
        return re.sub(r"^E\d{4} \S+\s+\d+ \S+\] ", "", line).strip()[:400]

    def _read(self, stream: IO[bytes]) -> None:
        """Pass the server's log on; a full disk costs lines, not the server."""
        file: IO[str] | None = None
        lost = 0
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip()
            self._tail.append(line)
            with contextlib.suppress(OSError):  # whoever listened is gone: the server goes on
                self._say(line)
            if self._file is None:
                continue
            try:
                file = file or self._file.open("a", encoding="utf-8")
                if lost:
                    file.write(f"({lost} lines lost)\n")
                file.write(line + "\n")
                file.flush()
                lost = 0
            except OSError as e:
                if not lost:
                    with contextlib.suppress(OSError):
                        self._say(f"{self._file}: {e.strerror}; lines are lost from here")
                lost += 1
                _close(file)
                file = None
        _close(file)


def _close(file: IO[str] | None) -> None:
    with contextlib.suppress(OSError):  # what was buffered is lost, and was counted
        if file is not None:
            file.close()
