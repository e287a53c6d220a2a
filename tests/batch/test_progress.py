"""How far a run is: a bar on a terminal, a line a minute elsewhere, a file for programs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from giqa import batch
from giqa.batch import Progress
from giqa.cli import _batch, group
from giqa.errors import ServerUnavailableError
from tests.batch.test_tables import PICTURES
from tests.brightness import Brightness
from tests.terminal import on_terminal


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i:02d}.png").write_bytes(PICTURES[i % 5])
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of tiny pictures is over before anybody would be told."""
    monkeypatch.setattr("giqa.batch._progress._EVERY_S", 0.0)
    monkeypatch.setattr("giqa.batch._progress._FILE_EVERY_S", 0.0)


def test_a_bar_on_a_terminal(photos: Path, tmp_path: Path) -> None:
    for i in range(8, 30):
        (photos / f"{i:02d}.png").unlink()
    lines = on_terminal(100, "batch", "run", photos, "--out", tmp_path / "out", stderr=True)
    bars = [line for line in lines if "images/s" in line]
    assert bars
    last = bars[-1]
    assert re.search(r"100%\|.*\| 9/9, \d+\.\d images/s, 00:00 left, 1 failed", last), last
    assert all(len(line) <= 100 for line in bars)


def test_a_line_a_minute_elsewhere(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch.Runtime, "open", lambda *_: Brightness())
    monkeypatch.setattr(_batch, "_LOG_S", 600.0)
    arguments = ["batch", "run", str(photos), "--shard-size", "4", "--out"]
    silent = CliRunner().invoke(group, [*arguments, str(tmp_path / "one")])
    assert "images/s" not in silent.stderr
    monkeypatch.setattr(_batch, "_LOG_S", 0.0)
    told = CliRunner().invoke(group, [*arguments, str(tmp_path / "two")])
    lines = [line for line in told.stderr.splitlines() if "images/s" in line]
    shape = r"giqa: \d+ of 31, \d+\.\d images/s, \d\d:\d\d left, [01] failed"
    assert any(re.fullmatch(shape, line) for line in lines), told.stderr


def test_a_file_for_programs(photos: Path, tmp_path: Path) -> None:
    """It says how far the run is, and how it ended, whatever ended it."""
    out, seen = tmp_path / "out", []

    def look(now: Progress) -> None:
        seen.append((now, json.loads((out / "status.json").read_text())))

    batch.run([str(photos)], out, shard_size=4, scorer=Brightness(), progress=look)
    before, after = seen[len(seen) // 2], json.loads((out / "status.json").read_text())
    assert before[1]["state"] == "running"
    assert 0 < before[0].done < before[0].total == 31
    assert before[0].rate > 0
    assert before[0].eta_s is not None
    assert [now.done for now, _ in seen] == sorted(now.done for now, _ in seen)
    wanted = {
        "schema": "giqa.batch.status/1",
        "state": "done",
        "done": 31,
        "total": 31,
        "failed": 1,
    }
    assert {key: after[key] for key in wanted} == wanted
    assert {"rows", "rate", "eta_s", "error", "updated", "process", "host"} <= after.keys()

    class Gone(Brightness):
        def score(self, items: object, **options: object):  # type: ignore[no-untyped-def]
            for number, result in enumerate(super().score(items, **options)):  # type: ignore[arg-type]
                if number == 9:
                    raise ServerUnavailableError("gone")
                yield result

    with pytest.raises(ServerUnavailableError):
        batch.run([str(photos)], tmp_path / "gone", shard_size=4, scorer=Gone())
    ended = json.loads((tmp_path / "gone" / "status.json").read_text())
    assert (ended["state"], ended["error"]) == ("failed", "server_unavailable")
    assert ended["done"] == 9

    def interrupt(now: Progress) -> None:
        if now.done > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch.run([str(photos)], tmp_path / "cut", scorer=Brightness(), progress=interrupt)
    assert json.loads((tmp_path / "cut" / "status.json").read_text())["state"] == "interrupted"
    resumed = []
    batch.resume(tmp_path / "gone", scorer=Brightness(), progress=resumed.append)
    assert resumed[-1].done == resumed[-1].total == 31
    assert resumed[-1].rows < 31  # what was there already is not counted as work
