"""The command line, as a user runs it: a process, its streams, files and exit code."""

import csv
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.makers import save
from tests.photos import photo
from tests.tiled import small_bundle


def giqa(
    *arguments: str | Path, stdin: bytes = b"", **options: object
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-W", "error", "-m", "giqa", *map(str, arguments)]
    if arguments[0] == "score" and "--bundle" not in arguments:
        command += ["--bundle", str(small_bundle())]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("photos")
    for i in range(5):
        Image.fromarray(photo(300 + 20 * i, 240, i)).save(made / f"p{i}.jpg", quality=92)
    (made / "notes.txt").write_text("not an image")
    (made / "broken.jpg").write_bytes((made / "p0.jpg").read_bytes()[:2000])
    return made


def test_a_directory_gives_rows_in_order_and_code_3(folder: Path, tmp_path: Path) -> None:
    out = {k: tmp_path / f"r.{k}" for k in ("json", "jsonl", "csv", "parquet")}
    ran = giqa("score", folder, *(f"--{k}={p}" for k, p in out.items()))
    assert ran.returncode == 3, ran.stderr.decode()
    table = [line.split("\t") for line in ran.stdout.decode().splitlines()]
    names = ["broken.jpg", *(f"p{i}.jpg" for i in range(5))]
    assert [Path(row[0]).name for row in table] == names
    assert table[0][1:] == ["-", "-", table[0][3], "truncated"]
    rows = json.loads(out["json"].read_text())
    assert [Path(r["path"]).name for r in rows] == names
    assert [r["status"] for r in rows] == ["error"] + 5 * ["ok"]
    assert rows == [json.loads(x) for x in out["jsonl"].read_text().splitlines()]
    assert [f"{r['score']:.2f}" for r in rows[1:]] == [row[1] for row in table[1:]]
    with out["csv"].open() as f:
        assert [r["path"] for r in csv.DictReader(f)] == [r["path"] for r in rows]
    assert pq.read_table(out["parquet"])["path"].to_pylist() == [r["path"] for r in rows]
    assert b"1 could not be scored" in ran.stderr


def test_all_good_is_0_and_below_is_4(folder: Path) -> None:
    good = sorted(folder.glob("p*.jpg"))
    ran = giqa("score", *good, "--fail-below", "0")
    assert (ran.returncode, ran.stderr) == (0, b"")
    ran = giqa("score", *good, folder / "broken.jpg", "--fail-below", "101")
    assert ran.returncode == 4
    assert len(ran.stdout.splitlines()) == 6


def test_lists_on_stdin(folder: Path) -> None:
    paths = [os.fsencode(p) for p in sorted(folder.glob("p*.jpg"))]
    lines = giqa("score", "-", stdin=b"\n".join(paths) + b"\n")
    nul = giqa("score", "-0", "-", stdin=b"\0".join(paths))
    assert lines.returncode == nul.returncode == 0
    assert lines.stdout == nul.stdout
    assert len(lines.stdout.splitlines()) == 5


def test_json_to_stdout_is_only_json(folder: Path) -> None:
    ran = giqa("score", folder / "p0.jpg", "--json", "-")
    (row,) = json.loads(ran.stdout)
    assert row["status"] == "ok"


def test_precise_profile(folder: Path) -> None:
    ran = giqa("score", folder / "p0.jpg", "--profile", "precise", "--jsonl", "-")
    row = json.loads(ran.stdout)
    assert (row["profile"], row["status"]) == ("precise", "ok")


@pytest.mark.parametrize(
    "arguments",
    [
        ["score"],
        ["score", "x.jpg", "--profile", "slow"],
        ["score", "x.jpg", "--json", "-", "--csv", "-"],
        ["score", "x.jpg", "--parquet", "-"],
        ["score", "x.jpg", "-0"],
        ["nonsense"],
    ],
)
def test_usage_errors_are_2(arguments: list[str]) -> None:
    ran = giqa(*arguments)
    assert ran.returncode == 2
    assert ran.stdout == b""
    assert b"Traceback" not in ran.stderr


def test_failures_are_1_without_a_traceback(folder: Path, tmp_path: Path) -> None:
    for arguments in (
        ["score", folder / "p0.jpg", "--bundle", tmp_path],
        ["score", folder / "p0.jpg", "--json", tmp_path / "no" / "such" / "folder.json"],
        ["bundle", "show", "nonsense"],
    ):
        ran = giqa(*arguments)
        assert ran.returncode == 1, arguments
        assert b"Traceback" not in ran.stderr
        assert ran.stderr.startswith(b"giqa: ")


def test_nothing_found_is_a_row(tmp_path: Path) -> None:
    ran = giqa("score", tmp_path, tmp_path / "no.jpg", tmp_path / "*.png")
    assert ran.returncode == 3
    rows = [line.split("\t") for line in ran.stdout.decode().splitlines()]
    assert [row[4] for row in rows] == ["not_found"] * 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_flushes_and_is_130(
    folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out, names = tmp_path / "r.jsonl", tmp_path / "names"
    names.write_bytes(200_000 * (os.fsencode(folder / "p1.jpg") + b"\n"))
    command = [sys.executable, "-m", "giqa", "score", "-", "--jsonl", str(out)]
    command += ["--bundle", str(small_bundle())]
    with (
        names.open("rb") as stdin,
        subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # What runs the tests in the background may ignore SIGINT, which is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(number)
        shown = 1 + len(process.stdout.read().splitlines())
        assert process.wait(60) == 130
        assert b"Traceback" not in process.stderr.read()
    rows = out.read_text().splitlines()
    assert abs(len(rows) - shown) <= 1
    assert all(json.loads(r)["status"] == "ok" for r in rows)


def test_a_reader_that_goes_away_is_no_crash(folder: Path) -> None:
    bundle = small_bundle()
    command = f"'{sys.executable}' -m giqa score - --bundle '{bundle}' | head -n 1"
    stdin = (os.fsencode(folder / "p1.jpg") + b"\n") * 400
    ran = subprocess.run(command, shell=True, input=stdin, capture_output=True, timeout=120)
    assert ran.returncode == 0
    assert b"Traceback" not in ran.stderr


def test_bundle_commands() -> None:
    listed = json.loads(giqa("bundle", "list", "--json").stdout)
    assert [row["name"] for row in listed] == ["giqa-s"]
    shown = giqa("bundle", "show").stdout.decode()
    assert "BIQ2021" in shown
    assert "SROCC" in shown
    assert json.loads(giqa("bundle", "show", "--json").stdout)["schema"] == "giqa.bundle/1"
    verified = giqa("bundle", "verify")
    assert verified.returncode == 0
    assert b"self-test" in verified.stdout


def test_doctor_says_what_runs() -> None:
    ran = giqa("doctor", "--json")
    assert ran.returncode == 0, ran.stdout
    checks = {c["name"]: c for c in json.loads(ran.stdout)}
    assert checks["default bundle"]["status"] == "ok"
    assert checks["OpenVINO"]["status"] == checks["decoder"]["status"] == "ok"
    assert "DALI" in checks["decoder"]["detail"]
    assert checks["NVIDIA GPU"]["status"] in ("ok", "missing")
    server = checks["tritonserver"]
    if server["status"] == "ok":  # which one, and what it must not be exposed to
        assert re.search(r"tritonserver \d+\.\d+(: no known faults| has .*CVE-)", server["detail"])


@pytest.mark.parametrize(
    "command", [[], ["score"], ["bundle"], ["bundle", "show"], ["bundle", "verify"], ["doctor"]]
)
def test_help_has_an_example(command: list[str]) -> None:
    ran = giqa(*command, "--help")
    assert ran.returncode == 0
    if command and command != ["bundle"]:
        assert b"Example" in ran.stdout


@pytest.mark.parametrize("asked", [False, True])
def test_what_libraries_warn_of_is_not_shown_unless_asked_for(tmp_path: Path, asked: bool) -> None:
    """Pillow's remark on an EXIF tag whose values lie behind the file's end."""
    entry = struct.pack("<HHHIII", 1, 0x0112, 3, 99, 4096, 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + entry
    (path := tmp_path / "a.jpg").write_bytes(
        save(Image.fromarray(photo(64, 48)), "JPEG", exif=exif)
    )
    command = [sys.executable, *(["-W", "default"] if asked else []), "-m", "giqa", "score"]
    ran = subprocess.run([*command, path, "--bundle", small_bundle()], capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    assert (b"UserWarning" in ran.stderr) == asked
