"""`giqa batch report`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def report(folder: Path, out: Path | None, against: Path | None, as_json: bool) -> None:
    """Tell of a whole run: how scores are distributed, what failed, how far it is from another run.

    \b
    Examples:
      giqa batch report scores --out report.html
      giqa batch report scores --against last-week --json
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
    for result in results:
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
    if apart is not None:
        ends = "" if apart.low is None else f" ({apart.low:+.2f} to {apart.high:+.2f})"
        click.echo(
            f"{folder}: {apart.both} in both runs, {apart.mean:+.2f}{ends} points, "
            f"largest {apart.largest:.2f}, {100 * apart.over_one:.1f} % over 1"
        )
