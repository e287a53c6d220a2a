"""What a board found: the JSON format `giqa.board/1`."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from training.evaluation.results import Interval

SCHEMA = "giqa.board/1"

Unit = Literal["correlation", "share", "points"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Value(_Strict):
    """One figure."""

    value: float | None = Field(description="None: undefined, as the correlation of a constant")
    interval: Interval | None = Field(default=None, description="95 % bootstrap")
    n: int = Field(ge=0, description="pictures, references or cases behind it")


class Measure(_Strict):
    """One line of the board."""

    set: str
    name: str
    unit: Unit
    detail: bool = Field(default=False, description="stands in the JSON file alone")

    @property
    def key(self) -> str:
        """Its name among all."""
        return f"{self.set}: {self.name}"


class Row(_Strict):
    """One scorer, or a part of one."""

    name: str
    how: str = Field(description="how it was found or fitted")
    values: dict[str, Value] = Field(description="by `SET: MEASURE`")
    absent: dict[str, str] = Field(description="by set: why it was not measured")


class SetInfo(_Strict):
    """A set that was measured."""

    pictures: int = Field(gt=0)
    digest: str = Field(description="of names, sizes, order, and what rendered ones came from")


class Board(_Strict):
    """Everything that is measured of one model."""

    schema_: Literal[SCHEMA] = Field(default=SCHEMA, alias="schema")  # type: ignore[valid-type]
    model: str
    fingerprint: str = Field(description="SHA-256 of the bundle's manifest or the weights' file")
    engine: str
    resamples: int = Field(gt=0, description="of the bootstrap")
    seed: int
    sets: dict[str, SetInfo]
    unmeasured: dict[str, str] = Field(description="sets that were not measured at all: why")
    measures: list[Measure]
    rows: list[Row]

    def to_json(self) -> str:
        """The board as it is written to a file."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"
