"""What the commands share: streams, exit codes, errors and names in print."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

import click

from giqa.errors import (
    GiqaError,
    OutOfMemoryError,
    ServerUnavailableError,
    UnwritableError,
    UsageError,
)
from giqa.extras import is_out_of_memory
from giqa.files import Output

OK, FAILURE, USAGE, ITEMS_FAILED, BELOW, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
_TOLD = 3
"""Failures that are told one by one; more are counted by their codes."""


class Exit(Exception):  # noqa: N818
    """Ends the command with an exit code; output is complete."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Tally:
    """What failed and what is too low; at the end it says so, and which exit code that is.

    Args:
        fail_below: the least score that is good; None: any.
    """

    def __init__(self, fail_below: float | None = None) -> None:
        self._least = fail_below
        self._codes: Counter[str] = Counter()
        self._first: list[GiqaError] = []
        self._unreachable = self._below = 0
        self._worse = ""

    def add(self, error: GiqaError | None, score: float | None, *, tell: bool = True) -> None:
        """Count a row.

        Args:
            error: why there is no score, or not all of it.
            score: what is compared.
            tell: say this error at the end, if there are few; otherwise it was told before.
        """
        if error is not None:
            self._codes[error.code] += 1
            self._unreachable += isinstance(error, ServerUnavailableError)
            if tell and len(self._first) <= _TOLD:
                self._first.append(error)
        self._below += self._least is not None and score is not None and score < self._least

    def add_worse(self, count: int, than: str) -> None:
        """Count videos that are worse than the one they are compared with."""
        if count:
            self._worse = f"{count} worse than {than}"

    def finish(self, what: str = "could not be scored") -> None:
        """Say on stderr what failed, in any case.

        Raises:
            Exit: something did. Of several codes the first of 5, 4, 3.
        """
        failed = self._codes.total()
        if failed:
            if failed <= _TOLD:
                for error in self._first:
                    click.echo(f"giqa: {error}", err=True)
                codes = ""
            else:
                codes = ": " + ", ".join(f"{n} {code}" for code, n in self._codes.most_common())
            click.echo(f"giqa: {failed} {what}{codes}", err=True)
        if self._below:
            click.echo(f"giqa: {self._below} scored below {self._least}", err=True)
        if self._worse:
            click.echo(f"giqa: {self._worse}", err=True)
        below = self._below or bool(self._worse)
        ordered = ((UNREACHABLE, self._unreachable), (BELOW, below), (ITEMS_FAILED, failed))
        for code, count in ordered:
            if count:
                raise Exit(code)


@contextmanager
def errors_to_exit_codes() -> Iterator[None]:
    """Turn errors into one line on stderr and the documented exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    _prepare_streams()
    try:
        yield
    except Exit as e:
        sys.exit(e.code)
    except click.ClickException as e:
        e.show()
        sys.exit(USAGE if isinstance(e, click.UsageError) else FAILURE)
    except (KeyboardInterrupt, click.Abort):
        click.echo("giqa: interrupted; what was done is written", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader went away: that is its right. Keep Python from complaining at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)
    except GiqaError as e:
        click.echo(f"giqa: {e}", err=True)
        codes = {UsageError: USAGE, ServerUnavailableError: UNREACHABLE}
        sys.exit(next((code for cls, code in codes.items() if isinstance(e, cls)), FAILURE))
    except OSError as e:
        where = f"{e.filename}: " if e.filename else ""
        click.echo(f"giqa: {where}{e.strerror or e}", err=True)
        sys.exit(FAILURE)
    except (MemoryError, RuntimeError) as e:
        if not is_out_of_memory(e):
            raise
        click.echo(f"giqa: {OutOfMemoryError(str(e) or 'no memory is left')}", err=True)
        sys.exit(FAILURE)


def _prepare_streams() -> None:
    """Streams that whoever started the process closed read and write nothing from now on.

    A file that is opened later must not get their descriptors. What a terminal cannot show is
    escaped.
    """
    for descriptor, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            setattr(sys, name, os.fdopen(descriptor, "r" if descriptor == 0 else "w"))
            _CLOSED.add(name)
        elif descriptor and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


_CLOSED: set[str] = set()


def stdin() -> IO[bytes]:
    """Standard input.

    Raises:
        UsageError: it is closed.
    """
    if "stdin" in _CLOSED:
        raise UsageError("stdin is closed", item="-", remedy="")
    return sys.stdin.buffer


def output(name: str | Path) -> Output:
    """What an option that names a file writes to; `-` is stdout.

    Raises:
        UnwritableError: nothing can be written there.
    """
    if str(name) != "-":
        return Output(name)
    if "stdout" in _CLOSED:
        raise UnwritableError("stdout is closed", item="-", remedy="")
    return Output(sys.stdout.buffer)


def leave(code: object) -> NoReturn:
    """End the process at once, after its exit handlers.

    Otherwise Python first frees compiled graphs and runtimes piece by piece, for .1 s.

    Args:
        code: as `sys.exit` takes it.
    """
    status = code if isinstance(code, int) else OK if code is None else FAILURE
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # None: closed by whoever started the process
                stream.flush()
        except (OSError, ValueError):
            status = status or FAILURE
    os._exit(status)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def read_secret(path: Path | None) -> str | None:
    """Read the word in a file; a secret in an option would stand in the list of processes.

    Raises:
        UsageError: not one word.
    """
    if path is None:
        return None
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError("holds no single word", item=str(path), remedy="")
    return text


def fitted(name: str, rest: int, most: int = 44) -> str:
    """A name as wide as the terminal leaves it: the end of a path is what tells files apart.

    Args:
        name: the name.
        rest: columns that the row needs beside it.
        most: columns that it gets at most.
    """
    width = max(12, min(most, shutil.get_terminal_size().columns - rest))
    short = name
    if columns(name) > width:
        short = name[-width:]
        while columns(short) > width - 3:
            short = short[1:]
        short = f"...{short}"
    return short + " " * (width - columns(short))


def columns(text: str) -> int:
    """Columns that a text takes on a terminal: two for East Asian characters, none for marks."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
