"""Commands on a terminal of their own."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

from tests.tiled import small_bundle


def on_terminal(width: int, *arguments: object, stderr: bool = False) -> list[str]:
    """The lines that a command writes to a terminal of so many columns, on stdout or stderr."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, width, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "giqa", *map(str, arguments)]
    if arguments[0] in ("score", "video", "batch"):  # tables are looked at, not scores
        command += ["--bundle", str(small_bundle())]
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=subprocess.DEVNULL if stderr else theirs,
        stderr=theirs if stderr else subprocess.DEVNULL,
        env=env,
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 1 << 16):
                written += part
        except OSError:  # Linux's way to say that nobody writes any more
            pass
        assert process.wait(300) in (0, 3)
    os.close(ours)
    return written.decode().splitlines()
