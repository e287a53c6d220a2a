"""Results as Markdown: the generated part of this folder's README."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.questions import answers
from benchmarks.record import RESULTS, Record, Series, load, number
from benchmarks.suites import SUITES
from giqa.errors import UsageError
from giqa.results import printable

README = Path(__file__).parent / "README.md"
MARKERS = ("<!-- results:begin -->", "<!-- results:end -->")
QUESTIONS = ("<!-- questions:begin -->", "<!-- questions:end -->")
NOTHING = "No results are committed yet."


def records(folder: Path = RESULTS) -> list[Record]:
    """Read all results, in the order of the suites.

    Raises:
        TableInvalidError: a file is no record.
    """
    order = list(SUITES)
    found = [load(path) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda r: order.index(r.suite) if r.suite in order else len(order))


_FACTS: dict[str, tuple[str, ...]] = {"peers": ("images", "weights", "split")}
"""What of a suite's facts its tables show, before the metrics."""


def with_results(text: str, found: Sequence[Record], pictures: Path = RESULTS) -> str:
    """Put results, and what they answer, between their markers.

    Args:
        text: of the README.
        found: the records.
        pictures: folder of the plots, below the README's.

    Returns:
        The text with the parts replaced.

    Raises:
        UsageError: the markers are not there, once each and in order.
    """
    text = _between(QUESTIONS, text, "\n\n".join(answers(found, pictures)))
    return _between(MARKERS, text, "\n\n".join(_section(one, pictures) for one in found))


def _between(markers: tuple[str, str], text: str, body: str) -> str:
    begin, end = markers
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    if text.count(begin) != 1 or text.count(end) != 1 or end not in rest:
        raise UsageError(f"wants {begin} and {end}, once each", item="README.md")
    return f"{head}{begin}\n\n{body or NOTHING}\n\n{end}{tail}"


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
    if found.unfinished:
        lines += [f"**Not all of it: {found.unfinished}.**", ""]
    if (picture := pictures / f"{found.suite}.svg").exists():
        lines += [f"![{found.suite}]({pictures.name}/{picture.name})", ""]
    for table in tables(found):
        lines += [*table, ""]
    return "\n".join(lines).rstrip()


def tables(found: Record) -> Iterator[list[str]]:
    """Make tables of a record: subjects down, metrics across.

    Subjects share a table if their first series have the same metric and the same measure, which
    is the series that they ran in turn with. A cell is the median with least and most of the
    rounds, and how many times as good it was as the measure, in bold where that is a loss beyond
    the noise.

    Args:
        found: the record.

    Yields:
        The lines of a Markdown table, with the measure's name behind it.
    """
    measures = {one.against[0] for one in found.series if one.against}
    groups: dict[tuple[str, str, str], dict[str, list[Series]]] = {}
    keys: dict[str, tuple[str, str, str]] = {}
    for one in found.series:
        measure = one.against[0] if one.against else one.name if one.name in measures else ""
        key = keys.setdefault(one.subject, (one.metric, one.unit, measure.partition("/")[0]))
        groups.setdefault(key, {}).setdefault(one.subject, []).append(one)
    for (_metric, _unit, measure), rows in groups.items():
        columns = dict.fromkeys((s.metric, s.unit) for cells in rows.values() for s in cells)
        facts = [
            fact
            for fact in _FACTS.get(found.suite, ())
            if any(fact in one.facts for cells in rows.values() for one in cells)
        ]
        head = ["", *facts]
        head += [f"{metric} ({unit})" if unit else metric for metric, unit in columns]
        body = []
        for subject, cells in rows.items():
            values = {(one.metric, one.unit): _value(found, one) for one in cells}
            known = {key: str(value) for one in cells for key, value in one.facts.items()}
            shown = [_cell(known.get(fact, "")) for fact in facts]
            body.append([_cell(subject), *shown, *(values.get(column, "") for column in columns)])
        lines = [_line(cells) for cells in (head, ["---"] * len(head), *body)]
        yield [*lines, "", f"x: times as good as {_cell(measure)}."] if measure else lines


def _value(found: Record, one: Series) -> str:
    text = number(one.median)
    if len(one.values) > 1:
        text += f" ({number(min(one.values))} .. {number(max(one.values))})"
    for ratio in found.comparisons:
        if ratio.series == one.name and ratio.against == one.against[0]:
            times = in_words(ratio.ratio, one.unit)
            text += f" **{times}**" if ratio.high < 1 else f" {times}"
    return text


def in_words(ratio: float, unit: str) -> str:
    """How many times as good: `x1.50`, or `2.3 times slower`, since x0.43 is hard to read."""
    if round(ratio, 2) >= 1 or ratio <= 0:
        return f"x{ratio:.2f}"
    worse = {"MB": "as much", "MiB": "as much", "%": "less", "": "worse"}
    return f"{number(1 / ratio)} times {worse.get(unit, 'slower')}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")
