"""Results as Markdown: the generated part of this folder's README."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.record import RESULTS, Record, Series, load
from benchmarks.suites import SUITES
from giqa.cli.common import printable
from giqa.errors import UsageError

README = Path(__file__).parent / "README.md"
MARKERS = ("<!-- results:begin -->", "<!-- results:end -->")
NOTHING = "No results are committed yet."


def records(folder: Path = RESULTS) -> list[Record]:
    """Read all results, in the order of the suites.

    Raises:
        TableInvalidError: a file is no record.
    """
    order = list(SUITES)
    found = [load(path) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda r: order.index(r.suite) if r.suite in order else len(order))


def with_results(text: str, found: Sequence[Record], pictures: Path = RESULTS) -> str:
    """Put results between their markers.

    Args:
        text: of the README.
        found: the records.
        pictures: folder of the plots, below the README's.

    Returns:
        The text with the part replaced.

    Raises:
        UsageError: the markers are not there, once each and in order.
    """
    begin, end = MARKERS
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    if text.count(begin) != 1 or text.count(end) != 1 or end not in rest:
        raise UsageError(f"wants {begin} and {end}, once each", item="README.md")
    body = "\n\n".join(_section(one, pictures) for one in found) or NOTHING
    return f"{head}{begin}\n\n{body}\n\n{end}{tail}"


def _section(found: Record, pictures: Path) -> str:
    machine = ", ".join(f"{k} {v}" for k, v in found.machine.items())
    options = ", ".join(f"{k} {v}" for k, v in found.options.items() if v not in (None, False))
    lines = [
        f"## {found.suite}",
        "",
        f"{SUITES.get(found.suite, found.suite).capitalize()}.",
        "",
        f"{found.date[:10]}, `{found.bundle}`, {options}, seed {found.seed}. {machine}.",
        "",
    ]
    if (picture := pictures / f"{found.suite}.svg").exists():
        lines += [f"![{found.suite}]({pictures.name}/{picture.name})", ""]
    for table in tables(found):
        lines += [*table, ""]
    return "\n".join(lines).rstrip()


def tables(found: Record) -> Iterator[list[str]]:
    """Make tables of a record: subjects down, metrics across, those with the same metrics together.

    A cell is the median with least and most of the rounds; a ratio is how many times as good it
    was as what stands in the table's note, in bold where that is a loss beyond the noise.

    Args:
        found: the record.

    Yields:
        The lines of a Markdown table, with the note behind it.
    """
    rows: dict[str, list[Series]] = {}
    for one in found.series:
        rows.setdefault(one.subject, []).append(one)
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for subject, cells in rows.items():
        groups.setdefault(tuple((c.metric, c.unit) for c in cells), []).append(subject)
    for columns, subjects in groups.items():
        head = ["", *(f"{metric} ({unit})" if unit else metric for metric, unit in columns)]
        body = [[_cell(s), *(_value(found, one) for one in rows[s])] for s in subjects]
        lines = [_line(cells) for cells in (head, ["---"] * len(head), *body)]
        against = {
            one.against[0].partition("/")[0] for s in subjects for one in rows[s][:1] if one.against
        }
        if against:
            lines += ["", f"x: times as good as {_cell(', '.join(sorted(against)))}."]
        yield lines


def _value(found: Record, one: Series) -> str:
    text = number(one.median)
    if len(one.values) > 1:
        text += f" ({number(min(one.values))} .. {number(max(one.values))})"
    for ratio in found.comparisons:
        if ratio.series == one.name and ratio.against == one.against[0]:
            times = f"x{ratio.ratio:.2f}"
            text += f" **{times}**" if ratio.high < 1 else f" {times}"
    return text


def number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    digits = 2 if abs(value) < 10 else 1
    return f"{value:.{digits}f}" if abs(value) >= 0.1 else f"{value:.2g}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")
