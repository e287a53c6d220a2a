"""`giqa batch report`."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from giqa.files import storage, write

if TYPE_CHECKING:
    from giqa.batch import Results, RunResult

_SIDE = 512
"""Width or height of thumbnails, whichever is larger."""
_FOLDER = click.Path(file_okay=False, exists=True, path_type=Path)


@click.command()
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="F.html",
    help="Write a page: distribution, worst and best, failures, drift.",
)
@click.option("--against", type=_FOLDER, metavar="DIR", help="Compare with another run.")
@click.option(
    "--thumbnails",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the worst frame of each video's worst window as a JPEG file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def report(
    folder: Path,
    out: Path | None,
    against: Path | None,
    thumbnails: Path | None,
    as_json: bool,
) -> None:
    """Tell of a whole run: how scores are distributed, what failed, how far it is from another run.

    \b
    Examples:
      giqa batch report scores --out report.html
      giqa batch report scores --against last-week --json
      giqa batch report scores --thumbnails worst
    """  # noqa: D301 (click's \b keeps the lines)
    from giqa.batch import Results, drift
    from giqa.report import ImageReport, Spread

    results = Results(folder)
    plan = results.plan
    apart = None if against is None else drift(folder, against)
    page = None
    if out is not None:
        page = ImageReport(
            out,
            bundle=plan.bundle,
            engine=plan.scored_by,
            profile=plan.scoring.profile,
            sources=plan.sources.inputs,
            pictures=results.picture,
            drift=apart,
        )
    spread, codes = Spread(), Counter[str]()
    written: list[dict[str, str]] = []
    if thumbnails is not None:
        with storage(thumbnails):
            thumbnails.mkdir(parents=True, exist_ok=True)
    for result in results:
        if thumbnails is not None and result.worst_s is not None:
            written.append({"path": result.path, "file": _thumbnail(results, result, thumbnails)})
        if result.score is not None:
            spread.add(result.score)
        elif result.error is not None:
            codes[result.error.code] += 1
        if page is not None:
            page.write(result)
    if page is not None:
        page.close()
    about = {
        "folder": str(folder),
        "scored": spread.count,
        "mean": spread.mean if spread.count else None,
        "median": spread.quantile(0.5) if spread.count else None,
        "p5": spread.quantile(0.05) if spread.count else None,
        "bands": dict(spread.bands),
        "failed": dict(codes.most_common()),
        "gone": plan.gone,
        "passed": plan.passed,
        "thumbnails": written,
        "drift": None if apart is None else asdict(apart),
    }
    if as_json:
        click.echo(json.dumps(about, indent=1))
        return
    if spread.count:
        click.echo(
            f"{folder}: {spread.count} scored, mean {spread.mean:.1f}, "
            f"median {spread.quantile(0.5):.1f}, worst 5 % below {spread.quantile(0.05):.1f}"
        )
    for code, count in codes.most_common():
        click.echo(f"{folder}: {count} {code}")
    if thumbnails is not None:
        lost = sum(not one["file"] for one in written)
        click.echo(
            f"{thumbnails}: {len(written) - lost} thumbnails"
            + (f", {lost} videos are gone" if lost else "")
        )
    if apart is not None:
        ends = "" if apart.low is None else f" ({apart.low:+.2f} to {apart.high:+.2f})"
        click.echo(
            f"{folder}: {apart.both} in both runs, {apart.mean:+.2f}{ends} points, "
            f"largest {apart.largest:.2f}, {100 * apart.over_one:.1f} % over 1"
        )


def _thumbnail(results: Results, result: RunResult, folder: Path) -> str:
    """Write a video's worst frame; the file's name, empty if the video cannot be read any more."""
    picture = results.picture(result)
    if picture is None or result.unit is None:
        return ""
    picture.thumbnail((_SIDE, _SIDE))
    stem = re.sub(r"[^\w.-]+", "_", result.path.rpartition("/")[2], flags=re.ASCII)[:80]
    name = f"{result.unit.input:06d}-{stem}-{result.worst_s:.3f}s.jpg"
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    write(folder / name, buffer.getvalue())
    return name
