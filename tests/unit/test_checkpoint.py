"""Checkpoints survive kills, full disks and damage."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from training import checkpoint


def save(folder: Path, step: int, **tensors: torch.Tensor) -> None:
    groups = {"model": {"w": torch.full((64,), float(step)), **tensors}, "optimizer": {}}
    checkpoint.save(folder, groups, {"step": step, "preset": "p", "best": 0.1 * step})


def step_of(folder: Path) -> int:
    found = checkpoint.load(folder, "p")
    assert found is not None
    tensors, state = found
    assert tensors["model"]["w"].tolist() == [state["step"]] * 64
    assert tensors["optimizer"] == {}
    assert state["best"] == 0.1 * state["step"]
    return int(state["step"])


def tensor_file(folder: Path, manifest: str = "state.json") -> Path:
    entry = json.loads((folder / manifest).read_text())["files"]["model"]
    return folder / str(entry["file"])


def flip(path: Path, at: int = -3) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_everything_comes_back(tmp_path: Path) -> None:
    tied = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    groups = {
        "model": {"a": tied, "b": tied, "c": tied.T, "d": torch.tensor(2.5), "e": torch.ones(0, 4)},
        "optimizer": {},
    }
    state = {"step": 3, "preset": "p", "best": 0.1 + 0.2, "epochs": {1: [None, "ä"]}}
    assert checkpoint.load(tmp_path / "run") is None
    checkpoint.save(tmp_path / "run", groups, state)
    found = checkpoint.load(tmp_path / "run", preset="p")
    assert found is not None
    tensors, loaded = found
    assert loaded == json.loads(json.dumps(state))
    assert set(tensors) == set(groups)
    for name, value in groups["model"].items():
        assert tensors["model"][name].dtype == value.dtype
        assert torch.equal(tensors["model"][name], value)
    assert tensors["optimizer"] == {}
    tensors["model"]["a"] += 1  # its own memory


@pytest.mark.parametrize("steps", [0, 2])
def test_an_optimiser_goes_on(tmp_path: Path, steps: int) -> None:
    def made() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def train(model: torch.nn.Linear, optimizer: torch.optim.AdamW, n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()

    straight = made()
    train(*straight, steps)
    groups = {
        "model": straight[0].state_dict(),
        "optimizer": checkpoint.flatten_optimizer(straight[1]),
    }
    checkpoint.save(tmp_path, groups, {"step": steps, "preset": "p"})
    train(*straight, 3)
    found = checkpoint.load(tmp_path)
    assert found is not None
    model, optimizer = made()
    model.load_state_dict(found[0]["model"])
    checkpoint.restore_optimizer(optimizer, found[0]["optimizer"])
    train(model, optimizer, 3)
    for a, b in zip(straight[0].parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_two_are_kept_and_nothing_else_is_touched(tmp_path: Path) -> None:
    others = ["final.safetensors", "final.safetensors.tmp", "log.jsonl", ".mine.tmp"]
    ours = [".state.json.tmp", ".model-0000009-0123456789abcdef.safetensors.tmp"]
    stale = ["model-0000009-0123456789abcdef.safetensors"]
    for name in others + ours + stale:
        (tmp_path / name).write_text("x")
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert step_of(tmp_path) == 3
    assert json.loads((tmp_path / "previous.json").read_text())["step"] == 2
    left = {p.name for p in tmp_path.iterdir()} - {*others, "state.json", "previous.json"}
    assert {n[: n.rindex("-")] for n in left} == {
        f"{group}-000000{step}" for group in ("model", "optimizer") for step in (2, 3)
    }
    assert len(left) == 4
    assert all((tmp_path / n).exists() for n in others)


def test_the_same_step_saved_again_keeps_both(tmp_path: Path) -> None:
    save(tmp_path, 1, extra=torch.zeros(1))
    save(tmp_path, 1, extra=torch.ones(1))
    flip(tensor_file(tmp_path))
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found[0]["model"]["extra"].item() == 0


def damage_cut(folder: Path, manifest: str) -> str:
    path = tensor_file(folder, manifest)
    size = path.stat().st_size
    os.truncate(path, size - 7)
    return f"{manifest}: {path.name} has {size - 7} of {size} bytes"


def damage_byte(folder: Path, manifest: str) -> str:
    flip(tensor_file(folder, manifest))
    return f"{manifest}: {tensor_file(folder, manifest).name} was altered"


def damage_gone(folder: Path, manifest: str) -> str:
    tensor_file(folder, manifest).unlink()
    return f"{manifest}: {tensor_file(folder, manifest).name} is missing"


def damage_swapped(folder: Path, manifest: str) -> str:
    other = "previous.json" if manifest == "state.json" else "state.json"
    shutil.copy(tensor_file(folder, other), tensor_file(folder, manifest))
    return f"{manifest}: {tensor_file(folder, manifest).name} was altered"


def damage_state(folder: Path, manifest: str) -> str:
    text = (folder / manifest).read_text()
    (folder / manifest).write_text(text.replace('"best": 0.', '"best": 1.'))
    return f"{manifest}: truncated, altered"


def damage_cut_state(folder: Path, manifest: str) -> str:
    os.truncate(folder / manifest, 100)
    return f"{manifest}: truncated, altered"


def damage_no_state(folder: Path, manifest: str) -> str:
    (folder / manifest).unlink()
    return f"{manifest} is missing"


DAMAGES = [
    damage_cut, damage_byte, damage_gone, damage_swapped, damage_state, damage_cut_state,
    damage_no_state,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_stands_in_for_a_damaged_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    assert step_of(tmp_path) == 2
    assert not caplog.records
    told = damage(tmp_path, "state.json")
    assert step_of(tmp_path) == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert told in record.message
    assert "going on from the one before, step 1" in record.message
    # The damaged one must not become the one that stands in.
    save(tmp_path, 3)
    flip(tensor_file(tmp_path))
    assert step_of(tmp_path) == 1


@pytest.mark.parametrize(
    "damage", [d for d in DAMAGES if d not in (damage_swapped, damage_no_state)]
)
def test_where_both_are_damaged_both_are_named(tmp_path: Path, damage: Any) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    told = [damage(tmp_path, name) for name in ("previous.json", "state.json")]
    with pytest.raises(ValueError, match="no checkpoint is undamaged") as caught:
        checkpoint.load(tmp_path)
    assert all(t in str(caught.value) for t in told), str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "delete state.json and previous.json to start anew" in str(caught.value)


def test_a_damaged_only_one_is_no_fresh_start(tmp_path: Path) -> None:
    save(tmp_path, 1)
    flip(tensor_file(tmp_path))
    with pytest.raises(ValueError, match=r"altered; previous.json is missing\); delete state.json"):
        checkpoint.load(tmp_path)


def test_any_damaged_byte_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for path in (tensor_file(tmp_path), tmp_path / "state.json"):
        whole = path.read_bytes()
        for at in range(0, len(whole), 5):
            flip(path, at)
            try:
                found = checkpoint.load(tmp_path, "p")
            except ValueError:
                pass
            else:  # white space in JSON may change
                assert found is not None
                assert path.suffix == ".json"
                assert found[1] == {"step": 1, "preset": "p", "best": 0.1}
                assert found[0]["model"]["w"].tolist() == [1] * 64
            path.write_bytes(whole)


def test_another_preset_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(ValueError, match="of preset p, not of giqa-b"):
        checkpoint.load(tmp_path, preset="giqa-b")


@pytest.mark.parametrize(
    ("state", "group", "told"),
    [
        ({"preset": "p"}, "model", "must hold step"),
        ({"step": -1, "preset": "p"}, "model", "must hold step"),
        ({"step": 1}, "model", "must hold preset"),
        ({"step": 1, "preset": "p", "files": {}}, "model", "must not hold \\['files'\\]"),
        ({"step": 1, "preset": "p"}, "../model", "not a name for a group"),
        ({"step": 1, "preset": "p"}, ".model", "not a name for a group"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, state: dict[str, Any], group: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        checkpoint.save(tmp_path / "run", {group: {}}, state)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(OSError, match="exists"):
        save(tmp_path / "run", 1)
