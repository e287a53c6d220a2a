"""What the command line chooses: a scorer and labelled images."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from giqa.bundle import load_bundle
from giqa.errors import TableInvalidError, UsageError
from giqa.scorer import Scorer
from training.data import datasets
from training.data.rounds import ROUNDS
from training.data.table import Sample

if TYPE_CHECKING:  # it imports torch
    from training.recipe import Recipe


@dataclass(frozen=True)
class Chosen:
    """Labelled images and how they are called in the record.

    Attributes:
        name: the data set.
        split: which part of it.
        protocol: one sentence on how selection and testing were kept apart.
        samples: images with MOS on 0..100.
    """

    name: str
    split: str
    protocol: str
    samples: Sequence[Sample]


@dataclass(frozen=True, kw_only=True)
class ScorerChoice:
    """One of three scorers: a bundle in process, a bundle on a server, weights in PyTorch.

    Attributes:
        bundle: folder or name; None: the default. With `url`, what the server must serve.
        precision: in process: `auto`, `f32`, `bf16` or `int8`.
        url: `grpc[s]://HOST:PORT` of a Triton server.
        server: further options of `giqa.TritonScorer`.
        weights: final weights of a run, safetensors.
        preset: their preset.
        threads: CPU threads; all unless given.
        batch: images decoded and inferred at once, in process.
    """

    bundle: str | None = None
    precision: str = "auto"
    url: str | None = None
    server: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    preset: str | None = None
    threads: int | None = None
    batch: int = 8

    def open(self) -> tuple[Scorer, str]:
        """Make the scorer.

        Returns:
            The scorer, to be closed by the caller, and the SHA-256 of what it scores with.

        Raises:
            UsageError: options that contradict each other.
            GiqaError: the scorer cannot be made.
        """
        if self.weights is not None:
            if self.bundle or self.url:
                raise UsageError("excludes --bundle and --url", item="--weights")
            if self.preset is None:
                raise UsageError("needs --preset", item="--weights")
            return self._of_weights(self.weights, self.preset)
        if self.preset is not None:
            raise UsageError("needs --weights", item="--preset")
        bundle = load_bundle(self.bundle)
        if self.url is not None:
            from giqa.client import TritonScorer

            return TritonScorer(self.url, bundle=bundle, **self.server), bundle.digest
        from giqa.local import LocalScorer

        precision: Any = self.precision
        local = LocalScorer(bundle, precision=precision, threads=self.threads, batch=self.batch)
        return local, bundle.digest

    def _of_weights(self, weights: Path, preset: str) -> tuple[Scorer, str]:
        import torch

        from training.evaluation.torch_scorer import TorchScorer

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with weights.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        return TorchScorer.load(weights, preset, threads=self.threads, batch=self.batch), digest


def of_recipe(path: Path, split: str) -> Chosen:
    """Take a split of a recipe's data set.

    Args:
        path: the recipe.
        split: `validation` (all of it), `named` (the part of it that the recipe lists by name),
            `test` (the official test split, the table's, or that of the recipe's round) or `all`.

    Raises:
        UsageError: a table has no test split, or the recipe names no files.
        OSError: a file is missing.
        ValueError: a label is not usable.
    """
    from training import recipe as recipes
    from training.card import title
    from training.fit import named_files, splits, tested

    what = recipes.read(path)
    name = title(what.data)
    official = () if what.data.dataset == "table" else datasets.info(what.data.dataset).splits
    if split == "all":
        samples = [s for part in splits(what) for s in part]
        samples += tested(what) if _has_test(what) else []
        return Chosen(name, split, "All images, of whichever split.", samples)
    if split == "test":
        samples = tested(what)
        if official:
            return Chosen(name, split, "Official test split.", samples)
        if any(sample.split for sample in samples):
            return Chosen(name, split, "The table's test split.", samples)
        split = f"test, round {what.data.round or 1} of {ROUNDS}"
        return Chosen(name, split, "A fifth of the contents, drawn by a seed.", samples)
    _, samples = splits(what)
    if split == "named":
        names = named_files(what.data)
        samples = [s for s in samples if s.path.name in names]
        if not samples:
            raise UsageError("the recipe names no files", item="--split named")
        split = f"validation, {len(samples)} fixed by name"
    held = "Held out of the official training split" if official else "Held out"
    if official and "validation" in official:
        held = "Official validation split"
    protocol = f"{held}; a run of the recipe chooses its epoch on it."
    return Chosen(name, split, protocol, samples)


def _has_test(what: Recipe) -> bool:
    from training.fit import tested

    try:
        return bool(tested(what))
    except (UsageError, FileNotFoundError):
        return False


def of_table(
    text: str, scales: Sequence[str], columns: Mapping[str, str], split: str | None = None
) -> Chosen:
    """Read a table of labelled images.

    Args:
        text: NAME=FILE; a CSV or Parquet table with the columns `path`, `mos` and maybe `subset`.
        scales: NAME=WORST..BEST each: what opinion scores mean; 0..100 where NAME is not among
            them.
        columns: what the table calls them, see `read_table`.
        split: only these rows, where the table has a column `split`.

    Raises:
        UsageError: one of the texts does not parse, or the table cannot be used.
        OSError: it cannot be read.
    """
    from training.data.table import read_table

    name, _, file = text.partition("=")
    if not name or not file:
        raise UsageError(f"{text!r} is not NAME=FILE", item="--data")
    worst, best = dict(map(_scale, scales)).get(name, (0.0, 100.0))
    low, high = sorted((worst, best))
    try:
        samples = read_table(
            Path(file), low=low, high=high, higher_is_better=best > worst, columns=columns
        )
    except (UsageError, TableInvalidError) as e:
        raise UsageError(f"{e.item}: {e.message}", item=f"--data {name}", remedy=e.remedy) from e
    if split not in (None, "all") and any(sample.split for sample in samples):
        samples = [sample for sample in samples if sample.split == split]
        return Chosen(name, f"{Path(file).stem}, {split}", f"The table's {split} split.", samples)
    return Chosen(name, Path(file).stem, "", samples)


def _scale(text: str) -> tuple[str, tuple[float, float]]:
    number = r"(-?\d+(?:\.\d+)?)"
    match = re.fullmatch(rf"(.+)={number}\.\.{number}", text)
    if match is None or float(match[2]) == float(match[3]):
        raise UsageError(f"{text!r} is not NAME=WORST..BEST", item="--scale")
    return match[1], (float(match[2]), float(match[3]))
