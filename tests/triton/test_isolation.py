"""Many clients, bad images among good ones, on the real server; and that the test can fail."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from giqa import ImageResult, LocalScorer, TritonScorer
from giqa.bundle import Bundle
from giqa.contract import PREPROCESS
from giqa.serving import Server
from giqa.serving._python_processes import stub_processes
from giqa.types import Item
from tests.makers import BAD, jpeg, png
from tests.triton.conftest import options, serving

CLIENTS = 64
SECONDS = float(os.environ.get("GIQA_SOAK_SECONDS", "15"))
"""The published run takes 60."""

DAMAGED = bytearray(png(300, 200))
DAMAGED[len(DAMAGED) // 2 : len(DAMAGED) // 2 + 200] = bytes(200)


@pytest.fixture(scope="module")
def files() -> list[Item]:
    """90 good images, and 10 bad ones: what a header shows and what only decoding does."""
    good = [Item(f"good-{i}", data=jpeg(160 + 4 * i, 500 - 3 * i, seed=i)) for i in range(90)]
    kinds = [make() for name, (make, _) in BAD.items() if "frames" not in name][:5]
    bad = [*kinds, *[bytes(DAMAGED)] * 5]
    mixed: list[Item] = []
    for i, data in enumerate(bad):
        mixed += [*good[9 * i : 9 * i + 9], Item(f"bad-{i}", data=data)]
    return mixed


@pytest.fixture(scope="module")
def clean(local: LocalScorer, files: list[Item]) -> dict[str, float | str]:
    return {r.path: outcome(r) for r in local.score(files)}


def outcome(result: ImageResult) -> float | str:
    if result.error is not None:
        return result.error.code
    assert result.score is not None
    return result.score


def memory(pid: int) -> int:
    """Bytes of the server and its models, shared pages counted once."""
    total = 0
    for process in (pid, *(p for p, _ in stub_processes(pid))):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def soak(
    server: Server, files: list[Item], seconds: float
) -> tuple[list[list[str]], list[list[tuple[str, float | str]]]]:
    """Each client sends the files again and again, from another start.

    Returns:
        What each client sent, and the rows that it got.
    """
    sent: list[list[str]] = [[] for _ in range(CLIENTS)]
    rows: list[list[tuple[str, float | str]]] = [[] for _ in range(CLIENTS)]
    end = time.monotonic() + seconds

    def source(n: int) -> Iterator[Item]:
        for i in range(10**9):
            if time.monotonic() > end:
                return
            item = files[(i + 7 * n) % len(files)]
            sent[n].append(item.name)
            yield item

    def client(n: int) -> None:
        with TritonScorer(server.connection.url, in_flight=1, deadline_s=60) as scorer:
            for result in scorer.score(source(n)):
                rows[n].append((result.path, outcome(result)))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 120)
        assert not thread.is_alive()
    return sent, rows


@pytest.mark.slow
def test_64_clients_and_bad_images(
    bundle: Bundle, files: list[Item], clean: dict[str, float | str]
) -> None:
    assert sum(isinstance(found, str) for found in clean.values()) == 10
    with serving(bundle) as server:
        assert server.pid is not None
        soak(server, files, 25)  # decoders grow until they have met every size and error
        before = memory(server.pid)
        sent, rows = soak(server, files, SECONDS)
        after = memory(server.pid)
    for asked, got in zip(sent, rows, strict=True):
        assert [name for name, _ in got] == asked  # one row an input, in order
        assert got == [(name, clean[name]) for name in asked]
    count = sum(map(len, rows))
    print(f"{count} rows, memory {before / 2**20:.0f} -> {after / 2**20:.0f} MiB")
    assert count > CLIENTS
    assert after < 1.05 * before


MODEL = '''
from giqa.decode import Decoder, Preprocessor
from giqa.errors import CorruptError
from giqa.serving import PreprocessModel as TritonPythonModel

def all_or_nothing(self, images, boxes=None, tiles=None, run=Preprocessor.__call__):
    """As DALI does it: one bad image, and the batch is lost."""
    found = run(self, images, boxes, tiles)
    failed = [r for r in found if isinstance(r, Exception)]
    return [CorruptError("cannot be decoded") for _ in found] if failed else found

Preprocessor.__call__ = all_or_nothing
Decoder._by_pillow = lambda *args: (_ for _ in ()).throw(CorruptError("no"))
'''


@pytest.mark.slow
def test_without_isolation_good_images_are_lost(
    bundle: Bundle,
    files: list[Item],
    clean: dict[str, float | str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check above can fail: a preprocess model that loses batches is found out."""
    import giqa.serving._server as module

    render = module.render_repository

    def poisoned(*args: object) -> dict[str, bytes]:
        return render(*args) | {f"{PREPROCESS}/1/model.py": MODEL.encode()}

    monkeypatch.setattr(module, "render_repository", poisoned)
    with serving(bundle, options(bundle)) as server:
        sent, rows = soak(server, files, 5)
    wrong = [name for got in rows for name, found in got if found != clean[name]]
    assert [n for n in wrong if n.startswith("good")]
    assert [[name for name, _ in got] for got in rows] == sent
