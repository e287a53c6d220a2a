"""Suites that end before they are done: by time, by signals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import page
from benchmarks.__main__ import main
from benchmarks.record import Series, load
from benchmarks.suites import SUITES
from giqa.cli import FAILURE, ITEMS_FAILED


def test_a_suite_that_a_signal_ended_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -KILL $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    found = CliRunner().invoke(main, ["run", "micro", "scale", "--quick"])
    assert found.exit_code == FAILURE


LATE = """
import sys, time
from pathlib import Path
from benchmarks.options import Options
from benchmarks.record import Series, record, save
from benchmarks.rounds import TimeUp, interleave, limited

calls = []

def series(name, *values, against=()):
    return Series(name=name, unit="ms", better="lower", values=values, against=against)

def slower():
    calls.append(0)
    time.sleep(60 if len(calls) > 3 else 0)  # one round to warm up, two that count
    return 1.0

def suite():
    yield series("first/time", 1.0, against=("never/time",))
    yield series("a/time", *interleave({"a": slower}, rounds=7, seed=0)["a"])
    time.sleep(60)
    yield series("never/time", 1.0)

before, after = map(Path, sys.argv[1:])
save(record("engine", limited(suite(), 0.5), Options(), lambda one: save(one, before)), after)
assert list(limited([1, 2], 60)) == [1, 2]
try:
    interleave({"a": lambda: next(limited(iter(lambda: time.sleep(60), 0), 0.1))}, rounds=1, seed=0)
except TimeUp:
    print("no round")
"""


def test_a_suite_whose_time_is_over_keeps_what_it_found(tmp_path: Path, checkout: Path) -> None:
    """Whole rounds, too; what is compared with something missing is not compared.

    In a process of its own: a signal here would meet the threads of other tests' libraries.
    """
    folders = [str(tmp_path / name) for name in ("before", "after")]
    done = subprocess.run(
        [sys.executable, "-c", LATE, *folders], capture_output=True, text=True, cwd=checkout
    )
    assert (done.returncode, done.stdout) == (0, "no round\n"), done.stderr
    before, found = (load(Path(folder) / "engine.json") for folder in folders)
    assert found.unfinished == "stopped after 0.5 s"
    assert [one.name for one in found.series] == ["first/time", "a/time"]
    assert found.get("a/time").values == (1.0, 1.0)
    assert found.comparisons == []
    asked = "\n".join((*page.QUESTIONS, *page.MARKERS))
    text = page.with_results(asked, [found])
    assert "**Not all of it: stopped after 0.5 s.**" in text
    assert before.series == found.series  # had the process been ended
    assert before.unfinished


def test_the_command_stops_in_time(tmp_path: Path, checkout: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "run", "video", "--limit", "0.05"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, cwd=checkout
    )
    assert done.returncode == ITEMS_FAILED, done.stderr
    assert "video: stopped after 0.05 s; what it found (0 series) is kept" in done.stderr
    assert load(tmp_path / "video.json").unfinished == "stopped after 0.05 s"


DEAF = """
from benchmarks import rounds
rounds._GRACE = 0.2
for _ in rounds.limited((sum(range(10**12)) for _ in range(1)), 0.2):
    pass
"""


def test_what_hears_no_signal_is_ended(checkout: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, cwd=checkout)
    assert done.returncode == 1
    assert b"Timeout" in done.stderr


@pytest.mark.parametrize("suite", SUITES)
def test_parts_on_a_gpu_end_in_five_minutes(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless told otherwise; other suites have the time they need."""
    seen = []

    def stopped(source: object, seconds: float | None) -> list[Series]:
        seen.append(seconds)
        return []

    monkeypatch.setattr("benchmarks.__main__.limited", stopped)
    assert CliRunner().invoke(main, ["run", suite, "--quick"]).exit_code == 0
    assert seen == [300 if suite.startswith("gpu") else None]
