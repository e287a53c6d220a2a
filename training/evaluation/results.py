"""What an evaluation found: the JSON format `giqa.evaluation/1`.

Scores and opinion scores are on 0..100, higher is better. A figure that is undefined (a
correlation of a constant, a fit with as many parameters as images) is null.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from giqa.contract import Profile

SCHEMA = "giqa.evaluation/1"

Interval = tuple[float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mapped(_Strict):
    """Agreement after a logistic mapping that was fitted on the very same images."""

    plcc: float | None
    rmse: float = Field(ge=0, description="in points of 100")
    parameters: tuple[float, ...] = Field(description="of `training.metrics.Logistic`")


class Agreement(_Strict):
    """Agreement of scores with opinion scores; intervals are 95 % percentile bootstrap."""

    n: int = Field(ge=0, description="images scored; those that failed are left out")
    srocc: float | None = Field(default=None, description="Spearman")
    srocc_interval: Interval | None = None
    plcc: float | None = Field(default=None, description="Pearson, without any fit")
    plcc_interval: Interval | None = None
    krcc: float | None = Field(default=None, description="Kendall, tau-b")
    rmse: float | None = Field(default=None, ge=0, description="without any fit, in points of 100")
    logistic4: Mapped | None = Field(default=None, description="after the 4-parameter logistic")
    logistic5: Mapped | None = Field(default=None, description="after the 5-parameter logistic")


class Row(_Strict):
    """One image: a score, or the code of the error that it gave."""

    path: str
    subset: str
    mos: float
    score: float | None
    error: str | None = None


class ViewsRow(_Strict):
    """Agreement with at most so many views an image."""

    views: int = Field(ge=1, description="1: profile fast; more: of profile precise, at most")
    mean: float = Field(ge=1, description="views that an image had on average")
    agreement: Agreement


class DataSet(Agreement):
    """One data set: pooled agreement, the same for each subset, and the images behind it."""

    name: str
    split: str
    protocol: str = Field(description="how selection and testing were kept apart")
    failed: int = Field(ge=0, description="images that gave no score")
    subsets: dict[str, Agreement] = Field(default={}, description="by subset or distortion type")
    views: list[ViewsRow] = []
    rows: list[Row] = []


class Evaluation(_Strict):
    """One scorer on one or several data sets."""

    schema_: Literal[SCHEMA] = Field(default=SCHEMA, alias="schema")  # type: ignore[valid-type]
    bundle: str = Field(description="name and version of the weights, as in result rows")
    fingerprint: str = Field(description="SHA-256 of the bundle's manifest or the weights' file")
    engine: str
    profile: Profile
    resamples: int = Field(gt=0, description="of the bootstrap")
    seed: int
    datasets: list[DataSet]

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def to_json(self) -> str:
        """The evaluation as it is written to a file."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"
