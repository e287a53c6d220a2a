"""A board as one Markdown table: a line a measure, a column a row of the board."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from giqa.results import printable
from training.board.results import Board, Measure, Row, Value


def markdown(board: Board) -> str:
    """Render a board.

    Args:
        board: the board.

    Returns:
        Markdown: one table, and what of it was not measured.
    """
    lines = [
        f"`{board.model}`, `{board.engine}`. Correlations and shares with 95 % intervals "
        f"(bootstrap, {board.resamples} resamples); shares in %, moves and scores in points.",
        "",
        *_table(["set", "measure", "n", *(row.name for row in board.rows)], _lines(board)),
        "",
    ]
    for row in board.rows:
        lines.append(f"- {row.name}: {_cell(row.how) or '-'}")
    lines += [f"- {_cell(text)}" for text in _absent(board)]
    return "\n".join(lines) + "\n"


def _lines(board: Board) -> Iterator[list[str]]:
    before = ""
    for measure in board.measures:
        if measure.detail:
            continue
        found = [row.values.get(measure.key) for row in board.rows]
        counts = [value.n for value in found if value is not None]
        yield [
            measure.set if measure.set != before else "",
            _cell(measure.name),
            str(max(counts)),
            *(_value(measure, value) for value in found),
        ]
        before = measure.set


def _value(measure: Measure, value: Value | None) -> str:
    if value is None:
        return "-"
    if value.value is None:
        return "undefined"
    if measure.unit == "points":
        return f"{value.value:.1f}"
    scale, digits = (100, 1) if measure.unit == "share" else (1, 3)
    text = f"{scale * value.value:.{digits}f}"
    if value.interval is None:
        return text
    low, high = (f"{scale * end:.{digits}f}" for end in value.interval)
    return f"{text} ({low} .. {high})"


def _absent(board: Board) -> Iterator[str]:
    """What was not measured, and why; alike reasons in one line."""
    for why in dict.fromkeys(board.unmeasured.values()):
        names = [name for name, text in board.unmeasured.items() if text == why]
        yield f"not measured: {', '.join(names)}: {why}"
    reasons: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for row in board.rows:
        for why in dict.fromkeys(row.absent.values()):
            sets = tuple(name for name, text in row.absent.items() if text == why)
            reasons.setdefault((why, sets), []).append(row.name)
    for (why, sets), rows in reasons.items():
        yield f"not measured: {', '.join(rows)} on {_some(sets, board)}: {why}"


def _some(sets: Sequence[str], board: Board) -> str:
    return "all sets" if len(sets) == len(board.sets) else ", ".join(sets)


def for_card(text: str | bytes) -> str:
    """A board of the format `giqa.board/1` as Markdown, less what was not measured."""
    board = Board.model_validate_json(text)
    rows = [row.model_copy(update={"absent": {}}) for row in rows_of(board)]
    return markdown(board.model_copy(update={"rows": rows, "unmeasured": {}}))


def rows_of(board: Board) -> list[Row]:
    """Rows with any figure."""
    return [row for row in board.rows if row.values]


def _table(head: Sequence[str], rows: Iterator[list[str]]) -> list[str]:
    rule = ["---"] * len(head)
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")
