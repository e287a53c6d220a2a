"""The other end of `benchmarks.peers.worker`: starts a competitor and asks it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.passes import Pass
from giqa.closing import Closing
from giqa.errors import UsageError, WorkerFailedError

PEERS = ("topiq_nr", "musiq", "hyperiqa", "maniqa", "cnniqa", "dbcnn", "brisque", "pypiqe")
"""The competitors that live in an environment of their own."""
OURS = "giqa"

_ROOT = Path(__file__).parents[2]
ENVIRONMENT = _ROOT / ".venv-peers"
"""Where `make peers` puts it."""
_REMEDY = "`make peers` makes the competitors' environment anew"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Answer:
    """What a competitor made of some images.

    Attributes:
        run: how long it took.
        scores: its own numbers, in its own scale and direction.
        peak_mb: highest resident memory of its process until now.
    """

    run: Pass
    scores: tuple[float, ...]
    peak_mb: float


class Peer(Closing):
    """A competitor in a process of its own; it takes CPU time only while it is asked.

    Args:
        name: `giqa` or one of `PEERS`.
        threads: CPU threads it may use.
        environment: folder of the competitors' environment; `giqa` runs in this process's one.
        bundle: of `giqa`; None: the default.

    Raises:
        UsageError: the environment is not there.
        WorkerFailedError: the competitor cannot be made ready.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        environment: Path = ENVIRONMENT,
        bundle: str | None = None,
    ) -> None:
        self.name = name
        python = Path(sys.executable) if name == OURS else environment / "bin/python3"
        if not python.exists():
            raise UsageError(
                "the competitors' environment is not there",
                item=str(environment),
                remedy="`make peers` makes it",
            )
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [str(python), "-m", "benchmarks.peers.worker", name, str(threads), *_absolute(bundle)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            cwd=_ROOT,
            env=os.environ | dict.fromkeys(_THREADS, str(threads)) | {"PYTHONPATH": str(_ROOT)},
        )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def __call__(self, images: Sequence[Path], *, single: bool = False) -> Answer:
        """Score images.

        Args:
            images: files; read once, and not while the time is taken.
            single: one at a time, each timed.

        Returns:
            What it made of them.

        Raises:
            WorkerFailedError: it failed, or its process ended.
        """
        asked = {"images": [str(path.absolute()) for path in images], "single": single}
        try:
            self._stdin.write(json.dumps(asked) + "\n")
            self._stdin.flush()
        except OSError:
            pass  # it ended: the answer tells why
        found = self._answer()
        latencies = tuple(found["latencies"])
        run = Pass(len(images), found["seconds"], found["cpu_seconds"], latencies)
        return Answer(run, tuple(found["scores"]), found["peak_mb"])

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._said.close()

    @property
    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _stdout(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _answer(self) -> dict[str, Any]:
        line = self._stdout.readline()
        found: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in found:
            raise WorkerFailedError(found["error"], item=self.name, remedy=_REMEDY)
        return found

    def _last_words(self) -> str:
        self._process.wait(10)
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return lines[-1] if lines else f"it ended with status {self._process.returncode}"


def _absolute(bundle: str | None) -> list[str]:
    """A bundle's folder as the worker finds it, which runs elsewhere; names stay names."""
    if bundle is None:
        return []
    return [str(Path(bundle).resolve()) if Path(bundle).is_dir() else bundle]
