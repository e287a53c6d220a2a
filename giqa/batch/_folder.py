"""A run's folder: its lock, its inputs and its shards."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from giqa.batch._plan import PLAN, Plan, group_size, read_plan
from giqa.batch._units import Unit, from_table, to_table, unit_schema
from giqa.errors import FolderInUseError, PlanInvalidError
from giqa.files import replacing, storage, sync_folder, write

_TRIES = ".tries"


@dataclass(frozen=True)
class Shard:
    """A shard: the units whose rows stand in one file.

    Attributes:
        number: its place in the run, from 0.
        address: SHA-256 of what decides its rows: units, bundle, engine, options.
        units: its units.
    """

    number: int
    address: str
    units: tuple[Unit, ...]

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
        self.path = Path(path)
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
        except FileNotFoundError as e:
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

    def write_inputs(self, units: Iterable[Unit], shard_size: int) -> tuple[int, str]:
        """Write `inputs.parquet`, a row group at a time.

        Args:
            units: all units.
            shard_size: units in a shard.

        Returns:
            How many there are, and the file's SHA-256.

        Raises:
            StorageFullError: no space is left.
        """
        import pyarrow.parquet as pq

        count, source = 0, iter(units)
        with replacing(self.inputs_file) as file:
            with pq.ParquetWriter(file, unit_schema()) as writer:
                while part := list(islice(source, group_size(shard_size))):
                    writer.write_table(to_table(part))
                    count += len(part)
            file.flush()
            digest = _sha256(Path(file.name))
        return count, digest

    def write_plan(self, plan: Plan) -> None:
        """Write the plan, the last thing of planning: where it is, all of it is there."""
        write(self.plan_file, plan.to_json().encode())
        sync_folder(self.path)

    def plan(self) -> Plan:
        """Read the plan.

        Raises:
            PlanInvalidError: it is missing or damaged, or `inputs.parquet` is not the plan's.
        """
        plan = read_plan(self.path)
        if not self.inputs_file.is_file() or _sha256(self.inputs_file) != plan.inputs_sha256:
            raise PlanInvalidError("is missing or was altered", item=str(self.inputs_file))
        return plan

    def read_shards(self, plan: Plan) -> Iterator[Shard]:
        """List all shards in order, in bounded memory."""
        for group in range(-(-plan.units // plan.group)):
            yield from self._group(plan, group)

    def read_shard(self, plan: Plan, number: int) -> Shard:
        """Read one shard's units."""
        group = number * plan.shard_size // plan.group
        return next(s for s in self._group(plan, group) if s.number == number)

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

    def write_shard(self, shard: Shard, data: bytes) -> None:
        """Write a shard's file; whoever else writes it, writes the same.

        Raises:
            StorageFullError: no space is left.
        """
        mark = f".{socket.gethostname()}.{os.getpid()}"
        write(self.shards / shard.name, data, mark=mark)
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

    def _group(self, plan: Plan, group: int) -> Iterator[Shard]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.inputs_file) as file:
            units = iter(from_table(file.read_row_group(group)))
        number = group * plan.group // plan.shard_size
        while part := tuple(islice(units, plan.shard_size)):
            digest = hashlib.sha256(plan.identity)
            for unit in part:
                digest.update(unit.identity)
            yield Shard(number, digest.hexdigest(), part)
            number += 1


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
