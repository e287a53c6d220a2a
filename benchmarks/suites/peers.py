"""Other scorers in one run with `giqa`: the same images, the same number of threads, in turn.

Each is used as its own interface has it: one image at a time, but for `giqa`, which takes a stream
of them and is measured both ways; on images of mixed sizes as they are, and on images of 448 pixels
a side, since some look at native pixels and some at a fixed size. Architectures of pyiqa have
random weights: only what they cost is looked at. What others call their score is compared with
people's where there are labels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
from PIL import Image

from benchmarks.images import mixed, sized, write
from benchmarks.options import Options
from benchmarks.passes import LATENCIES, PEAK_MEMORY, Pass, series, without_missing
from benchmarks.peers.process import OURS, PEERS, Answer, Peer
from benchmarks.record import Series
from benchmarks.rounds import interleave
from giqa.errors import TableInvalidError
from training.data.checks import check_columns
from training.data.table import read_csv
from training.metrics import bootstrap_interval, srocc

T = TypeVar("T")

_TRAINED = {OURS: 1, "brisque": -1, "pypiqe": -1}
"""Those that come with weights, and the direction of their scores."""
_MOST_ROUNDS = 3
SIDE = 448
"""Width and height of the second kind of images, in pixels."""
_LEAST_IMAGES = 30
_MOST_S = 60.0
"""Unless so few take longer than this."""
_LONG_S = 20.0
"""What takes longer for an image is measured once, before the rounds."""
_SINGLE = f"{OURS}, one at a time"


def run(options: Options) -> Iterator[Series]:
    """Measure all competitors.

    Raises:
        UsageError: their environment is not there.
        WorkerFailedError: one of them fails.
    """
    with TemporaryDirectory(prefix="giqa-peers-") as folder, ExitStack() as stack:
        count = 8 if options.quick else 64
        native = write(mixed(options, count), _made(Path(folder) / "native"))
        native.sort(key=_pixels)
        squares = write(sized(options, SIDE, SIDE, count), _made(Path(folder) / "squares"))
        peers = {
            name: stack.enter_context(Peer(name, options.threads, bundle=options.bundle))
            for name in (OURS, *PEERS)
        }
        for kind, images in (("", native), (f", {SIDE} px", squares)):
            yield from _speed(peers, images, kind, options)
        if options.labels is not None:
            yield from _agreement({n: peers[n] for n in _TRAINED}, options.labels)


def _speed(
    peers: dict[str, Peer], images: Sequence[Path], kind: str, options: Options
) -> Iterator[Series]:
    """All competitors on some images, which are in order of size.

    Args:
        peers: by name.
        images: files.
        kind: what subjects' names end with.
        options: of the run.
    """
    passes: dict[str, Callable[[], Answer]] = {
        name: _timed(peer, images, 0.5 if options.quick else 3.0) for name, peer in peers.items()
    }
    passes[_SINGLE] = passes[OURS]
    passes[OURS] = partial(peers[OURS], images)
    passes[OURS]()
    # Each has scored already: nothing else warms up. Some take a pass's time for one image.
    rounds = min(options.rounds, _MOST_ROUNDS)
    found = interleave(passes, rounds=rounds, seed=options.seed, warmup=0)
    speeds: list[Series] = []
    for name, answers in found.items():
        runs = [a.run for a in answers]
        speeds += _beside(name, kind, series(f"{name}{kind}", runs, facts=_facts(name, runs)))
        if name in peers and not kind:
            speeds.append(_memory(name, answers))
    yield from without_missing(speeds)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _timed(peer: Peer, images: Sequence[Path], seconds: float) -> Callable[[], Answer]:
    """A pass of about so many seconds: some need as long for one image as others for fifty."""
    middle = images[len(images) // 2 :][:1]
    first = peer(middle, single=True)
    if first.run.seconds > _LONG_S:
        return lambda: first
    # The first call of all is slower than any other.
    one = peer(middle, single=True).run.seconds
    least = min(_LEAST_IMAGES, int(_MOST_S / one))
    count = min(max(1, least, round(seconds / one)), len(images))
    return partial(peer, evenly(images, count), single=True)


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Take some from all over, so that few images are no smaller on average than all of them.

    Args:
        items: in order of size.
        count: how many are taken; at most as many as there are.

    Returns:
        Those, in order.
    """
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def _beside(name: str, kind: str, found: Iterator[Series]) -> Iterator[Series]:
    """Compare with `giqa`: its stream where that has the metric, and one image at a time."""
    others = {_SINGLE: (OURS,), OURS: ()}.get(name, (OURS, _SINGLE))
    for one in found:
        known = others if one.metric not in LATENCIES else [o for o in others if o != OURS]
        yield one.model_copy(update={"against": tuple(f"{o}{kind}/{one.metric}" for o in known)})


def _facts(name: str, runs: Sequence[Pass]) -> dict[str, str | int | float | bool | None]:
    trained = name in (*_TRAINED, _SINGLE)
    return {
        "images": runs[0].images,
        "weights": "its own" if trained else "random: speed only",
        "rounds": 1 if all(run is runs[0] for run in runs) else len(runs),
    }


def _memory(name: str, answers: Sequence[Answer]) -> Series:
    return Series(
        name=f"{name}/{PEAK_MEMORY}",
        unit="MB",
        better="lower",
        values=(answers[-1].peak_mb,),
        facts={"of": "its whole process"},
    )


def _agreement(peers: dict[str, Peer], labels: Path) -> Iterator[Series]:
    """SROCC with people's scores."""
    paths, mos, split = read_labels(labels)
    for name, peer in peers.items():
        scores = _TRAINED[name] * np.array(peer(paths).scores)
        low, high = bootstrap_interval(srocc, scores, mos)
        yield Series(
            name=f"{name}/SROCC",
            unit="",
            better="higher",
            values=(float(srocc(scores, mos)),),
            facts={
                "images": len(mos),
                "split": split,
                "low": round(low, 4),
                "high": round(high, 4),
            },
        )


def read_labels(table: Path) -> tuple[list[Path], list[float], str]:
    """Read images and their opinion scores.

    Args:
        table: CSV with `path`, relative to the table's folder, or `image`, a name in the folder
            `images` beside it; and `mos`, higher is better, on any scale. Where it has `split`,
            rows of `test` alone are read: epochs and calibrations are chosen on validation.

    Returns:
        Files, as many scores, and the split, or that the table names none.

    Raises:
        FileNotFoundError: no such table.
        TableInvalidError: it is no CSV file, or lacks a column or rows.
    """
    rows = read_csv(table, ("mos",))
    split = "not named" if not rows or "split" not in rows[0] else "test"
    if split == "test":
        rows = [row for row in rows if row["split"] == split]
    if not rows:
        raise TableInvalidError("no rows", item=str(table))
    column, folder = ("image", "images") if "image" in rows[0] else ("path", ".")
    check_columns(table, list(rows[0]), (column,))
    return (
        [table.parent / folder / str(row[column]) for row in rows],
        [float(str(row["mos"])) for row in rows],
        split,
    )


def _pixels(path: Path) -> int:
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        return picture.width * picture.height
