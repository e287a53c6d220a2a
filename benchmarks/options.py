"""What a run of the benchmarks may be told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

QUICK_ROUNDS = 2
"""Rounds of a quick run: enough to see that a suite works, too few to compare."""


@dataclass(frozen=True)
class Options:
    """Options of all suites; each takes what concerns it.

    Attributes:
        images: folder of JPEG files; None takes the sample photographs of the extra `demo`.
        labels: table of opinion scores (CSV with `path` and `mos`) for suites that also look at
            accuracy; None leaves accuracy out.
        bundle: folder or name of a packaged bundle; None is the default bundle.
        threads: threads of every contender.
        rounds: counted rounds.
        seed: of the order within rounds, of made-up data and of the bootstrap.
        quick: little work, only to see that a suite runs.
        full: the long forms, such as 20,000 images for memory.
    """

    images: Path | None = None
    labels: Path | None = None
    bundle: str | None = None
    threads: int = 2
    rounds: int = 7
    seed: int = 0
    quick: bool = False
    full: bool = False

    def facts(self) -> dict[str, str | int | bool | None]:
        """All but seed, for a record: of paths the names only."""
        found = {k: v.name if isinstance(v, Path) else v for k, v in asdict(self).items()}
        if self.bundle is not None:
            found["bundle"] = Path(self.bundle).name
        return {name: value for name, value in found.items() if name != "seed"}
