"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from giqa import files
from giqa.errors import StorageFullError
from training import checkpoint


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    files.write(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError) as caught:
        files.write(path, b"new")
    assert caught.value.item == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write(tmp_path / "nowhere" / "a", b"")


def test_tensors_and_what_they_are(tmp_path: Path) -> None:
    path, value = tmp_path / "a.safetensors", torch.arange(6.0).reshape(2, 3)
    checkpoint.write_tensors(path, {"a": value, "b": value.T}, {"preset": "x"})
    with safe_open(path, "pt") as f:
        assert f.metadata() == {"preset": "x"}
        assert torch.equal(f.get_tensor("b"), value.T)
