"""A run's folder: its lock, its inputs and its shards."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from giqa import checks
from giqa.batch._plan import PLAN, Plan, read_plan
from giqa.batch._units import Unit, from_table, to_table, unit_schema
from giqa.errors import FolderInUseError, PlanInvalidError
from giqa.files import replacing, storage, sync_folder, write

if TYPE_CHECKING:
    import pyarrow as pa

_TRIES = ".tries"
_SHARD = re.compile(r"\d{6,}-[0-9a-f]{16}\.parquet")
_GROUP = 4096
"""Least units in a row group of `inputs.parquet`."""


@dataclass(frozen=True)
class Written:
    """What `inputs.parquet` holds.

    Attributes:
        units: how many units.
        shards: how many shards they make.
        weight: images and frames, as far as their number is known.
        sha256: the file's digest.
    """

    units: int
    shards: int
    weight: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """A shard: the units whose rows stand in one file.

    Attributes:
        number: its place in the run, from 0.
        address: SHA-256 of what decides its rows: units, bundle, engine, options.
        units: its units.
        digests: of each unit with what decides rows beside it.
    """

    number: int
    address: str
    units: tuple[Unit, ...]
    digests: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.number:06d}-{self.address[:16]}.parquet"


class Folder:
    """A run's folder.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = checks.path("out", path)
        self.plan_file = self.path / PLAN
        self.inputs_file = self.path / "inputs.parquet"
        self.shards = self.path / "shards"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs out; the lock goes with the process, whatever ends it.

        Raises:
            FolderInUseError: another run works here.
            PlanInvalidError: there is no such folder.
        """
        path = self.path / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except (FileNotFoundError, NotADirectoryError) as e:
            raise PlanInvalidError("no such folder", item=str(self.path)) from e
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                raise FolderInUseError(
                    f"{holder or 'another run'} works in it", item=str(self.path)
                ) from e
            with storage(path):
                os.ftruncate(descriptor, 0)
                os.pwrite(
                    descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0
                )
            yield
        finally:
            os.close(descriptor)

    def write_inputs(
        self,
        units: Iterable[tuple[int, Unit]],
        kept: pa.DataType | None = None,
    ) -> Written:
        """Write `inputs.parquet`, a row group of whole shards at a time.

        It has a name of its own until the plan that knows it is written, see `write_plan`.

        Args:
            units: all units, each with its shard's number, see `number_shards`.
            kept: the struct of columns that are carried through.

        Returns:
            What was written.

        Raises:
            StorageFullError: no space is left.
        """
        import pyarrow.parquet as pq

        count, shards, weight, schema = 0, 0, 0, unit_schema(kept)
        with replacing(self._next) as file:
            with pq.ParquetWriter(file, schema) as writer:
                for part in _groups(units):
                    writer.write_table(to_table(part, schema))
                    count += len(part)
                    shards = part[-1][0] + 1
                    weight += sum(unit.weight for _, unit in part)
            file.flush()
            digest = _sha256(Path(file.name))
        return Written(count, shards, weight, digest)

    def write_plan(self, plan: Plan) -> None:
        """Write the plan, the last thing of planning: where it is, all of it is there."""
        write(self.plan_file, plan.to_json().encode())
        self._next.replace(self.inputs_file)
        sync_folder(self.path)

    def plan(self) -> Plan:
        """Read the plan.

        Raises:
            PlanInvalidError: it is missing or damaged, or `inputs.parquet` is not the plan's.
        """
        plan = read_plan(self.path)
        # A run that was killed between plan and inputs has both.
        if self._next.is_file() and _sha256(self._next) == plan.inputs_sha256:
            self._next.replace(self.inputs_file)
        if not self.inputs_file.is_file() or _sha256(self.inputs_file) != plan.inputs_sha256:
            raise PlanInvalidError("is missing or was altered", item=str(self.inputs_file))
        return plan

    def kept(self) -> pa.DataType | None:
        """The struct of columns that are carried through; None without any."""
        import pyarrow.parquet as pq

        schema = pq.read_schema(self.inputs_file)
        return schema.field("kept").type if "kept" in schema.names else None

    def units(self) -> Iterator[tuple[int, Unit]]:
        """List all units in order, each with its shard's number, in bounded memory."""
        for group in range(self._metadata().num_row_groups):
            yield from self._units(group)

    def read_shards(self, plan: Plan) -> Iterator[Shard]:
        """List all shards in order, in bounded memory."""
        for group in range(self._metadata().num_row_groups):
            yield from self._shards(plan, group)

    def read_shard(self, plan: Plan, number: int) -> Shard:
        """Read one shard's units."""
        about = self._metadata()
        for group in range(about.num_row_groups):
            if about.row_group(group).column(0).statistics.max >= number:
                return next(s for s in self._shards(plan, group) if s.number == number)
        raise PlanInvalidError(f"has no shard {number}", item=str(self.inputs_file))

    def written(self) -> set[str]:
        """Names of the shards that are there."""
        with suppress(FileNotFoundError), os.scandir(self.shards) as entries:
            return {e.name for e in entries if e.name.endswith(".parquet")}
        return set()

    def clean(self) -> None:
        """Make the folder of shards, and remove what killed runs left half written."""
        self.shards.mkdir(exist_ok=True)
        for left in (*self.shards.glob(".*.tmp"), *self.shards.glob(f".*{_TRIES}")):
            left.unlink(missing_ok=True)

    def remove_replaced(self, names: Collection[str]) -> None:
        """Remove shards of inputs that changed since.

        Args:
            names: of the shards that the plan has.
        """
        for name in self.written():
            if name not in names and _SHARD.fullmatch(name):
                (self.shards / name).unlink(missing_ok=True)

    def replaced(self, shard: Shard) -> list[Path]:
        """Files of the same number, made when some of its units were others."""
        found = self.shards.glob(f"{shard.number:06d}-*.parquet")
        return [path for path in found if path.name != shard.name]

    def write_shard(self, shard: Shard, data: bytes) -> None:
        """Write a shard's file; whoever else writes it, writes the same.

        Raises:
            StorageFullError: no space is left.
        """
        write(self.shards / shard.name, data)
        sync_folder(self.shards)

    def count_try(self, shard: Shard) -> int:
        """Note that a worker begins a shard.

        Returns:
            How often one did since the run was begun or resumed.
        """
        with self._tries(shard).open("ab") as file:
            file.write(b".")
            return file.tell()

    def forget_tries(self, shard: Shard) -> None:
        """Note that a shard is written."""
        self._tries(shard).unlink(missing_ok=True)

    def _tries(self, shard: Shard) -> Path:
        return self.shards / f".{shard.name}{_TRIES}"

    @property
    def _next(self) -> Path:
        return self.path / ".inputs.parquet.next"

    def _metadata(self) -> Any:
        import pyarrow.parquet as pq

        return pq.read_metadata(self.inputs_file)

    def _units(self, group: int) -> Iterator[tuple[int, Unit]]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.inputs_file) as file:
            yield from from_table(file.read_row_group(group))

    def _shards(self, plan: Plan, group: int) -> Iterator[Shard]:
        for number, members in groupby(self._units(group), key=lambda pair: pair[0]):
            part = tuple(unit for _, unit in members)
            digest = hashlib.sha256(plan.identity)
            own = hashlib.blake2b(plan.identity, digest_size=8)
            digests = []
            for unit in part:
                digest.update(unit.identity)
                one = own.copy()
                one.update(unit.identity)
                digests.append(one.hexdigest())
            yield Shard(number, digest.hexdigest(), part, tuple(digests))


def number_shards(
    units: Iterable[Unit], shard_size: int, first: int = 0
) -> Iterator[tuple[int, Unit]]:
    """Give units their shards: one is full when the next unit would be too much.

    Args:
        units: units in order.
        shard_size: most images in a shard; a video's frames count as images.
        first: the first shard's number.

    Yields:
        Each unit with its shard's number.
    """
    number, weight = first, 0
    for unit in units:
        if weight and weight + unit.weight > shard_size:
            number, weight = number + 1, 0
        weight += unit.weight
        yield number, unit


def _groups(units: Iterable[tuple[int, Unit]]) -> Iterator[list[tuple[int, Unit]]]:
    """Whole shards, at least `_GROUP` units of them."""
    part: list[tuple[int, Unit]] = []
    for number, unit in units:
        if len(part) >= _GROUP and part[-1][0] != number:
            yield part
            part = []
        part.append((number, unit))
    if part:
        yield part


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
