"""Videos and batch runs: what they take beyond decoding and inference, which they cannot avoid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from benchmarks import clips, rows, runs
from benchmarks.demo import photos
from benchmarks.images import mixed, write
from benchmarks.options import Options
from benchmarks.passes import PEAK_MEMORY, THROUGHPUT
from benchmarks.record import Facts, Series
from benchmarks.rounds import interleave
from giqa import batch
from giqa.local import LocalScorer
from giqa.video import Sampling, read_frames, score_video

_GOPS = (30, 50, 250)
"""A keyframe in 1.2 s, in 2 s as streaming services cut, and where x264 puts it by itself."""
_WORKERS = 2
_DURATION = "duration"


def run(options: Options) -> Iterator[Series]:
    """Measure everything, section by section.

    Raises:
        MissingExtraError: PyAV or Ray is not installed.
        RuntimeError: a batch run failed.
    """
    with TemporaryDirectory(prefix="giqa-video-") as name:
        folder = Path(name)
        with LocalScorer(options.bundle, threads=options.threads) as scorer:
            yield from _overlap(scorer, folder, options)
            yield from _keyframes(scorer, folder, options)
        yield from _workers(folder, options)
        yield from _one_video(folder, options)
        yield from _growth(folder, options)
        yield from _rows(options)


def _overlap(scorer: LocalScorer, folder: Path, options: Options) -> Iterator[Series]:
    """Scoring every frame, next to the larger of decoding alone and inference alone."""
    count = 24 if options.quick else 10 * clips.RATE
    clip = clips.write(folder / "clip.mp4", count, _GOPS[0], options.seed)
    with read_frames(clip) as frames:
        views = [frame.views(scorer.manifest) for frame in frames]

    def infer() -> None:
        for _ in scorer.score_views(views):
            pass

    found = _interleaved(
        {
            "decoding alone": partial(clips.decode, clip),
            "inference alone": infer,
            "score_video": partial(score_video, clip, scorer),
        },
        options,
    )
    decoding, inference = found["decoding alone"], found["inference alone"]
    larger = "larger of the two"
    found[larger] = [max(pair) for pair in zip(decoding, inference, strict=True)]
    facts: Facts = {"frames": count, "size": f"{clips.WIDTH}x{clips.HEIGHT}"}
    for name, seconds in found.items():
        against = (larger,) if name == "score_video" else ()
        yield _durations(name, seconds, against, facts)


def _keyframes(scorer: LocalScorer, folder: Path, options: Options) -> Iterator[Series]:
    """Keyframes alone, next to decoding all frames, and next to the least that FFmpeg needs."""
    for gop in _GOPS:
        count = gop + 10 if options.quick else max(20 * clips.RATE, 2 * gop)
        clip = clips.write(folder / f"gop-{gop}.mp4", count, gop, options.seed)
        sampling = Sampling(keyframes=True)

        def read(clip: Path = clip, sampling: Sampling = sampling) -> None:
            with read_frames(clip, sampling) as frames:
                for _ in frames:
                    pass

        work: dict[str, Callable[[], object]] = {
            "every frame": partial(clips.decode, clip),
            "keyframes": read,
            "keyframes, PyAV alone": partial(clips.decode, clip, keyframes=True),
            "scoring keyframes": partial(score_video, clip, scorer, sampling=sampling),
        }
        found = _interleaved({f"GOP {gop}, {what}": f for what, f in work.items()}, options)
        facts: Facts = {"frames": count, "size": f"{clips.WIDTH}x{clips.HEIGHT}"}
        whole, *others = found
        yield _durations(whole, found[whole], (), facts)
        for name in others:
            yield _durations(name, found[name], (whole,), facts)


def _workers(folder: Path, options: Options) -> Iterator[Series]:
    """Ray with two workers next to two plain processes: one thread each, the same images."""
    shards, size = (6, 4) if options.quick else (24, 16)
    source = folder / "images"
    source.mkdir()
    images = write(mixed(options, shards * size), source)
    halves = [folder / f"half-{i}.txt" for i in range(_WORKERS)]
    for i, half in enumerate(halves):
        half.write_text("\n".join(map(str, images[i::_WORKERS])) + "\n", encoding="utf-8")
    common = ["--threads", "1", "--shard-size", str(size)]
    if options.bundle is not None:
        common += ["--bundle", options.bundle]

    def ray() -> runs.BatchRun:
        with TemporaryDirectory(dir=folder) as out:
            extra = ["--executor", "ray", "--workers", str(_WORKERS)]
            return runs.run([[source, "--out", out, *common, *extra]], [Path(out)])

    def plain() -> runs.BatchRun:
        with TemporaryDirectory(dir=folder) as out:
            outs = [Path(out) / half.stem for half in halves]
            pairs = zip(halves, outs, strict=True)
            return runs.run([[half, "--out", out, *common] for half, out in pairs], outs)

    processes = "two processes"
    found = interleave(
        {processes: plain, "Ray, two workers": ray},
        rounds=min(options.rounds, 3),
        seed=options.seed,
        warmup=0,
    )
    for name, done in found.items():
        against = () if name == processes else (processes,)
        facts: Facts = {"images": len(images), "threads each": 1}
        yield _durations(name, [one.seconds for one in done], against, facts)
        yield Series(
            name=f"{name}/{THROUGHPUT}",
            unit="images/s",
            better="higher",
            values=tuple(one.rate for one in done),
            against=tuple(f"{other}/{THROUGHPUT}" for other in against),
            facts=facts,
        )


def _one_video(folder: Path, options: Options) -> Iterator[Series]:
    """One long video by one and by two of Ray's workers of a thread each, stretch by stretch."""
    stretches = 6 if options.quick else 18
    clip = clips.write(folder / "long.mp4", 2 * stretches * clips.RATE, clips.RATE, options.seed)

    def score(workers: int) -> float:
        with TemporaryDirectory(dir=folder) as out:
            batch.run(
                clip,
                out,
                scoring=batch.Scoring(every=2, chunk_s=2.0),
                runtime=batch.Runtime(
                    bundle=options.bundle, executor="ray", workers=workers, threads=1
                ),
                shard_size=1,
            )
            return runs.rate(list(Path(out).glob("shards/[!.]*.parquet")))

    one, two = "one video, one worker", "one video, two workers"
    found = interleave(
        {one: partial(score, 1), two: partial(score, _WORKERS)},
        rounds=min(options.rounds, 2),
        seed=options.seed,
        warmup=0,
    )
    for name, rates in found.items():
        yield Series(
            name=f"{name}/{THROUGHPUT}",
            unit="frames/s",
            better="higher",
            values=tuple(rates),
            against=() if name == one else (f"{one}/{THROUGHPUT}",),
            facts={"stretches": stretches, "threads each": 1},
        )


def _growth(folder: Path, options: Options) -> Iterator[Series]:
    """Memory of a run over many tiny items, read from a list.

    In full a million rows, of which one in 500 is a picture and the others are refused by their
    first bytes: a million pictures would take hours and show nothing else.
    """
    count, every = (1_000_000, 500) if options.full else (96 if options.quick else 2000, 1)
    picture, other = folder / "tiny.jpg", folder / "tiny.bin"
    Image.fromarray(photos()["coffee"]).resize((16, 16)).save(picture)
    other.write_text("no picture", encoding="utf-8")
    listing = folder / "many.txt"
    with listing.open("w", encoding="utf-8") as f:
        for i in range(count):
            f.write(f"{picture if i % every == 0 else other}\n")
    out = folder / "many"
    size = max(8, count // 1000)
    command = [listing, "--out", out, "--shard-size", size, "--threads", options.threads]
    if options.bundle:
        command += ["--bundle", options.bundle]
    found = runs.watch(list(map(str, command)), out)
    facts: Facts = {"rows": found.rows, "pictures": len(range(0, count, every))}
    yield Series(
        name=f"batch run/{PEAK_MEMORY}",
        unit="MB",
        better="lower",
        values=(found.peak_mb,),
        facts=facts,
    )
    yield Series(
        name="batch run/memory slope",
        unit="MB/1,000 rows",
        better="neither",
        values=(found.slope,),
        facts=facts,
    )


def _rows(options: Options) -> Iterator[Series]:
    """What planning, running and verifying cost themselves, over a scorer that costs nothing."""
    for count in (1000,) if options.quick else (10_000, 100_000, *[1_000_000] * options.full):
        found = rows.measure(count)
        for what in ("plan", "run", "verify"):
            yield Series(
                name=f"{count} rows, {what}/CPU time",
                unit="us/row",
                better="lower",
                values=(1e6 * getattr(found, f"{what}_s") / count,),
                facts={"rows": count},
            )
        yield Series(
            name=f"{count} rows/{PEAK_MEMORY}",
            unit="MB",
            better="lower",
            values=(found.peak_mb,),
            facts={"rows": count},
        )


def _interleaved(
    contenders: dict[str, Callable[[], object]], options: Options
) -> dict[str, list[float]]:
    """Seconds of each, round by round."""

    def timed(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return interleave(
        {name: partial(timed, work) for name, work in contenders.items()},
        rounds=options.rounds,
        seed=options.seed,
    )


def _durations(name: str, seconds: Sequence[float], against: Sequence[str], facts: Facts) -> Series:
    return Series(
        name=f"{name}/{_DURATION}",
        unit="s",
        better="lower",
        values=tuple(seconds),
        against=tuple(f"{other}/{_DURATION}" for other in against),
        facts=facts,
    )
