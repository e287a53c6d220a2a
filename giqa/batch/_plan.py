"""The plan of a run: fixed when it begins, all that going on needs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from giqa.bundle import MANIFEST, Bundle, load_bundle
from giqa.contract import Profile
from giqa.errors import BundleInvalidError, EngineMismatchError, PlanInvalidError, UsageError
from giqa.precision import Asked
from giqa.scorer import Scorer
from giqa.types import Limits
from giqa.video import Sampling

SCHEMA = "giqa.batch/3"
PLAN = "plan.json"
Check = Literal["none", "stat", "hash"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as e:
            where, what = _first(e)
            raise UsageError(what, item=where or type(self).__name__, remedy="") from e


def _first(error: ValidationError) -> tuple[str, str]:
    """Where the first thing is wrong, and what."""
    first = error.errors()[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")


class Sources(_Strict):
    """What is scored.

    Attributes:
        inputs: files, directories, patterns, URIs, `-`; a `.txt` or `.lst` file is a list, a
            `.parquet`, `.arrow` or `.feather` file a table, a `.tar` file a shard.
        recursive: descend into directories.
        null_separated: lists are separated by NUL instead of newlines.
        column: the table's column: paths, bytes or structs `{bytes, path}`; None: see
            `giqa.batch.COLUMNS`.
        keep: columns of tables that rows carry, too.
        check: what tells whether an input changed: `stat` (size and time, or ETag), `hash`
            (SHA-256 of its bytes) or `none`.
        folder: where relative paths begin, in lists and tables, too.
    """

    inputs: tuple[str, ...] = Field(min_length=1)
    recursive: bool = False
    null_separated: bool = False
    column: str | None = None
    keep: tuple[str, ...] = ()
    check: Check = "stat"
    folder: str = Field(default_factory=os.getcwd)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if len({*self.keep}) < len(self.keep):
            raise ValueError("keep names a column twice")
        return self


class Scoring(_Strict):
    """What decides the rows, beside inputs, bundle and engine.

    Attributes:
        profile: `fast` or `precise`; videos know only `fast`.
        max_bytes: largest file; None: that of `giqa.Limits` for images, none for videos.
        max_pixels: most pixels of a picture; None: those of `giqa.Limits` and
            `giqa.VideoLimits`.
        max_frames: most frames or pages of an image, most scored frames of a video; None: as
            above.
        fps: score so many frames of a video a second.
        every: score each so-many-th frame of a video.
        keyframes: score the keyframes of a video.
        start_s: score videos from here on.
        end_s: score videos up to here.
        scenes: find cuts and pool scenes.
        window_s: length of a video's worst window in seconds.
        chunk_s: a video is cut at keyframes into stretches of at least so many seconds, each a
            unit of work.
    """

    profile: Profile = "fast"
    max_bytes: int | None = Field(default=None, ge=1)
    max_pixels: int | None = Field(default=None, ge=1)
    max_frames: int | None = Field(default=None, ge=1)
    fps: float | None = None
    every: int | None = None
    keyframes: bool = False
    start_s: float | None = None
    end_s: float | None = None
    scenes: bool = True
    window_s: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    chunk_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            self.sampling(self.start_s, self.end_s)
        except UsageError as e:
            raise ValueError(f"{e.item or 'sampling'}: {e.message}") from e
        return self

    def sampling(self, start_s: float | None, end_s: float | None) -> Sampling:
        """Which frames of a stretch of a video are scored.

        Args:
            start_s: the stretch begins here.
            end_s: it ends before this.
        """
        return Sampling(
            fps=self.fps, every=self.every, keyframes=self.keyframes, start_s=start_s, end_s=end_s
        )

    @property
    def limits(self) -> Limits:
        """The limits on images."""
        return Limits(**self.given_limits)

    @property
    def given_limits(self) -> dict[str, int]:
        """The limits that are not left to their defaults, by name."""
        names = ("max_bytes", "max_pixels", "max_frames")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class Runtime(_Strict):
    """Where and with what it is scored.

    Attributes:
        bundle: a folder or the name of a packaged bundle; None: the default.
        precision: see `giqa.LocalScorer`; `auto` is resolved in the plan.
        threads: CPU threads (of each worker); None: all; on Ray: 1.
        batch: images decoded and inferred at once.
        urls: servers to score on; empty: in process. Several need `executor="ray"`.
        in_flight: most requests under way to a server.
        deadline_s: seconds that an image may take on a server.
        token_file: file with the servers' token; its content is in no plan.
        token: the token itself.
        tls_ca: see `giqa.client.Connection`.
        tls_cert: see `giqa.client.Connection`.
        tls_key: see `giqa.client.Connection`.
        tls_name: see `giqa.client.Connection`.
        executor: `local`: this process; `ray`: workers of a Ray cluster.
        workers: workers on Ray; None: as many as its CPUs carry.
    """

    bundle: str | None = None
    precision: Asked = "auto"
    threads: int | None = Field(default=None, ge=1)
    batch: int = Field(default=8, ge=1, le=64)
    urls: tuple[str, ...] = ()
    in_flight: int = Field(default=16, ge=1)
    deadline_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    token_file: Path | None = None
    token: str | None = Field(default=None, exclude=True, repr=False)
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_name: str | None = None
    executor: Literal["local", "ray"] = "local"
    workers: int | None = Field(default=None, ge=1)

    def rooted(self) -> Runtime:
        """The same with absolute paths, to be read from any folder."""
        found: dict[str, object] = {
            name: value.absolute()
            for name in ("token_file", "tls_ca", "tls_cert", "tls_key")
            if (value := getattr(self, name)) is not None
        }
        if self.bundle is not None and (Path(self.bundle) / MANIFEST).is_file():
            found["bundle"] = str(Path(self.bundle).absolute())
        return self.model_copy(update=found)

    def open(self, bundle: Bundle, limits: Limits, url: str | None = None) -> Scorer:
        """Open a scorer.

        Args:
            bundle: what `self.bundle` names, loaded.
            limits: limits on images.
            url: one of `urls`; None: the first, if any.

        Returns:
            A scorer in process, or of the server.

        Raises:
            GiqaError: see `giqa.LocalScorer` and `giqa.TritonScorer`.
        """
        if not self.urls:
            from giqa.local import LocalScorer

            return LocalScorer(
                bundle,
                precision=self.precision,
                threads=self.threads,
                batch=self.batch,
                limits=limits,
            )
        from giqa.client import TritonScorer

        return TritonScorer(
            url or self.urls[0],
            bundle=bundle,
            in_flight=self.in_flight,
            deadline_s=self.deadline_s,
            limits=limits,
            token=self.token,
            ca=self.tls_ca,
            cert=self.tls_cert,
            key=self.tls_key,
            server_name=self.tls_name,
        )


class Plan(_Strict):
    """The plan of a run.

    Attributes:
        sources: what is scored.
        scoring: what decides the rows.
        runtime: where it is scored.
        bundle: name and version of the weights.
        bundle_sha256: the bundle's digest.
        scored_by: runtime and precision, such as `openvino-bf16`: the same for all shards.
        shard_size: most images in a shard; a video's frames count as images.
        shards: how many shards there are.
        inputs: how many inputs there are.
        units: how many units of work they make.
        weight: images and frames of videos, as far as their number is known.
        gone: how many of the inputs were not there any more at the last update.
        passed: what was passed over, by suffix.
        listing_sha256: digest of the inputs as they were listed.
        inputs_sha256: digest of `inputs.parquet`.
    """

    schema_: Literal[SCHEMA] = Field(default=SCHEMA, alias="schema")  # type: ignore[valid-type]
    sources: Sources
    scoring: Scoring
    runtime: Runtime
    bundle: str
    bundle_sha256: str
    scored_by: str
    shard_size: int = Field(ge=1)
    shards: int = Field(ge=0)
    inputs: int = Field(ge=0)
    units: int = Field(ge=0)
    weight: int = Field(ge=0)
    gone: int = Field(default=0, ge=0)
    passed: dict[str, int] = Field(default_factory=dict)
    listing_sha256: str
    inputs_sha256: str

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def identity(self) -> bytes:
        """What decides rows beside the units, for hashes."""
        parts = {
            "schema": SCHEMA,
            "scoring": self.scoring.model_dump(mode="json"),
            "bundle": self.bundle_sha256,
            "scored_by": self.scored_by,
        }
        return json.dumps(parts, sort_keys=True).encode()

    def to_json(self) -> str:
        """The plan as it is written to disk."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"


@dataclass(frozen=True)
class Identity:
    """What scores: the loaded bundle and the engine's name.

    Attributes:
        bundle: the bundle.
        scored_by: runtime and precision.
    """

    bundle: Bundle
    scored_by: str

    @classmethod
    def of(cls, scorer: Scorer, runtime: Runtime) -> Identity:
        """Find a scorer's identity.

        Raises:
            EngineMismatchError: it scores with another bundle than the run's.
        """
        bundle = load_bundle(runtime.bundle)
        if scorer.manifest != bundle.manifest:
            raise EngineMismatchError(
                f"the scorer's bundle is {scorer.manifest.id}, not {bundle.manifest.id}"
            )
        return cls(bundle, scorer.engine)

    def check(self, plan: Plan) -> None:
        """See that shards of this scorer fit to those that are there.

        Raises:
            BundleInvalidError: the bundle is not the plan's.
            EngineMismatchError: runtime or precision are not the plan's.
        """
        if self.bundle.digest != plan.bundle_sha256:
            raise BundleInvalidError(
                f"is not the bundle that the run began with ({plan.bundle})",
                item=str(self.bundle.folder),
                remedy="put that one back, or begin again in another folder",
            )
        if self.scored_by != plan.scored_by:
            raise EngineMismatchError(
                f"scores with {self.scored_by}, the run began with {plan.scored_by}",
                remedy="go on where that runs, or begin again in another folder",
            )


def read_plan(folder: str | Path) -> Plan:
    """Read the plan in a run's folder.

    Raises:
        PlanInvalidError: it is missing or damaged.
    """
    path = Path(folder) / PLAN
    try:
        return Plan.model_validate_json(path.read_bytes())
    except FileNotFoundError as e:
        raise PlanInvalidError("holds no plan of a run", item=str(path.parent)) from e
    except ValidationError as e:
        raise PlanInvalidError(": ".join(_first(e)), item=str(path)) from e
    except UsageError as e:  # a part of it
        raise PlanInvalidError(f"{e.item}: {e.message}", item=str(path)) from e


def check_names(inputs: tuple[str, ...]) -> None:
    """Refuse what a plan cannot hold.

    Raises:
        UsageError: an argument is not valid text.
    """
    for name in inputs:
        try:
            name.encode()
        except UnicodeEncodeError as e:
            raise UsageError(
                "is not valid text", item=repr(name), remedy="name it in a list"
            ) from e
