"""What the commands share: exit codes, error printing, safe names on stdout."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from giqa.errors import GiqaError, ServerUnavailableError, UsageError

OK, FAILURE, USAGE, ITEMS_FAILED, BELOW, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


class Exit(Exception):  # noqa: N818
    """Ends the command with an exit code; output is complete."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@contextmanager
def errors_to_exit_codes() -> Iterator[None]:
    """Turn errors into one line on stderr and the documented exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
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
