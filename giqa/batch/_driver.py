"""Ray's driver as a process of its own.

Ray ends a process whose cluster is gone: from C++, without an exception, its log on stdout. What
cannot be caught there is an error here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from giqa.errors import GiqaError, WorkerFailedError, all_errors

_PROGRAM = """
from giqa.batch._driver import main
from giqa.batch._ray import drive
main(drive)
"""
_CAUSES = re.compile(r"Failed to connect to GCS within \d+ seconds|Raylet is terminated")
_PATIENCE_S = 30
"""How long Ray may take to end what it started."""


def finished(folder: Path, numbers: Sequence[int], token: str | None) -> Iterator[int]:
    """Have another process score shards on Ray.

    Args:
        folder: the run's folder.
        numbers: which shards.
        token: the servers' token.

    Yields:
        Number of each shard that was written.

    Raises:
        WorkerFailedError: the process ended too early, as it does when the cluster's head dies.
        GiqaError: what it failed with.
    """
    task = {"folder": str(folder.absolute()), "numbers": list(numbers), "token": token}
    paths = os.pathsep.join(path for path in sys.path if path)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
            for line in process.stdout:
                answer = json.loads(line)
                if "number" in answer:
                    yield answer["number"]
                elif "code" in answer:
                    raise all_errors()[answer.pop("code")](answer.pop("message"), **answer)
                else:
                    return
        except BrokenPipeError:
            pass
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.communicate()
        said.seek(0)
        raise WorkerFailedError(f"Ray ended its driver: {_reason(said.read())}")


def _reason(said: bytes) -> str:
    """What Ray's last words are about, without where in its sources they stand."""
    text = said.decode(errors="replace")
    if cause := _CAUSES.search(text):
        return cause[0]
    lines = [line for line in text.splitlines() if line.strip() and "state-dump" not in line]
    return lines[-1].rsplit("]", 1)[-1].strip()[:300] if lines else "it said nothing"


def main(drive: Callable[[Path, Sequence[int], str | None], Iterable[int]]) -> None:
    """Be that process: the task comes on stdin, answers go to stdout, a line of JSON each."""
    task = json.loads(sys.stdin.readline())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def tell(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        for number in drive(Path(task["folder"]), task["numbers"], task["token"]):
            tell({"number": number})
    except GiqaError as e:
        tell({"code": e.code, "message": e.message, "item": e.item, "remedy": e.remedy})
    else:
        tell({})


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)
