"""What a suite found: the JSON format `giqa.benchmark/1`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from statistics import median
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchmarks.machine import machine
from benchmarks.noise import Better, paired_ratio
from benchmarks.options import Options
from benchmarks.rounds import TimeUp
from giqa import __version__
from giqa.bundle import load_bundle
from giqa.errors import TableInvalidError
from giqa.files import write

SCHEMA = "giqa.benchmark/1"
RESULTS = Path(__file__).parent / "results"

Scalar = str | int | float | bool | None
Facts = dict[str, Scalar | list[Scalar]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Series(_Strict):
    """One thing measured once a round."""

    name: str = Field(
        pattern=r"^[^/]+/[^/]+$",
        description="`subject/metric`, such as `giqa bf16/throughput`: a table's row and column",
    )
    unit: str = Field(description="such as `images/s`, `ms`, `MB`, `%`; empty for pure numbers")
    better: Better
    values: tuple[float, ...] = Field(min_length=1, description="one per counted round")
    against: tuple[str, ...] = Field(
        default=(),
        description="names of series with the same unit, measured in the same rounds: gives a "
        "comparison each, and the first is what later runs are compared by",
    )
    facts: Facts = Field(default={}, description="what belongs to it: batch, threads, shapes")

    @property
    def subject(self) -> str:
        """What was measured."""
        return self.name.partition("/")[0]

    @property
    def metric(self) -> str:
        """What of it."""
        return self.name.partition("/")[2]

    @property
    def median(self) -> float:
        """Of the rounds."""
        return float(median(self.values))


class Comparison(_Strict):
    """How many times as good a series is as another: median of the rounds' ratios, above 1 better.

    The interval is a 95 % percentile bootstrap over rounds.
    """

    series: str
    against: str
    ratio: float
    low: float
    high: float


class Record(_Strict):
    """One suite, run once."""

    schema_: Literal[SCHEMA] = Field(default=SCHEMA, alias="schema")  # type: ignore[valid-type]
    suite: str
    date: str = Field(description="UTC, ISO 8601")
    version: str = Field(description="of giqa")
    bundle: str = Field(description="name and version")
    machine: Facts
    options: Facts
    seed: int
    unfinished: str = Field(default="", description="why the suite ended early; empty: it did not")
    series: list[Series]
    comparisons: list[Comparison]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = Counter(one.name for one in self.series)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"measured twice: {', '.join(twice)}")
        pairs = [(one.name, other) for one in self.series for other in one.against]
        if pairs != [(one.series, one.against) for one in self.comparisons]:
            raise ValueError("comparisons are not those that the series ask for")
        for name, other in pairs:
            one, two = self.get(name), self.get(other)
            if (one.unit, one.better) != (two.unit, two.better):
                raise ValueError(f"{name} and {other} have different units")
        return self

    def get(self, name: str) -> Series:
        """The series of that name.

        Raises:
            ValueError: there is none.
        """
        for one in self.series:
            if one.name == name:
                return one
        raise ValueError(f"no series {name}")


def record(
    suite: str,
    series: Iterable[Series],
    options: Options,
    keep: Callable[[Record], object] | None = None,
) -> Record:
    """Make a record of what a suite yielded, with the comparisons that its series ask for.

    Args:
        suite: its name.
        series: what was measured.
        options: of the run.
        keep: is given a record of what there is so far after each series.

    Returns:
        The record; if the suite raised `TimeUp`, of what it had yielded until then.

    Raises:
        ValueError: a name twice, a series against one that is missing, of another unit or length,
            or with values of 0 and below.
    """
    facts: Facts = dict(machine())  # before the suite runs: it would find its own load
    found: list[Series] = []
    try:
        for one in series:
            found.append(one)
            if keep is not None:
                keep(_made(suite, _alone(found), options, facts, "it did not come to its end"))
    except TimeUp as e:
        return _made(suite, _alone(found), options, facts, str(e))
    return _made(suite, found, options, facts)


def _alone(found: Iterable[Series]) -> list[Series]:
    """Without comparisons with what is missing."""
    found = list(found)
    there = {one.name for one in found}
    return [
        one.model_copy(update={"against": tuple(n for n in one.against if n in there)})
        for one in found
    ]


def _made(
    suite: str, series: list[Series], options: Options, facts: Facts, unfinished: str = ""
) -> Record:
    by_name = {one.name: one for one in series}
    comparisons = []
    for one in series:
        for name in one.against:
            if name not in by_name:
                raise ValueError(f"{one.name} is measured against {name}, which is missing")
            other = by_name[name]
            ratio = paired_ratio(one.values, other.values, one.better, seed=options.seed)
            comparisons.append(
                Comparison(
                    series=one.name,
                    against=name,
                    ratio=ratio.median,
                    low=ratio.low,
                    high=ratio.high,
                )
            )
    return Record(
        suite=suite,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        bundle=_bundle_id(options.bundle),
        machine=facts,
        options=dict(options.facts()),
        seed=options.seed,
        unfinished=unfinished,
        series=series,
        comparisons=comparisons,
    )


@cache
def _bundle_id(bundle: str | None) -> str:
    return load_bundle(bundle).manifest.id


def save(found: Record, folder: Path = RESULTS) -> Path:
    """Write a record as `SUITE.json`; an older one is replaced.

    Raises:
        StorageFullError: no space is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found.suite}.json"
    text = json.dumps(found.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False)
    write(path, f"{text}\n".encode())
    return path


def load(path: Path) -> Record:
    """Read a record.

    Raises:
        TableInvalidError: it is not one, or says what cannot be.
    """
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise TableInvalidError(
            f"not {SCHEMA}: {where}: {first['msg']}", item=str(path), remedy="run the suite again"
        ) from e


def number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    digits = 2 if abs(value) < 10 else 1
    return f"{value:.{digits}f}" if abs(value) >= 0.1 else f"{value:.2g}"
