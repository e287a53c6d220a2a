"""An evaluation as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from giqa.results import printable
from training.evaluation.results import Agreement, DataSet, Evaluation, Interval

_COLUMNS = (
    "images",
    "n",
    "SROCC (95 %)",
    "PLCC (95 %)",
    "PLCC, logistic 4 / 5",
    "KRCC",
    "RMSE",
    "RMSE, logistic 4 / 5",
)


def markdown(found: Evaluation) -> str:
    """Render an evaluation.

    Args:
        found: the evaluation.

    Returns:
        Markdown: a table across data sets if there are several, then per data set its subsets
        and agreement against the number of views, as far as there are any.
    """
    lines = [
        f"`{found.bundle}`, `{found.engine}`, profile `{found.profile}`; RMSE in points of 100; "
        f"intervals: bootstrap, {found.resamples} resamples.",
        "",
    ]
    several = len(found.datasets) > 1
    if several:
        lines += ["## Data sets", "", *_across(found.datasets), ""]
    for one in found.datasets:
        lines += [f"## {_cell(one.name)}, {_cell(one.split)}", ""]
        if one.protocol:
            lines += [one.protocol, ""]
        if one.failed:
            lines += [f"{one.failed} of {len(one.rows)} images could not be scored.", ""]
        rows = [_row("all", one), *(_row(name, row) for name, row in one.subsets.items())]
        lines += [*_table(_COLUMNS, rows), ""]
        if one.views:
            head = ("views at most", "on average", *_COLUMNS[1:])
            cells = [
                [str(row.views), f"{row.mean:.2f}", *_row("", row.agreement)[1:]]
                for row in one.views
            ]
            lines += [*_table(head, cells), ""]
    return "\n".join(lines)


def _across(sets: Sequence[DataSet]) -> list[str]:
    head = ("data set", *_COLUMNS[1:], "failed")
    rows = [[*_row(f"{one.name}, {one.split}", one), str(one.failed)] for one in sets]
    # Never pooled: opinion scores of different studies are not on one scale.
    mean = ["mean", "", *(_mean(getattr(one, name) for one in sets) for name in ("srocc", "plcc"))]
    fits = [one.logistic4 for one in sets], [one.logistic5 for one in sets]
    logistic = [_mean(fit.plcc if fit else None for fit in part) for part in fits]
    rmse = [_mean((fit.rmse if fit else None for fit in part), 2) for part in fits]
    mean += [" / ".join(logistic), _mean(one.krcc for one in sets)]
    mean += [_mean((one.rmse for one in sets), 2), " / ".join(rmse), ""]
    return _table(head, [*rows, mean])


def _mean(values: Iterable[float | None], digits: int = 3) -> str:
    defined = list(values)
    known = [value for value in defined if value is not None]
    return _number(fmean(known) if len(known) == len(defined) else None, digits)


def _row(name: str, row: Agreement) -> list[str]:
    fits = (row.logistic4, row.logistic5)
    return [
        _cell(name),
        str(row.n),
        _number(row.srocc) + _interval(row.srocc_interval),
        _number(row.plcc) + _interval(row.plcc_interval),
        " / ".join(_number(None if fit is None else fit.plcc) for fit in fits),
        _number(row.krcc),
        _number(row.rmse, 2),
        " / ".join(_number(None if fit is None else fit.rmse, 2) for fit in fits),
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---"] * len(head)
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(ends: Interval | None) -> str:
    return "" if ends is None else f" ({ends[0]:.3f} .. {ends[1]:.3f})"
