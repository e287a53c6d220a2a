"""TensorRT engines: what each was built from and for, and whether it fits this machine.

A folder holds `NAME/model.plan` and `NAME/engine.json` for each of the three graphs. A plan runs on
the kind of GPU and the TensorRT that it was built with; what Triton says of any other is hard to
read, so it is refused here first.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from giqa.bundle import ENGINES, Bundle
from giqa.contract import GRAPHS
from giqa.errors import EngineMismatchError
from giqa.manifest import File
from giqa.precision import Precision

SCHEMA = "giqa.engine/2"
PLAN = "model.plan"
DESCRIPTION = "engine.json"

_AMPERE = (8, 0)

Version = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
Capability = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shapes(_Strict):
    """Shapes that an input may have, batch and V first."""

    minimum: tuple[int, ...]
    optimum: tuple[int, ...] = Field(description="what it is tuned for")
    maximum: tuple[int, ...]


class Engine(_Strict):
    """The description of an engine, `engine.json`."""

    schema_: Literal[SCHEMA] = Field(SCHEMA, alias="schema")  # type: ignore[valid-type]
    bundle: str = Field(description="name and version")
    graph: Literal["global_branch", "local_branch", "fusion"]
    onnx_sha256: str = Field(description="of the bundle's graph that it was made of")
    precision: Precision
    builder: Literal["tensorrt", "torch-tensorrt"]
    tensorrt: Version
    cuda: str | None = Field(description="of the machine that built it")
    gpu: str
    sm: Capability = Field(description="compute capability")
    container: str | None = Field(description="tag of NVIDIA's container, where it was one")
    hardware_compatible: bool
    version_compatible: bool
    refittable: bool
    profiles: list[dict[str, Shapes]] = Field(min_length=1, description="by input")
    plan: File

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def max_batch(self) -> int:
        """Largest batch."""
        return min(one.maximum[0] for profile in self.profiles for one in profile.values())

    def to_json(self) -> str:
        """The description as it is written to disk."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"


@dataclass(frozen=True)
class Machine:
    """What engines run on.

    Attributes:
        gpu: its name.
        sm: its compute capability, such as `9.0`.
        tensorrt: version of the TensorRT library; None if none was found.
        cuda: version of CUDA; None if unknown.
        container: tag of NVIDIA's container; None outside of one.
        memory: bytes of the GPU's memory; None if unknown.
    """

    gpu: str
    sm: str
    tensorrt: str | None
    cuda: str | None
    container: str | None
    memory: int | None = None

    @property
    def key(self) -> str:
        """What engines and timings belong to: `sm90-tensorrt10.13.2`."""
        return f"sm{self.sm.replace('.', '')}-tensorrt{self.tensorrt or 'unknown'}"


def this_machine() -> Machine:
    """Look at this machine's first GPU and its libraries.

    Raises:
        EngineMismatchError: there is no NVIDIA GPU, or its driver does not answer.
    """
    return all_gpus()[0]


def all_gpus() -> list[Machine]:
    """Look at this machine's GPUs, of which a server uses every one, and its libraries.

    Returns:
        The machine as each of them sees it; those in $CUDA_VISIBLE_DEVICES, where it has numbers.

    Raises:
        EngineMismatchError: there is no NVIDIA GPU, or its driver does not answer.
    """
    found = re.findall(r"^(.+), (\d+\.\d+)\s*$", _ask("name,compute_cap"), re.M)
    memory = re.findall(r"^(\d+) MiB\s*$", _ask("memory.total"), re.M)
    sizes = [int(size) * 2**20 for size in memory] if len(memory) == len(found) else None
    numbers = list(range(len(found)))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if re.fullmatch(r"\d+(,\d+)*", visible):
        numbers = [int(n) for n in visible.split(",") if int(n) < len(found)]
    if not numbers:
        raise _no_gpu()
    names = ("NVIDIA_TRITON_SERVER_VERSION", "NVIDIA_TENSORRT_VERSION", "NVIDIA_PYTORCH_VERSION")
    tensorrt = _tensorrt_version()
    return [
        Machine(
            gpu=found[n][0],
            sm=found[n][1],
            tensorrt=tensorrt,
            cuda=os.environ.get("CUDA_VERSION"),
            container=next((os.environ[name] for name in names if name in os.environ), None),
            memory=None if sizes is None else sizes[n],
        )
        for n in numbers
    ]


def _ask(fields: str) -> str:
    """What nvidia-smi says of the GPUs, a line each."""
    smi = shutil.which("nvidia-smi") or "nvidia-smi"
    command = [smi, f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise _no_gpu() from e
    if done.returncode:
        raise _no_gpu()
    return done.stdout


def _no_gpu() -> EngineMismatchError:
    return EngineMismatchError(
        "no NVIDIA GPU answers here", item="nvidia-smi", remedy="use --device cpu"
    )


def _tensorrt_version() -> str | None:
    """Of the library that a server here would load."""
    name = ctypes.util.find_library("nvinfer")
    if name is None:
        return None
    try:
        number = int(ctypes.CDLL(name).getInferLibVersion())
    except (OSError, AttributeError):
        return None
    # 101300 is 10.13.0; up to version 8 it was 8601 for 8.6.1.
    step = 10_000 if number >= 100_000 else 1_000
    return f"{number // step}.{number % step // 100}.{number % 100}"


def engines_of(bundle: Bundle) -> Path:
    """Where a bundle's engines lie unless said otherwise."""
    return bundle.folder / ENGINES


def read_engine(folder: Path, graph: str) -> Engine:
    """Read the description of one graph's engine.

    Args:
        folder: the folder of engines.
        graph: `global_branch`, `local_branch` or `fusion`.

    Raises:
        EngineMismatchError: not there, or not valid.
    """
    path = folder / graph / DESCRIPTION
    try:
        return Engine.model_validate_json(path.read_bytes())
    except OSError as e:
        raise EngineMismatchError(
            f"no engine: {e.strerror}", item=str(path), remedy=f"build it: {_command(folder)}"
        ) from e
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EngineMismatchError(
            f"{where}: {first['msg']}", item=str(path), remedy=f"build it again: {_command(folder)}"
        ) from e


def load_engines(
    folder: Path, bundle: Bundle, *machines: Machine, max_batch: int = 1
) -> dict[str, Engine]:
    """Read a folder of engines and verify that they serve this bundle on this machine.

    Args:
        folder: the folder of engines.
        bundle: the bundle that is served.
        machines: where: each GPU that will run them.
        max_batch: largest batch that they will get.

    Returns:
        Descriptions by graph; the plans are `folder / NAME / PLAN`.

    Raises:
        EngineMismatchError: an engine is missing, truncated, altered, or made for another graph,
            GPU, TensorRT or batch; the remedy is the command that builds it.
    """
    found = {graph: read_engine(folder, graph) for graph in GRAPHS}
    precisions = {engine.precision for engine in found.values()}
    for graph, engine in found.items():

        def refuse(why: str, path: Path = folder / graph, engine: Engine = engine) -> NoReturn:
            command = _command(folder, bundle, engine, max_batch)
            raise EngineMismatchError(why, item=str(path), remedy=f"build it here: {command}")

        if engine.graph != graph:
            refuse(f"is an engine of {engine.graph}")
        if len(precisions) > 1:
            refuse(f"engines of several precisions: {', '.join(sorted(precisions))}")
        if engine.onnx_sha256 != source_digest(bundle, graph, engine.precision):
            refuse(f"was built from {engine.bundle}, other weights than {bundle.manifest.id} here")
        for machine in machines:
            if why := _unfit(engine, machine):
                refuse(why)
        if engine.max_batch < max_batch:
            refuse(f"takes batches of {engine.max_batch} at most, {max_batch} are asked for")
        if why := _damage(folder / graph / PLAN, engine.plan):
            refuse(why)
    return found


def link_plans(folder: Path, repository: Path) -> None:
    """Put engines into a model repository, as links: plans are large.

    Args:
        folder: the folder of engines.
        repository: a GPU's model repository.
    """
    for graph in GRAPHS:
        version = repository / graph / "1"
        version.mkdir(parents=True, exist_ok=True)
        (version / PLAN).symlink_to((folder / graph / PLAN).resolve())


def source_digest(bundle: Bundle, graph: str, precision: str) -> str:
    """SHA-256 of what an engine of a precision is made of: the graph's; of two hashes in int8.

    Raises:
        EngineMismatchError: int8, and the bundle has no int8.
    """
    files = bundle.manifest.files
    found = files[bundle.graph(graph).name].sha256
    if precision == "int8":
        both = f"{found} {files[bundle.int8.name].sha256}"
        return hashlib.sha256(both.encode()).hexdigest()
    return found


def _unfit(engine: Engine, machine: Machine) -> str:
    """Why an engine does not run on a machine; empty if it does."""
    if engine.sm != machine.sm:
        both = f"was built for compute capability {engine.sm} ({engine.gpu}), "
        both += f"this GPU has {machine.sm} ({machine.gpu})"
        if not engine.hardware_compatible:
            return both
        if _numbers(machine.sm) < _AMPERE:
            return f"{both}: compatible engines need 8.0"
    if machine.tensorrt is None or engine.tensorrt == machine.tensorrt:
        return ""
    both = f"was built by TensorRT {engine.tensorrt}, here is {machine.tensorrt}"
    if not engine.version_compatible:
        return both
    built, here = _numbers(engine.tensorrt), _numbers(machine.tensorrt)
    return (
        ""
        if built[0] == here[0] and built <= here
        else f"{both}: only later ones of the same major version run it"
    )


def _damage(path: Path, entry: File) -> str:
    """Why a plan is not the described one; empty if it is."""
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            return f"{path.name} has {size} bytes instead of {entry.bytes}"
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
    except OSError as e:
        return f"{path.name}: {e.strerror}"
    return "" if same else f"{path.name} was altered (SHA-256 differs from {DESCRIPTION}'s)"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _command(
    folder: Path, bundle: Bundle | None = None, engine: Engine | None = None, max_batch: int = 0
) -> str:
    """The command that builds what is missing or does not fit."""
    words = ["python -m build engines"]
    if bundle is not None:
        words.append(f"--bundle {bundle.folder}")
    if engine is not None:
        words.append(f"--precision {engine.precision}")
        words.append(f"--max-batch {max(max_batch, engine.max_batch)}")
    return " ".join([*words, f"--out {folder}"])
