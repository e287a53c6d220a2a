"""The ways to have images scored: in process, and through clients of a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.served.server import TIMEOUT_S
from giqa.client import TritonScorer
from giqa.local import LocalScorer
from giqa.scorer import Scorer
from giqa.serving import Server

IN_PROCESS = "in process"
ALONE = "in_flight 1"
_WAYS: dict[str, dict[str, Any]] = {
    **{f"in_flight {n}": {"in_flight": n} for n in (1, 4, 8, 16, 32)},
    "in_flight 16, stream": {"in_flight": 16, "transport": "stream"},
    "in_flight 16, shared memory": {"in_flight": 16, "shared_memory": True},
    "in_flight 16, batch 8": {"in_flight": 16, "batch": 8},
}
QUICK = (IN_PROCESS, ALONE, "in_flight 8", "in_flight 16, shared memory")


@contextmanager
def ways(
    local: LocalScorer, server: Server, names: Iterable[str] | None = None
) -> Iterator[dict[str, Scorer]]:
    """The ways to have images scored, by name: in process, and through clients of a server.

    Args:
        local: the engine in process.
        server: the server.
        names: which; all of them unless given.

    Yields:
        Scorers, open until the end.
    """
    with ExitStack() as stack:
        found: dict[str, Scorer] = {}
        for name in names or (IN_PROCESS, *_WAYS):
            if name == IN_PROCESS:
                found[name] = local
                continue
            client = TritonScorer(
                server.connection, bundle=server.bundle, deadline_s=TIMEOUT_S, **_WAYS[name]
            )
            found[name] = stack.enter_context(client)
        yield found


def score_all(scorer: Scorer, images: Sequence[bytes]) -> list[float]:
    """Score images.

    Args:
        scorer: in process or a server's client.
        images: encoded images.

    Returns:
        Their scores.

    Raises:
        RuntimeError: an image was not scored: what is measured is not what it seems.
    """
    found = []
    for result in scorer.score(images):
        if result.score is None:
            raise RuntimeError(f"not scored: {result.error}")
        found.append(result.score)
    return found
