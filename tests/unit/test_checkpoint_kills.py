"""Checkpoints whose writer is killed, or whose disk is full: one of the two last is whole."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from giqa.errors import StorageFullError
from tests.unit.test_checkpoint import save, step_of
from training import checkpoint

# What the children below share. A checkpoint's tensors all hold its step's number.
CHILD = """
import logging, os, random, signal, sys, time
from pathlib import Path

import torch

from giqa.errors import StorageFullError
from training import checkpoint

torch.set_num_threads(1)
folder = Path(sys.argv[1])

def save(step, rows=64):
    model = {"a": torch.full((rows, 256), float(step)), "b": torch.tensor(float(step))}
    optimizer = {} if step == 1 else {"0/step": torch.tensor(float(step))}
    checkpoint.save(
        folder, {"model": model, "optimizer": optimizer}, {"step": step, "preset": "p"}
    )

def saved():
    "The newest step, seen to be whole; 0: none."
    found = checkpoint.load(folder, "p")
    if found is None:
        return 0
    tensors, state = found
    step = state["step"]
    assert set(tensors) == {"model", "optimizer"}, tensors
    assert set(tensors["model"]) == {"a", "b"}, tensors
    assert set(tensors["optimizer"]) == (set() if step == 1 else {"0/step"}), tensors
    assert all((t == step).all() for group in tensors.values() for t in group.values()), tensors
    return step

def child(run):
    pid = os.fork()
    if not pid:
        try:
            run()
        except BaseException as e:
            print(repr(e), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return pid

def files():
    return sorted(p.name for p in folder.iterdir())
"""


def child(script: str, folder: Path, checkout: Path, *prefix: str) -> str:
    """Run `CHILD` and a script; returns what it prints. A warning of a damaged file fails."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", CHILD + script, str(folder)],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "damaged" not in done.stderr
    return done.stdout


def test_kills_at_random_times(tmp_path: Path, checkout: Path) -> None:
    out = child(
        """
def forever():
    step = saved()
    while True:
        step += 1
        save(step)

random.seed()
last = 0
for _ in range(14):
    pid = child(forever)
    time.sleep(random.uniform(0.0, 0.15))
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    now = saved()
    assert now >= last, (now, last)
    last = now
save(last + 1)
assert saved() == last + 1
print(last, len(files()), sum(n.endswith(".tmp") for n in files()))
""",
        tmp_path,
        checkout,
    )
    steps, files, temporary = map(int, out.split())
    assert steps > 0
    assert (files, temporary) == (6, 0)


def test_a_kill_at_every_operation(tmp_path: Path, checkout: Path) -> None:
    # Python tells of every open, rename and removal before it is done.
    out = child(
        """
for step in (1, 2):
    save(step)

def killed_at(n):
    def run():
        seen = 0
        def hook(event, arguments):
            nonlocal seen
            if event in ("open", "os.rename", "os.remove") and str(folder) in str(arguments[0]):
                seen += 1
                if seen == n:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        save(step + 1)
    return run

n, killed = 1, 0
while True:
    status = os.waitpid(child(killed_at(n)), 0)[1]
    now = saved()
    if status == 0:
        assert now == step + 1
        break
    assert status == signal.SIGKILL, status
    assert now in (step, step + 1), (n, now)
    step, n, killed = now, n + 1, killed + 1
print(killed, len(files()))
""",
        tmp_path,
        checkout,
    )
    killed, files = map(int, out.split())
    assert killed > 15
    assert files == 6


def test_a_disk_that_is_really_full(tmp_path: Path, checkout: Path) -> None:
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    command = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'
    prefix = [*mount, command, str(tmp_path)]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs a file system of its own in a namespace")
    out = child(
        """
save(1)
save(2)
before = files()
# A KiB a row: down to what just fits, so that each file in turn is the one too many.
for rows in range(1000, 0, -1):
    try:
        save(3, rows)
    except StorageFullError as e:
        print(e)
    else:
        break
    assert files() == before, files()
    assert rows % 8 or saved() == 2
assert 700 < rows < 990, rows
assert saved() == 3
""",
        tmp_path,
        checkout,
        *prefix,
    )
    (told,) = set(out.splitlines())
    assert told == (
        f"[storage_full] {tmp_path}: no space left for the checkpoint of step 3; older ones are "
        "intact (free space and run again: it goes on from the last checkpoint)"
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("at", range(1, 6))
def test_a_write_that_fails_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, at: int
) -> None:
    """Simulated: the n-th sync fails (a late ENOSPC of a network disk), its file half there."""
    for step in (1, 2):
        save(tmp_path, step)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    calls = []

    def failing(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == at:
            if at < 5:  # the fifth is the folder's
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", failing)
        with pytest.raises(OSError if number == errno.EIO else StorageFullError):
            save(tmp_path, 3)
    assert step_of(tmp_path) == 2
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    if at < 5:
        assert after == before
    save(tmp_path, 3)
    assert step_of(tmp_path) == 3
