"""Labels of pictures that are yet to be rendered, each with where it comes from."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from giqa import files
from giqa.errors import TableInvalidError
from training.data.checks import some
from training.data.samples import Sample
from training.distortions import by_name
from training.transfer.mapping import Target

GROUP = 1000
"""Labels a row group: what is rendered, and done again after an interruption, as one."""

Scores = dict[tuple[str, str, int], float]
"""MOS in 0..100 by reference, the data set's name of the distortion, and level."""

SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=name in ("value", "psnr"))
        for name, kind in (
            ("key", pa.string()),
            ("photo", pa.string()),
            ("sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("dataset", pa.string()),
            ("reference", pa.string()),
            ("similarity", pa.float32()),
            ("source_type", pa.string()),
            ("type", pa.string()),
            ("level", pa.int8()),
            ("value", pa.float64()),
            ("psnr", pa.float64()),
            ("seed", pa.int64()),
            ("mos", pa.float64()),
        )
    ]
)


@dataclass(frozen=True)
class Label:
    """One picture to be rendered, its label, and where that comes from.

    Attributes:
        key: unique, made of letters, digits and underscores.
        photo: the photograph, relative to the folder of photographs.
        sha256: of its file.
        width: of the rendered picture in pixels.
        height: of the rendered picture in pixels.
        dataset: the labelled data set.
        reference: the matched reference's name in it.
        similarity: cosine between photograph and reference, -1..1.
        source_type: the data set's name of the distortion.
        type: ours, see `training.distortions`.
        level: 1..5.
        value: of the type's parameter; None if `psnr` decides.
        psnr: in decibels; None if `value` decides.
        seed: of the distortion.
        mos: the transferred opinion score, 0..100, higher is better.
    """

    key: str
    photo: str
    sha256: str
    width: int
    height: int
    dataset: str
    reference: str
    similarity: float
    source_type: str
    type: str
    level: int
    value: float | None
    psnr: float | None
    seed: int
    mos: float


def scores(samples: Sequence[Sample]) -> Scores:
    """Collect a data set's labels; of several for one picture, the mean.

    Args:
        samples: with reference and level.

    Returns:
        MOS in 0..100.

    Raises:
        TableInvalidError: a sample has no reference, type or level.
    """
    found: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    wrong = []
    for sample in samples:
        if sample.level is None or not sample.reference or not sample.subset:
            wrong.append(sample.path.name)
        else:
            found[sample.reference, sample.subset, sample.level].append(sample.mos)
    if wrong or not found:
        told = some("no reference, type or level:", wrong) or "no label"
        raise TableInvalidError(told, remedy="take a data set that has them, such as KADID-10k")
    return {key: math.fsum(values) / len(values) for key, values in found.items()}


def check_complete(table: Scores, targets: Sequence[Target]) -> None:
    """Check that every reference has a label for everything that is rendered.

    Raises:
        TableInvalidError: some are missing; the first are named.
    """
    references = sorted({reference for reference, _, _ in table})
    missing = [
        f"{reference} {target.source} {target.level}"
        for reference in references
        for target in targets
        if (reference, target.source, target.level) not in table
    ]
    if missing:
        raise TableInvalidError(
            some("no label of", missing), remedy="leave these types out, or mend the table"
        )


def seed_of(seed: int, sha256: str) -> int:
    """The seed of a photograph's distortions: the same wherever the file stands."""
    return int(hashlib.sha256(f"{seed} {sha256}".encode()).hexdigest()[:12], 16)


def of_photo(
    targets: Iterable[Target], table: Scores, common: Mapping[str, Any], seed: int
) -> list[Label]:
    """All labels of one photograph.

    Args:
        targets: what is rendered.
        table: where the scores come from.
        common: the photograph's part of `Label`: photo, sha256, width, height, dataset, reference,
            similarity.
        seed: of the whole run.

    Returns:
        One label a target.
    """
    sha256, reference = common["sha256"], common["reference"]
    return [
        Label(
            **common,
            key=f"{sha256[:16]}_{by_name(t.type).number:02}_{t.level}",
            source_type=t.source,
            type=t.type,
            level=t.level,
            value=t.value,
            psnr=t.psnr,
            seed=seed_of(seed, sha256),
            mos=table[reference, t.source, t.level],
        )
        for t in targets
    ]


def write(path: Path, labels: Iterable[Label], group: int = GROUP) -> int:
    """Write labels as Parquet; the file appears whole or not at all.

    Args:
        path: the file.
        labels: taken one by one.
        group: labels a row group.

    Returns:
        How many.

    Raises:
        StorageFullError: no space is left.
    """
    count, rows = 0, list[dict[str, Any]]()
    with files.replacing(path) as file, pq.ParquetWriter(file, SCHEMA) as writer:
        for label in labels:
            rows.append(asdict(label))
            count += 1
            if len(rows) == group:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows = []
        if rows or not count:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return count


def groups(path: Path) -> list[int]:
    """How many labels each row group has. `manifest.read` has seen that the file is what it was."""
    with pq.ParquetFile(path) as file:
        meta = file.metadata
        return [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]


def read_group(path: Path, group: int) -> list[Label]:
    """Read the labels of a row group."""
    with pq.ParquetFile(path) as file:
        return [Label(**record) for record in file.read_row_group(group).to_pylist()]


def all_of(path: Path) -> Iterator[Label]:
    """Read all labels, in order."""
    for group in range(len(groups(path))):
        yield from read_group(path, group)
