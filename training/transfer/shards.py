"""One row group of labels to pictures on disk: a folder of files, or a tar shard.

What a group gives is done once its part `parts/000000.jsonl` is there; pictures are written before.
A group that was interrupted is rendered again, to the same bytes under the same names.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from giqa import files
from giqa.errors import UsageError
from training.transfer import labels
from training.transfer.labels import Label
from training.transfer.render import Pixels, render

Format = Literal["images", "webdataset"]
Encoding = Literal["png", "webp"]
FORMATS: tuple[Format, ...] = get_args(Format)
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

PARTS = "parts"

# Fast settings; the next slower ones save a few per cent of the space.
_OPTIONS: dict[Encoding, dict[str, Any]] = {
    "png": {"compress_level": 3},
    "webp": {"lossless": True, "quality": 20, "method": 1, "exact": True},
}


@dataclass(frozen=True)
class Job:
    """What is rendered, and to where.

    Attributes:
        labels: the Parquet file.
        photos: the folder of photographs.
        out: the folder of pictures.
        format: `images` or `webdataset`.
        encoding: `png` or `webp`, both without loss.
    """

    labels: Path
    photos: Path
    out: Path
    format: Format = "images"
    encoding: Encoding = "png"

    def part(self, group: int) -> Path:
        """Where a group says that it is done."""
        return self.out / PARTS / f"{group:06}.jsonl"

    def shard(self, group: int) -> Path:
        """The group's pictures: a tar file, or a folder."""
        if self.format == "webdataset":
            return self.out / "shards" / f"{group:06}.tar"
        return self.out / "images" / f"{group:06}"

    def done(self, group: int) -> bool:
        """Whether a group's pictures are all there."""
        return self.part(group).is_file() and self.shard(group).exists()


def encode(pixels: Pixels, encoding: Encoding) -> bytes:
    """Compress without loss.

    Args:
        pixels: (H, W, 3) uint8.
        encoding: `png` or `webp`.

    Returns:
        A file's bytes; the same every time with one version of Pillow.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, encoding.upper(), **_OPTIONS[encoding])
    return file.getvalue()


def write_group(job: Job, group: int) -> int:
    """Render a group. A picture whose PSNR cannot be reached is noted in the part and left out.

    Args:
        job: what and where.
        group: its number.

    Returns:
        How many labels it has.

    Raises:
        TableInvalidError: a label makes no sense, or a photograph is another than was labelled.
        InputError: a photograph cannot be read.
        UsageError: a label's value is out of range.
        StorageFullError: no room; nothing of the group counts.
    """
    found = labels.read_group(job.labels, group)
    shard = job.shard(group)
    rows: list[dict[str, Any]] = []
    (shard.parent if job.format == "webdataset" else shard).mkdir(parents=True, exist_ok=True)
    if job.format == "webdataset":
        with files.replacing(shard) as file, tarfile.open(fileobj=file, mode="w") as tar:
            for label, picture in _pictures(job, found, rows):
                _add(tar, f"{label.key}.{job.encoding}", picture)
                _add(tar, f"{label.key}.json", json.dumps(rows[-1]).encode())
    else:
        for label, picture in _pictures(job, found, rows):
            files.write(shard / f"{label.key}.{job.encoding}", picture)
    job.part(group).parent.mkdir(parents=True, exist_ok=True)
    files.write(job.part(group), "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    return len(found)


def read_part(job: Job, group: int) -> list[dict[str, Any]]:
    """A finished group's rows: a label with `value` as rendered and `file`, or with `error`."""
    return [json.loads(line) for line in job.part(group).read_text().splitlines()]


def remove_temporary(out: Path) -> int:
    """Remove what a killed run was writing; it counts for nothing.

    Returns:
        How many files.
    """
    found = [*out.glob(".*.tmp"), *out.glob("*/.*.tmp"), *out.glob("images/*/.*.tmp")]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def _pictures(
    job: Job, found: list[Label], rows: list[dict[str, Any]]
) -> Iterator[tuple[Label, bytes]]:
    """Pictures that can be made, each after its row was added; rows of others, too."""
    for label in found:
        row = asdict(label)
        try:
            made = render(label, job.photos)
        except UsageError as e:
            rows.append({**row, "error": str(e)})
            continue
        rows.append({**row, "value": made.value, "file": f"{label.key}.{job.encoding}"})
        yield label, encode(made.pixels, job.encoding)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # No times and no owners: the same labels give the same bytes.
    about = tarfile.TarInfo(name)
    about.size, about.mode = len(data), 0o644
    tar.addfile(about, io.BytesIO(data))
