"""`giqa video`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from giqa.cli._common import Tally, output, stdin
from giqa.cli._options import (
    TIME,
    Finite,
    GroupedCommand,
    limit_options,
    limits_of,
    open_scorer,
    option,
    scorer_options,
)
from giqa.cli._video_table import cells_of, heads_of, line
from giqa.errors import CorruptError, GiqaError, UsageError
from giqa.files import Output, check_apart

if TYPE_CHECKING:
    from giqa.report import WorstFrames
    from giqa.scorer import Scorer
    from giqa.video import Comparison, Sampling, VideoResult, VideoRun


_IN, _POOL, _OUT = option("Frames"), option("What is found"), option("Outputs")
_ABOVE_0 = Finite(0, min_open=True)


@click.command(cls=GroupedCommand)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@_IN("--fps", type=float, metavar="N", help="Score the frames on screen N times a second.")
@_IN("--every", type=int, metavar="N", help="Score every Nth frame.")
@_IN("--keyframes", is_flag=True, help="Score keyframes; others are not decoded.")
@_IN("--start", type=float, metavar="S", help="Begin at S seconds.")
@_IN("--end", type=float, metavar="S", help="End before S seconds.")
@_IN("--rate", type=_ABOVE_0, default=25.0, metavar="N", help="Numbered pictures a second.")
@_POOL(
    "--pool",
    default="mean,harmonic_mean,min,p5",
    metavar="NAMES",
    help="What is printed, of mean, harmonic_mean, min, p1, p5, p95.",
)
@_POOL("--window", type=TIME, default=1.0, metavar="S", help="Length of the worst window.")
@_POOL("--scenes/--no-scenes", default=True, help="Find cuts.")
@_POOL(
    "--compare",
    is_flag=True,
    help="Compare renditions of one clip with the first of them; exit 4 if one is worse.",
)
@_POOL(
    "--margin",
    type=Finite(0, max_open=True),
    default=0.5,
    metavar="X",
    help="With --compare: differences below X points are noise.",
)
@_OUT("--json", metavar="F", help="Write all of it as JSON; - is stdout.")
@_OUT("--csv", metavar="F", help="Write a row a frame as CSV; - is stdout.")
@_OUT("--parquet", metavar="F", help="Write a row a frame as Parquet.")
@_OUT(
    "--scenes-csv",
    metavar="F",
    help="Write a row a scene (what lies between two cuts, a shot) as CSV; - is stdout.",
)
@_OUT(
    "--vmaf",
    metavar="F",
    help="Write scores of frames as libvmaf's JSON log; a folder for several videos.",
)
@_OUT("--srt", metavar="F", help="Write scores as subtitles; a folder for several videos.")
@_OUT(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="F.html",
    help="Write a page of charts and worst frames.",
)
@_OUT("--fail-below", type=Finite(), metavar="X", help="Exit 4 if the first of --pool is below X.")
@scorer_options
@limit_options(
    file="Largest file.",
    pixels="Most pixels of a frame.",
    frames="Most frames scored of a video.",
)
def video(
    files: tuple[str, ...],
    pool: str,
    window: float,
    scenes: bool,
    srt: str | None,
    vmaf: str | None,
    scenes_csv: str | None,
    compare: bool,
    margin: float,
    rate: float,
    report: Path | None,
    fail_below: float | None,
    **options: Any,
) -> None:
    """Score the frames of videos and pool them: one row per video, in order.

    A FILE is a file, a URI, - for a pipe, or numbered pictures (frames/%06d.png).

    The table (path, status, what --pool names, frames, worst window, its score, error code) goes
    to stdout, tab-separated if that is not a terminal.

    \b
    Examples:
      giqa video clip.mp4
      giqa video --fps 2 --json scores.json --fail-below 40 *.mp4
      giqa video --keyframes --csv frames.csv --srt clip.srt clip.mkv
      giqa video --fps 5 --report clip.html clip.mp4
      giqa video --compare --report ladder.html source.mp4 high.mp4 low.mp4
      giqa video 'frames/%06d.png' --rate 24
      ffmpeg ... -f matroska - | giqa video -
    """  # noqa: D301 (click's \b keeps the lines)
    from giqa.video import VIDEO_FORMATS, VideoLimits, VideoRun

    names = _pools(pool)
    heads = heads_of(names)
    if compare and len(files) < 2:
        raise UsageError("needs two videos or more", item="--compare")
    subtitles = _targets(srt, files, "srt", "--srt")
    logs = _targets(vmaf, files, "json", "--vmaf")
    sampling, limits = _sampling(options), limits_of(options, VideoLimits)
    results = []
    tally = Tally(fail_below)
    to_stdout = _to_stdout(options)
    kinds = [kind for kind in VIDEO_FORMATS if options[kind] is not None]
    outputs = {kind: output(options[kind]) for kind in kinds}
    single = [Path(name) for name in (report, scenes_csv) if name is not None]
    others = [*subtitles.values(), *logs.values(), *single]
    check_apart([*outputs.values(), *map(output, others)], files)
    with ExitStack() as stack:
        scorer = stack.enter_context(open_scorer(options))
        if compare:  # its document is of all videos together
            outputs.pop("json", None)
        writers = _writers(stack, outputs, scorer)
        page = None
        if report is not None and not compare:
            from giqa.report import VideoReport

            page = stack.enter_context(VideoReport(report))
        if to_stdout is None and sys.stdout.isatty() and (head := line(heads, heads)):
            print(head)
        for name in files:
            worst = None if page is None else _worst()
            run = VideoRun(
                stdin() if name == "-" else name,
                scorer,
                name=name,
                rate=rate,
                sampling=sampling,
                limits=limits,
                scenes=scenes or scenes_csv is not None,
                window_s=window,
                on_frame=worst,
            )
            try:
                _iterate(run, sampling)
            finally:  # what an interruption leaves is written, too
                result = run.result()
                results.append(result)
                for writer in writers:
                    writer.write(result)
                if page is not None:
                    page.write(result, worst)
                _write_others(result, subtitles.get(name), logs.get(name))
                if to_stdout is None:
                    print(line(cells_of(result, names), heads), flush=sys.stdout.isatty())
            if result.error is not None:
                click.echo(f"giqa: {result.error}", err=True)
            pooled = None if result.pooled is None else result.pooled[names[0]]
            tally.add(_failure(result), pooled, tell=False)
    comparison = None
    if compare:
        from giqa.cli._compare import finish

        comparison = finish(results, margin, options["json"], report, to_stdout is None)
        verdicts = [one.whole.verdict for one in comparison.renditions if one.whole]
        tally.add_worse(verdicts.count("worse"), files[0])
    if scenes_csv is not None:
        _write_scenes(scenes_csv, results, comparison)
    sys.stdout.flush()
    tally.finish("could not be scored to the end")


def _failure(result: VideoResult) -> GiqaError | None:
    """Why a video is not wholly scored; None if it is."""
    if result.status == "ok":
        return None
    errors = (result.error, *(frame.error for frame in result.frames))
    found = next((error for error in errors if error is not None), None)
    return found or CorruptError("parts of it are damaged", item=result.path)


def _worst() -> WorstFrames:
    from giqa.report import WorstFrames

    return WorstFrames()


def _write_others(result: VideoResult, srt: Path | None, vmaf: Path | None) -> None:
    from giqa.video import write_srt, write_vmaf

    if srt is not None:
        write_srt(srt, result)
    if vmaf is not None:
        write_vmaf(vmaf, result)


def _write_scenes(name: str, results: list[VideoResult], comparison: Comparison | None) -> None:
    from giqa.video import SceneWriter

    with output(name) as file:
        writer = SceneWriter(file.open())
        for i, result in enumerate(results):
            writer.write(result, comparison.renditions[i].scenes if comparison else ())


def _sampling(options: dict[str, Any]) -> Sampling:
    from giqa.video import Sampling

    return Sampling(
        fps=options["fps"],
        every=options["every"],
        keyframes=options["keyframes"],
        start_s=options["start"],
        end_s=options["end"],
    )


def _pools(names: str) -> list[str]:
    from giqa.video import POOLS

    found = [name.strip() for name in names.split(",")]
    if unknown := [name for name in found if name not in POOLS]:
        raise UsageError(f"{unknown[0]!r} is none of {', '.join(POOLS)}", item="--pool")
    return found


def _targets(
    target: str | None, files: tuple[str, ...], suffix: str, option: str
) -> dict[str, Path]:
    """Where each video's own file goes."""
    if target is None:
        return {}
    place = Path(target)
    if place.is_dir():
        found = {name: place / f"{Path(name).name}.{suffix}" for name in files}
        if len({*found.values()}) < len({*files}):
            raise UsageError("two videos have the same name", item=option)
        return found
    if len(files) > 1:
        raise UsageError("several videos need a folder", item=option)
    return {files[0]: place}


def _to_stdout(options: dict[str, Any]) -> str | None:
    """The format that takes stdout; None leaves it to the table."""
    from giqa.video import VIDEO_FORMATS

    found = [kind for kind in VIDEO_FORMATS if options[kind] == "-"]
    if len(found) > 1 or "parquet" in found:
        raise UsageError("stdout takes one of json, csv", item=f"--{found[-1]} -")
    return found[0] if found else None


def _writers(stack: ExitStack, outputs: dict[Any, Output], scorer: Scorer) -> list[Any]:
    from giqa.video import open_video_writer

    about = {"bundle": scorer.manifest.id, "engine": scorer.engine}
    opened = (open_video_writer(file, kind, **about) for kind, file in outputs.items())
    return [stack.enter_context(one) for one in opened]


def _iterate(run: VideoRun, sampling: Sampling) -> None:
    """Score, with a bar in seconds of video on stderr if that is a terminal."""
    start = sampling.start_s or 0.0
    with tqdm(
        desc=Path(run.path).name,
        unit="s",
        disable=not sys.stderr.isatty(),
        file=sys.stderr,
        mininterval=0.5,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s, {remaining} left",
        total=1.0,
    ) as bar:
        for row in run:
            bar.total = max(min(run.duration_s or row.pts_s, sampling.end_s or 1e9) - start, 0.001)
            bar.update(max(row.pts_s - start - bar.n, 0))
