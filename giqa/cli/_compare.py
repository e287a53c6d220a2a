"""`giqa video --compare`: the table, the document and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from giqa.cli._common import output
from giqa.results import printable, utf8

if TYPE_CHECKING:
    from giqa.video import Comparison, VideoResult


def finish(
    results: list[VideoResult],
    margin: float,
    document: str | None,
    report: Path | None,
    table: bool,
) -> Comparison:
    """Compare videos that are scored, and write what was asked for.

    Args:
        results: the videos; the first is what the others are compared with.
        margin: see `giqa.video.compare`.
        document: where the JSON goes; `-` is stdout.
        report: where the page goes.
        table: print a line a video.

    Returns:
        The comparison.

    Raises:
        StorageFullError: no space is left.
        UnwritableError: a file cannot be written.
    """
    from giqa.video import compare

    comparison = compare(results, margin=margin)
    if table:
        for one in comparison.renditions[1:]:
            found = one.whole
            cells = ["-"] * 3 + ["no frames at the same times"]
            if found is not None:
                ends = (found.mean, found.low, found.high)
                cells = ["-" if x is None else f"{x:+.2f}" for x in ends] + [found.verdict]
            print("\t".join(["compared", printable(one.result.path), *cells]))
    if document is not None:
        with output(document) as file:
            text = json.dumps(comparison.to_json(), ensure_ascii=False, allow_nan=False, indent=1)
            file.open().write(utf8(text) + b"\n")
    if report is not None:
        from giqa.report import write_comparison

        write_comparison(report, comparison)
    return comparison
