"""One line of JSON for each request; files are rotated, a full disk costs lines only."""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from datetime import UTC, datetime
from logging import INFO, Formatter, LogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,128}")


class RequestLog:
    """Writes what was asked, by whom, how it ended, and how long it took.

    Args:
        file: the file; None: nothing is written.
        max_bytes: its largest size; then it becomes `FILE.1`, and so on.
        files: how many old ones are kept.
    """

    def __init__(self, file: Path | None, max_bytes: int = 64 * 2**20, files: int = 4) -> None:
        self._handler: RotatingFileHandler | None = None
        if file is not None:
            self._handler = _Quiet(file, maxBytes=max_bytes, backupCount=files, delay=True)
            self._handler.setFormatter(Formatter("%(message)s"))

    def write(
        self,
        *,
        request_id: str,
        client: str,
        way: str,
        model: str,
        code: str,
        started: float,
        size: int,
    ) -> None:
        """Add a line.

        Args:
            request_id: the client's, or one that was drawn.
            client: the token's name.
            way: `grpc` or `http`.
            model: the ensemble.
            code: `ok` or the error's code.
            started: when it came, by the monotonic clock.
            size: bytes of the request.
        """
        if self._handler is None:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": request_id,
            "client": client,
            "way": way,
            "model": model,
            "code": code,
            "ms": round((time.monotonic() - started) * 1000, 1),
            "bytes": size,
        }
        record = LogRecord("giqa", INFO, "", 0, json.dumps(line), None, None)
        self._handler.handle(record)

    def close(self) -> None:
        """Close the file."""
        if self._handler is not None:
            with contextlib.suppress(OSError):
                self._handler.close()


class _Quiet(RotatingFileHandler):
    def handleError(self, record: LogRecord) -> None:  # noqa: N802 (logging's name)
        """A line is lost; the next one opens the file again."""
        with contextlib.suppress(OSError, ValueError):
            if self.stream is not None:
                self.stream.close()
        self.stream = None


def request_id_of(given: str) -> str:
    """What a request is called in logs: the client's word if it is one, else a new one."""
    return given if _NAME.fullmatch(given) else uuid.uuid4().hex
