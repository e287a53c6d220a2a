"""`python -m training evaluate --ranking`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from giqa.bundle import load_bundle
from giqa.errors import GiqaError, UsageError
from giqa.local import LocalScorer
from giqa.results import ImageResult
from tests.photos import photo
from training.__main__ import main
from training.distortions import distort
from training.evaluation import ranking
from training.evaluation.ranking import Ranking

TYPES = ("gaussian_blur", "jpeg")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(2):
        Image.fromarray(photo(640 - 100 * i, 480, i)).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


class Sizes:
    """Scores are the pictures' sizes in bytes as JPEG: damage by blur and compression shrinks it.

    One in `every` fails.
    """

    engine = "sizes"
    manifest = load_bundle(None).manifest

    def __init__(self, every: int = 10**9) -> None:
        self.every = every

    def score(self, items: Iterable[bytes], **_: object) -> Iterator[ImageResult]:
        for i, data in enumerate(items, 1):
            error = GiqaError("no") if i % self.every == 0 else None
            out = io.BytesIO()
            Image.open(io.BytesIO(data)).save(out, "JPEG", quality=90)
            score = None if error else len(out.getvalue()) / 10_000
            yield ImageResult(path=str(i), error=error, score=score, bundle="b", engine="e",
                              profile="fast")  # fmt: skip


def test_it_counts_what_an_independent_loop_counts(photographs: list[Path]) -> None:
    found = ranking.rank(Sizes(), photographs, types=TYPES, side=512, resamples=200)  # type: ignore[arg-type]
    right, means = [], []
    for number, path in enumerate(photographs):
        image = Image.open(path).convert("RGB")
        image.thumbnail((512, 512), Image.Resampling.LANCZOS)
        for kind in TYPES:
            sizes = []
            for level in (0, 1, 3, 5):
                pixels = np.asarray(image)
                if level:
                    pixels = distort(pixels, kind, level=level, seed=number)
                out = io.BytesIO()
                Image.fromarray(pixels).save(out, "JPEG", quality=90)
                sizes.append(len(out.getvalue()) / 10_000)
            right.append((sizes[1] > sizes[2] > sizes[3], sizes[0] > sizes[2]))
            means.append(sizes)
    assert found.photographs == 2
    assert found.all.triples.n == found.all.clean.n == 4
    assert found.all.triples.right == np.mean([a for a, _ in right])
    assert found.all.clean.right == np.mean([b for _, b in right])
    np.testing.assert_allclose(found.all.means, np.mean(means, 0))
    np.testing.assert_allclose(found.types["jpeg"].means, np.mean(means[1::2], 0))
    assert found.types["jpeg"].triples.n == 2
    assert Ranking.model_validate_json(found.to_json()) == found


def test_what_cannot_be_scored_is_counted_and_left_out(photographs: list[Path]) -> None:
    # 2 x (1 + 2 types x 3 levels) = 14 pictures: the 5th is level 1 of jpeg, the 10th (third of
    # the second photograph) level 3 of blur.
    found = ranking.rank(Sizes(5), photographs, types=TYPES, resamples=50)  # type: ignore[arg-type]
    assert found.failed == 2
    assert found.all.triples.n == 2
    assert found.all.clean.n == 3
    none = ranking.rank(Sizes(1), photographs, types=TYPES, resamples=50)  # type: ignore[arg-type]
    assert none.failed == 14
    assert none.all.triples.right is None
    assert "| all | 0 | - | - | -, -, -, - |" in ranking.markdown(none)


def test_ties_are_not_in_order(photographs: list[Path]) -> None:
    found = ranking.rank(Sizes(), photographs[:1], types=["gaussian_blur"], side=64, resamples=50)  # type: ignore[arg-type]
    # Level 1 of that type leaves the picture as it is.
    assert found.all.means[0] == found.all.means[1]
    tied = np.full((2, 3, 4), 50.0)
    row = ranking.judge(tied, 50, 0)
    assert row.triples.right == row.clean.right == 0


def test_the_command_ranks_with_the_default_bundle(tmp_path: Path) -> None:
    out, photograph = tmp_path / "ranking.json", tmp_path / "photograph.png"
    Image.fromarray(photo(200, 150)).save(photograph)
    run = CliRunner().invoke(
        main,
        ["evaluate", "--ranking", str(photograph), "--resamples", "50", "--json", str(out)],
        standalone_mode=False,
    )
    assert run.exception is None
    found = json.loads(out.read_text())
    assert found["schema"] == "giqa.ranking/1"
    assert len(found["types"]) == 23
    assert found["all"]["triples"]["n"] == 23
    with LocalScorer(None) as scorer:
        clean = next(iter(scorer.score([photograph]))).score
    assert found["all"]["means"][0] == pytest.approx(clean, abs=1e-3)
    assert run.stdout.count("\n| ") == 25


def test_options_of_labels_do_not_go_with_it(photographs: list[Path]) -> None:
    arguments = ["evaluate", "--ranking", str(photographs[0]), "--views", "1,2"]
    with pytest.raises(UsageError, match="goes with"):
        CliRunner().invoke(main, arguments, standalone_mode=False, catch_exceptions=False)
