"""Scores, probes and moments that the board is made of, and the command."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from giqa.bundle import load_bundle
from giqa.errors import CorruptError, GiqaError
from giqa.manifest import Manifest
from giqa.results import ImageResult
from tests import small
from tests.photos import photo
from tests.unit.board.made import RECIPE, as_in_a_manifest, read, run, weights
from training.board import parts, pictures, plot, probes, scores, tables, tiles
from training.board.measure import Wanted, measure
from training.board.measures import Draw
from training.board.parts import CELLS, TERM, WHOLE
from training.board.results import Board
from training.board.scorers import Model
from training.evaluation.torch_scorer import TorchScorer
from training.model import Giqa, create

DRAW = Draw(resamples=20)


class Bright:
    """Scores are mean brightness; those of term and cells are half of it, and its opposite."""

    engine = "bright"
    manifest = load_bundle(None).manifest

    def __init__(self) -> None:
        self.asked = 0
        self.fails_at = 10**9

    def score(self, items: Iterable[Path], *, quality_map: bool) -> Iterator[ImageResult]:
        for path in items:
            self.asked += 1
            if self.asked == self.fails_at:
                yield ImageResult(
                    path=str(path), error=CorruptError("broken"), score=None, bundle="b",
                    engine="e", profile="fast",
                )  # fmt: skip
                return
            value = float(np.asarray(Image.open(path).convert("L")).mean() / 2.56)
            parts = np.array([[[value / 2, 100 - value]]], np.float32)
            yield ImageResult(
                path=str(path), score=value, bundle="b", engine="e", profile="fast",
                quality_map=parts if quality_map else None,
            )  # fmt: skip


def model_of(scorer: Bright, absent: dict[str, str] | None = None) -> Model:
    preset: dict[str, Any] = {"head": "map"}
    return Model(scorer, "bright", "0" * 64, preset, "by hand", absent or {})  # type: ignore[arg-type]


@contextmanager
def no_run(path: Path) -> Iterator[Model]:
    raise AssertionError
    yield


def test_scores_are_kept_and_a_failure_names_its_picture(folder: Path) -> None:
    what = read(folder)
    (people,) = pictures.collect(what, ["people"]).values()
    scorer = Bright()
    scorer.fails_at = 6
    with pytest.raises(CorruptError, match=r"1-1\.png: broken"):
        scores.score(what.cache, model_of(scorer), people)
    found = scores.score(what.cache, model_of(scorer), people)
    assert scorer.asked == 6 + 3  # five were kept
    again = scores.score(what.cache, model_of(scorer), people)
    assert scorer.asked == 9
    for row, values in found.items():
        np.testing.assert_array_equal(values, again[row])
    np.testing.assert_allclose(found[TERM], found[WHOLE] / 2, rtol=1e-5)
    np.testing.assert_allclose(found[CELLS], 100 - found[WHOLE], rtol=1e-5)
    Image.fromarray(photo(130, 90, 5)).save(folder / "photos" / "0-1.png")
    (changed,) = pictures.collect(what, ["people"]).values()
    scores.score(what.cache, model_of(scorer), changed)
    assert scorer.asked == 9 + 8


def test_the_board_has_every_row_and_says_what_it_has_not(folder: Path, rendered: Path) -> None:
    shutil.copytree(rendered, folder, dirs_exist_ok=True)
    names = ["people", "steps", "jpeg", "flats", "small", "forms"]
    what = read(folder, data=None)
    scorer = Bright()
    board = measure(what, model_of(scorer), Wanted(names, draw=DRAW), no_run)
    assert [row.name for row in board.rows] == [WHOLE, TERM, CELLS, *probes.NAMES]
    whole, term, cells, fitted, *_ = board.rows
    with (folder / "tables" / "people.csv").open() as file:
        rows = list(csv.DictReader(file))
    bright = [
        np.asarray(Image.open(folder / "photos" / r["path"]).convert("L")).mean() for r in rows
    ]
    expected = spearmanr(bright, [float(r["mos"]) for r in rows])[0]
    assert whole.values["people: SROCC"].value == pytest.approx(expected)
    assert term.values["people: SROCC"].value == pytest.approx(expected)
    assert cells.values["people: SROCC"].value == pytest.approx(-expected)
    assert whole.values["people: SROCC within references"].n == 2
    assert not fitted.values
    assert fitted.absent == dict.fromkeys(names, "the recipe has no training images ([data])")
    assert board.unmeasured == {"native": "not asked for (--sets)"}
    assert Board.model_validate_json(board.to_json()) == board
    text = tables.markdown(board)
    assert "| set | measure | n | whole score | image-level term alone | cells alone |" in text
    assert "| flats | largest score | 25 |" in text
    assert "not measured: native: not asked for (--sets)" in text
    assert "not measured: ridge, MLP, ridge on 1,000 on all sets: the recipe has no" in text
    assert [p.suffix for p in plot.write(board, folder)] == [".png", ".svg"]
    asked = scorer.asked
    again = measure(what, model_of(scorer), Wanted(names, draw=DRAW), no_run)
    assert (again, scorer.asked) == (board, asked)
    alone = model_of(scorer, dict.fromkeys((TERM, CELLS), "there are none"))
    parted = measure(what, alone, Wanted(["people"], draw=DRAW), no_run)
    assert parted.rows[1].absent == {"people": "there are none"}


def labelled(folder: Path) -> None:
    """Training images of two subsets, the second brighter."""
    (folder / "biq").mkdir()
    small.make_root(folder / "biq", count=60)
    table = folder / "biq" / "Train (Images and MOS).csv"
    lines = table.read_text().splitlines()
    for i in range(1, len(lines), 2):
        name = lines[i].split(",")[0]
        lines[i] = lines[i].replace("ss01", "ss02")
        (folder / "biq" / "Images" / name).rename(
            folder / "biq" / "Images" / name.replace("ss01", "ss02")
        )
    table.write_text("\n".join(lines) + "\n")


def test_ridge_and_mlp_learn_from_training_images_and_one_subset_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled(folder)
    what = read(folder)
    scorer = Bright()
    scorer.manifest = manifest_of(create("small"))
    model = replace(model_of(scorer), preset=as_in_a_manifest(small.SMALL))
    run_without = replace(model, digest="1" * 64)

    @contextmanager
    def open_run(path: Path) -> Iterator[Model]:
        yield run_without

    wanted = Wanted(["validation", "left-out", "people"], left_out={"ss02": folder}, draw=DRAW)
    board = measure(what, model, wanted, open_run)
    whole, _, _, fitted, mlp, few = board.rows
    assert fitted.how.startswith("44 images, alpha ")
    assert "without ss01: 19 images" in fitted.how
    assert fitted.values["validation: SROCC"].n == 16
    assert fitted.values["ss01 left out: SROCC"].n == 30
    assert fitted.values["ss02 left out: SROCC"].n == 30
    assert mlp.values["people: SROCC"].n == few.values["people: SROCC"].n == 8
    assert whole.values["ss02 left out: SROCC"].n == 30
    assert whole.absent == {"ss01 left out": "no run without it was given (--left-out ss01=RUN)"}
    names = {m.name for m in board.measures if m.set == "validation"}
    assert names == {"SROCC", "PLCC", "SROCC ss01", "SROCC ss02"}
    # Nothing is computed twice, nor are test images asked for.
    monkeypatch.setattr("training.board.probes._fit", None)
    assert measure(what, model, wanted, open_run) == board
    assert not (folder / "biq" / "Test (Images and MOS).csv").exists()
    with pytest.raises(ValueError, match="no subset ss03"):
        measure(what, model, replace(wanted, left_out={"ss03": folder}), open_run)


def manifest_of(model: Giqa) -> Manifest:
    with TorchScorer(model) as scorer:
        return scorer.manifest


def test_moments_of_tiles_are_those_of_native_pixels(folder: Path) -> None:
    labelled(folder)
    torch.manual_seed(0)
    model = create("small")
    manifest = manifest_of(model)
    fast = manifest.profiles["fast"].model_copy(update={"tiles": 4, "tile_pixels": 300 * 300})
    manifest = manifest.model_copy(update={"profiles": {**manifest.profiles, "fast": fast}})
    large = photo(448, 448, 3)
    paths = [folder / "large.png", folder / "small.png"]
    Image.fromarray(large).save(paths[0])
    Image.fromarray(photo(224, 224, 4)).save(paths[1])
    samples = [pictures.Sample(p, 0.0) for p in paths]
    with torch.inference_mode():
        branch = model.local_branch
        whole = torch.from_numpy(photo(224, 224, 4))[None, None]
        frames = branch.pool(branch.stages(whole)).repeat(2, 1).numpy()
    found = tiles.features(folder / "tiles", model, samples, manifest, frames, amp=False)
    corners = [(y, x) for y in (56, 168) for x in (56, 168)]
    native = np.stack([large[y : y + 224, x : x + 224] for y, x in corners])
    with torch.inference_mode():
        each = branch.pool(branch.stages(torch.from_numpy(native)[:, None]))
        np.testing.assert_allclose(found[0], each.mean(0), atol=5e-3, rtol=5e-3)
    np.testing.assert_allclose(found[1], frames[1], atol=5e-3, rtol=5e-3)  # has no tiles


def test_a_run_is_measured_by_the_command(folder: Path) -> None:
    torch.manual_seed(0)
    (folder / "board.toml").write_text(
        RECIPE[: RECIPE.index("[data]")] + RECIPE[RECIPE.index("[opinions") :]
    )
    where = weights(folder / "run", create("small"))
    done = run(folder / "board.toml", "--run", where, "--sets", "people", "--resamples", 20,
               "--out", folder / "out")  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    assert "`small of run`, `torch-f32`" in done.output
    found = Board.model_validate_json((folder / "out" / "board.json").read_bytes())
    assert found.rows[1].absent["people"] == "the model has no term beside its cells"
    assert found.rows[2].how == parts.HOW_CELLS
    assert found.rows[2].values["people: SROCC"].n == 8
    names = {p.name for p in (folder / "out").iterdir()}
    assert names == {"board.json", "board.md", "board.png", "board.svg"}
    assert (folder / "out" / "board.md").read_text() in done.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--sets", "people,moon"), "no set 'moon'"),
        (("--bundle", "giqa-s", "--run", "."), "excludes --bundle"),
        (("--run", ".", "--precision", "int8"), "float32"),
        (("--left-out", "ss01"), "SUBSET=RUN"),
        (("--run", "."), "not finished"),
    ],
)
def test_options_that_do_not_go_together(
    folder: Path, arguments: tuple[str, ...], told: str
) -> None:
    found = run(folder / "board.toml", *arguments)
    assert isinstance(found.exception, GiqaError)
    assert told in str(found.exception)
