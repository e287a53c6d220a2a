"""The manifest of a bundle: `manifest.json`, strict and versioned."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    field_validator,
    model_serializer,
    model_validator,
)

from giqa.contract import GRID, MAX_VIEWS, SCORE_MAX, SCORE_MIN, TILES, Profile

SCHEMA = "giqa.bundle/1"

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Triple = tuple[float, float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tensors(_Strict):
    """Sizes of the contract's tensors."""

    global_side: int = Field(gt=0, description="side of GLOBAL_VIEW in pixels")
    local_side: int = Field(gt=0, description="side of LOCAL_VIEW in pixels")
    grid: Literal[GRID] = Field(GRID, description="cells per side of the token grid")  # type: ignore[valid-type]
    stages: int = Field(gt=0, description="S, tapped ViT blocks in GLOBAL_TOKENS")
    dim: int = Field(gt=0, description="D, token width")
    context_tokens: int = Field(
        0, ge=0, description="tokens behind those of the grid's cells, of the picture as a whole"
    )
    token_dtype: Literal["FP32", "FP16"]
    quality_map: bool = Field(description="the fusion graph has QUALITY_MAP")

    @property
    def tokens(self) -> int:
        """Tokens of a set: the grid's cells, then `context_tokens`."""
        return int(self.grid) ** 2 + self.context_tokens


class Normalization(_Strict):
    """What the branch graphs do with uint8 pixels (for information: it is inside the graphs)."""

    mean: Triple
    std: Triple


class ViewProfile(_Strict):
    """How a picture becomes views."""

    max_views: int = Field(ge=1, le=MAX_VIEWS)
    tiles: Literal[0, TILES] = Field(  # type: ignore[valid-type]
        0, description="tiles of native pixels that the local branch sees of a large picture"
    )
    tile_pixels: int = Field(
        0, ge=0, description="pixels, width x height, from which on a picture has tiles"
    )

    @model_validator(mode="after")
    def _pixels_are_of_tiles(self) -> ViewProfile:
        if self.tile_pixels and not self.tiles:
            raise ValueError("tile_pixels without tiles")
        return self

    @model_serializer(mode="wrap")
    def _without_later_fields(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        # Bundles without tiles are older than these fields: their manifests stay the same bytes.
        fields: dict[str, object] = write(self)
        return {name: value for name, value in fields.items() if name == "max_views" or value}


class Calibration(_Strict):
    """How raw outputs became 0..100 (for information: it is inside the fusion graph)."""

    method: str
    parameters: dict[str, float]
    fitted_on: str


class Score(_Strict):
    """The score's scale."""

    minimum: Literal[SCORE_MIN] = SCORE_MIN  # type: ignore[valid-type]
    maximum: Literal[SCORE_MAX] = SCORE_MAX  # type: ignore[valid-type]
    calibration: Calibration


class SelfTest(_Strict):
    """A known answer: `image` scored with profile `fast` must give `score`."""

    image: FileName
    score: float = Field(ge=SCORE_MIN, le=SCORE_MAX)
    tolerance: dict[str, float] = Field(description="largest |difference| per precision")


class Correlation(_Strict):
    """Agreement with human scores."""

    n: int = Field(gt=1)
    srocc: float
    srocc_interval: tuple[float, float] | None = Field(None, description="bootstrap, 95 %")
    plcc: float
    rmse: float | None = None
    krcc: float | None = None
    plcc_logistic: float | None = Field(None, description="after a 4-parameter logistic")

    @model_serializer(mode="wrap")
    def _without_later_fields(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        # They came after the first bundles, whose manifests must stay the same bytes.
        fields: dict[str, object] = write(self)
        for name in ("krcc", "plcc_logistic"):
            if fields.get(name) is None:
                fields.pop(name, None)
        return fields


class Accuracy(Correlation):
    """One measured accuracy with its protocol."""

    dataset: str
    split: str
    profile: Profile
    engine: str
    protocol: str
    subsets: dict[str, Correlation] = {}


class Licences(_Strict):
    """Terms of code, weights and training data."""

    code: str
    weights: str
    data: dict[str, str]


class File(_Strict):
    """One file of the bundle."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class Manifest(_Strict):
    """The manifest of a bundle."""

    schema_: Literal[SCHEMA] = Field(SCHEMA, alias="schema")  # type: ignore[valid-type]
    name: Name
    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
    preset: dict[str, object] = Field(description="the model as data, for information")
    tensors: Tensors
    normalization: dict[Literal["global_branch", "local_branch"], Normalization]
    profiles: dict[Profile, ViewProfile]
    score: Score
    graphs: dict[Literal["global_branch", "local_branch", "fusion"], FileName]
    int8: FileName | None = Field(
        None, description="what int8 adds to the graphs (giqa.openvino), where the bundle has it"
    )
    compile_mode: Literal["dynamic", "static"] = Field(
        "dynamic", description="batch dimension that quantized graphs are compiled with"
    )
    self_test: SelfTest
    accuracy: list[Accuracy]
    training: dict[str, object]
    licences: Licences
    files: dict[FileName, File]

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @field_validator("profiles")
    @classmethod
    def _tiles_are_of_fast(cls, profiles: dict[Profile, ViewProfile]) -> dict[Profile, ViewProfile]:
        if wrong := [name for name, one in profiles.items() if one.tiles and name != "fast"]:
            raise ValueError(f"{wrong[0]} has no tiles: its views are native pixels")
        return profiles

    @model_validator(mode="before")
    @classmethod
    def _without_int8_graphs(cls, fields: object) -> object:
        # Manifests before `int8` say that there are none.
        if isinstance(fields, dict) and fields.get("int8_graphs", ...) is None:
            return {name: value for name, value in fields.items() if name != "int8_graphs"}
        return fields

    @property
    def tiles(self) -> int:
        """T: tiles of a picture that is large for profile `fast`; 0: no picture has any."""
        return int(self.profiles["fast"].tiles)

    @property
    def id(self) -> str:
        """Name and version, as it stands in result rows: `giqa-s@0.1.0`."""
        return f"{self.name}@{self.version}"

    def to_json(self) -> str:
        """The manifest as it is written to disk."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"
