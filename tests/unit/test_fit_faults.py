"""What can go wrong with a run: told clearly, and mended by running the recipe again."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from giqa.errors import GiqaError, StorageFullError
from tests import small
from training import checkpoint, fit, loop, recipe

RECIPES = sorted(Path(fit.__file__).parent.glob("recipes/*[!d].toml"))  # no board, no cards

pytestmark = [
    pytest.mark.usefixtures("small_presets"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make_root(tmp_path_factory.mktemp("data"))


def start(arguments: list[str], *, processes: int = 0) -> subprocess.Popen[str]:
    """Start `python -m training`, alone or in several processes under torchrun."""
    program = [sys.executable, "-m"]
    if processes:
        program += [
            "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m",
        ]  # fmt: skip
    return subprocess.Popen(
        [*program, "tests.small", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def run(arguments: list[str], *, processes: int = 0, code: int = 0) -> str:
    """Run it to its end; its stderr."""
    child = start(arguments, processes=processes)
    _, err = child.communicate(timeout=300)
    assert child.returncode == code, err
    return err


# --- processes ---


@pytest.mark.dali
def test_kill_9_at_any_time_loses_nothing(root: Path, tmp_path: Path) -> None:
    changes = {
        "optimisation__epochs": 6, "optimisation__save_steps": 1, "threads": 1,
    }  # fmt: skip
    straight = small.to_toml(
        small.recipe(root, tmp_path / "straight", **changes), tmp_path / "straight.toml"
    )
    broken = small.to_toml(
        small.recipe(root, tmp_path / "broken", **changes), tmp_path / "broken.toml"
    )
    run(["fit", str(straight)])
    state, killed = tmp_path / "broken" / "state.json", 0
    for target in (1, 13):
        child = start(["fit", str(broken)])
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and child.poll() is None:
            found = json.loads(state.read_text())["step"] if state.exists() else 0
            if found >= target:
                child.send_signal(signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.01)
        child.communicate()
    assert killed == 2, "the run ended before it was killed"
    run(["fit", str(broken)])
    ours, theirs = (
        load_file(fit.final_weights(tmp_path / name)) for name in ("broken", "straight")
    )
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.dali
def test_four_processes_learn_what_one_learns(root: Path, tmp_path: Path) -> None:
    """Losses over a batch see all of it, and all draw alike.

    What differs is the order of sums in float32. The preset has no dropout, which is each
    process's own.
    """
    changes: dict[str, object] = {
        "preset": "small", "threads": 1, "calibrate": False, "features__folder": tmp_path / "cache",
        "optimisation__epochs": 13, "optimisation__rank_weight": 0.5, "optimisation__lr": 1e-3,
        "rendered": {"table": small.make_rendered(tmp_path, 6), "groups": 4, "anchors": 4},
    }  # fmt: skip
    states, logs = [], []
    for processes in (0, 4):
        output = tmp_path / str(processes)
        what = small.to_toml(small.recipe(root, output, **changes), tmp_path / f"{processes}.toml")
        run(["fit", str(what)], processes=processes)
        states.append(load_file(fit.final_weights(output)))
        logs.append([json.loads(x) for x in (output / "log.jsonl").read_text().splitlines()])
    assert len(logs[1]) == 13, "only one process logs; 52 steps"
    for alone, together in zip(*logs, strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=2e-3)
        assert together["all_rmse"] == pytest.approx(alone["all_rmse"], rel=2e-3)
    # A softmax does not change with this bias: its gradient is rounding, which Adam magnifies.
    assert states[0].pop("fusion.head.weight.bias").abs() < 0.1
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=5e-3, rtol=5e-3, msg=name)


def test_a_checkpoint_of_another_recipe_is_refused(root: Path, tmp_path: Path) -> None:
    """Its steps would be those of neither."""
    fit.fit(small.recipe(root, tmp_path, optimisation__epochs=1, calibrate=False))
    fewer = {"data__images": 24, "features__folder": tmp_path / "cache"}
    for change in ({"optimisation__lr": 1e-3}, fewer):
        with pytest.raises(ValueError, match="checkpoint of another recipe"):
            fit.fit(small.recipe(root, tmp_path, calibrate=False, **change))
    again = small.recipe(
        root, tmp_path, optimisation__epochs=1, optimisation__save_steps=3, calibrate=False
    )
    fit.fit(again)


def test_a_batch_that_does_not_divide_is_refused(root: Path, tmp_path: Path) -> None:
    what = small.recipe(root, tmp_path / "run", optimisation__accumulate=3)
    with pytest.raises(ValueError, match="batch of 8 does not divide into 3 micro-batches"):
        fit.fit(what)


# --- data ---


@pytest.mark.dali
def test_a_corrupt_image_in_mid_epoch_is_named_and_the_run_goes_on_after(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    root = small.make_root(tmp_path / "data")
    what = small.recipe(
        root, tmp_path / "run", features=None, data__images=16, optimisation__epochs=1,
        optimisation__save_steps=1, optimisation__warmup_steps=0, calibrate=False,
    )  # fmt: skip
    train, _ = fit.splits(what)
    plan = loop.np.random.default_rng([0, 0]).permutation(16)
    bad = train[plan[12]].path  # in the second batch
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    # Statistics are taken before the first step, from all images: let the damage come later.
    original = loop.Loop._step
    with pytest.MonkeyPatch.context() as patch:
        bad.write_bytes(whole)

        def step(self: loop.Loop, rows: loop.Rows, epoch: int) -> float:
            bad.write_bytes(whole[: len(whole) // 2])
            return original(self, rows, epoch)

        patch.setattr(loop.Loop, "_step", step)
        with pytest.raises(GiqaError) as caught:
            fit.fit(what)
    assert caught.value.item == str(bad)
    assert caught.value.code in ("truncated", "corrupt")
    found = checkpoint.load(what.output, "small")
    assert found is not None
    assert found[1]["step"] == 1
    bad.write_bytes(whole)
    fit.fit(what)
    assert fit.final_weights(what.output).is_file()


@pytest.mark.parametrize(
    ("label", "match"),
    [("nan", "nan"), ("1.5", r"1\.5"), ("good", "good"), ("", "MOS|mos|empty|''")],
)
def test_labels_that_are_none_stop_a_run_at_once(tmp_path: Path, label: str, match: str) -> None:
    root = small.make_root(tmp_path, count=10)
    table = root / "Train (Images and MOS).csv"
    rows = table.read_text().splitlines()
    rows[4] = f"ss01 (3).jpg,{label},,"
    table.write_text("\n".join(rows) + "\n")
    with pytest.raises(ValueError, match=match):
        fit.fit(small.recipe(root, tmp_path / "run"))


def test_a_recipe_for_a_table_of_ones_own(root: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    images = sorted((root / "Images").iterdir())
    table.write_text(
        "path,mos,subset\n" + "".join(f"{p},{1 + i % 5},s{i % 2}\n" for i, p in enumerate(images))
    )
    what = small.recipe(
        root, tmp_path / "run", optimisation__epochs=1, features__folder=tmp_path / "cache",
        data={"dataset": "table", "root": table, "low": 1, "high": 5, "validation_share": 0.25},
    )  # fmt: skip
    train, validation = fit.splits(what)
    assert len(train) + len(validation) == 40
    assert {s.subset for s in validation} == {"s0", "s1"}
    assert {s.mos for s in train} == {0, 25, 50, 75, 100}
    fit.fit(what)
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text())
    assert "s0_srocc" in line


# --- checkpoints ---


def test_a_full_disk_while_saving_keeps_the_last_checkpoint(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = small.recipe(root, tmp_path, optimisation__epochs=2, calibrate=False)
    original, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.extend([1] * (tmp_path / "state.json").exists())
        if len(calls) == 3:  # within the second checkpoint
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageFullError) as caught:
            fit.fit(what)
    assert caught.value.item == str(tmp_path)
    found = checkpoint.load(tmp_path, "small")
    assert found is not None
    assert found[1]["step"] == 4
    fit.fit(what)


def test_a_checkpoint_of_another_preset_is_refused(root: Path, tmp_path: Path) -> None:
    fit.fit(small.recipe(root, tmp_path, optimisation__epochs=1, calibrate=False))
    other = small.recipe(root, tmp_path, preset="student")
    with pytest.raises(ValueError, match=r"small.*student|student.*small"):
        fit.fit(other)


def test_a_loss_that_is_no_number_stops_the_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> torch.Tensor:
        return torch.full((), torch.nan, requires_grad=True)

    monkeypatch.setattr(loop.losses, "on_scores", broken)
    with pytest.raises(ValueError, match="the loss is nan, its gradient .* at step 1"):
        fit.fit(small.recipe(root, tmp_path))
    assert not (tmp_path / "state.json").exists()


# --- recipes ---


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"freeze__local": False}, "cannot be cached"),
        ({"data__validation_more": 0}, "validation_share"),
        ({"data__validation_share": 0.1}, "validation_share"),
        ({"optimisation__lr": -1.0}, "lr"),
        ({"optimisation__epoch": 3}, "epoch"),
        ({"features": None, "rendered": {"table": "t.csv"}}, "needs"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(
    root: Path, tmp_path: Path, changes: dict[str, object], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        small.recipe(root, tmp_path, **changes)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_the_recipes_of_the_repository_are_valid(path: Path) -> None:
    assert recipe.read(path).preset in fit.PRESETS
