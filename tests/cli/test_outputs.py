"""What the commands write, say and end with, whatever their streams and files are."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from giqa.cli import Exit, errors_to_exit_codes, group
from giqa.cli._common import Tally
from giqa.decode import probe
from giqa.errors import (
    NotFoundError,
    ServerUnavailableError,
    TruncatedError,
    UnsupportedFormatError,
    UsageError,
)
from giqa.inputs import find

pytestmark = pytest.mark.usefixtures("small_default")


def giqa(*arguments: str | Path, stdin: bytes = b"") -> Result:
    """In this process: the command without its start."""

    def run() -> None:
        with errors_to_exit_codes():
            group.main([*map(str, arguments)], prog_name="giqa", standalone_mode=False)

    runner = CliRunner()
    with runner.isolation(stdin) as (out, err, *_):
        code: object = 0
        try:
            run()
        except SystemExit as e:
            code = e.code
        sys.stdout.flush()
        return Result(runner, out.getvalue(), err.getvalue(), b"", None, code or 0, None)  # type: ignore[arg-type]


def shell(
    script: str, *arguments: str | Path, **options: object
) -> subprocess.CompletedProcess[bytes]:
    """As a user runs it; $G is the command."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *map(str, arguments)],
        capture_output=True,
        timeout=300,
        env=os.environ | {"G": f"{sys.executable} -W error -m giqa"} | options.pop("env", {}),  # type: ignore[operator]
        **options,  # type: ignore[call-overload]
    )


def test_an_old_file_survives_what_fails_before_the_first_row(photos: Path, tmp_path: Path) -> None:
    old = {k: tmp_path / f"old.{k}" for k in ("csv", "json", "jsonl", "parquet", "report", "label")}
    for path in old.values():
        path.write_bytes(b"old")
    options = [f"--{kind}={path}" for kind, path in old.items()]
    for wrong in (["--bundle", "nope"], ["--url", "grpc://127.0.0.1:9", "--deadline", "0.2"]):
        ran = giqa("score", photos / "p0.jpg", *options, *wrong)
        assert ran.exit_code in (1, 5)
        assert {p.read_bytes() for p in old.values()} == {b"old"}
    assert len(list(tmp_path.iterdir())) == len(old)


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet", "report", "label"])
def test_a_directory_is_refused_before_scoring(photos: Path, tmp_path: Path, kind: str) -> None:
    ran = giqa("score", photos, f"--{kind}={tmp_path}")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert f"[unwritable] {tmp_path}: is a directory" in ran.stderr


def test_one_path_for_two_outputs_is_refused(photos: Path, tmp_path: Path) -> None:
    for pair in (("csv", "json"), ("csv", "report"), ("jsonl", "label")):
        ran = giqa("score", photos, *(f"--{kind}={tmp_path}/x" for kind in pair))
        assert ran.exit_code == 2
        assert "asked for twice" in ran.stderr
    picture = photos / "p0.jpg"
    before = picture.read_bytes()
    ran = giqa("score", picture, "--json", picture)
    assert (ran.exit_code, picture.read_bytes()) == (2, before)
    assert list(tmp_path.iterdir()) == []


def test_failures_are_counted_and_codes_have_an_order(photos: Path) -> None:
    both = giqa("score", photos, "--fail-below", "101")
    assert both.exit_code == 4
    assert "[truncated]" in both.stderr
    assert "1 could not be scored" in both.stderr
    assert "4 scored below 101" in both.stderr


def test_many_failures_are_counted_by_their_codes(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally(50.0)
    for error in (*5 * [NotFoundError("no")], TruncatedError("cut"), None):
        tally.add(error, None if error else 60.0)
    with pytest.raises(Exit) as ended:
        tally.finish()
    assert ended.value.code == 3
    assert "6 could not be scored: 5 not_found, 1 truncated" in capsys.readouterr().err
    tally.add(None, 40.0)
    with pytest.raises(Exit) as ended:
        tally.finish()
    assert ended.value.code == 4
    tally.add(ServerUnavailableError("gone"), None)
    with pytest.raises(Exit) as ended:
        tally.finish()
    assert ended.value.code == 5
    assert "7 could not be scored" in capsys.readouterr().err
    Tally(50.0).finish()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fail-below", "nan"],
        ["--fail-below", "inf"],
        ["--below", "nan"],
        ["--deadline", "nan"],
        ["--deadline", "inf"],
        ["--batch", "0"],
        ["--threads", "0"],
        ["--worst", "0"],
        ["--precision", "fp32"],
        ["--profile", "quick"],
        ["--below", "10", "--above", "50"],
        ["--bom"],
        ["--print0", "--csv", "-"],
        ["--report", "-"],
    ],
)
def test_options_that_make_no_sense_are_2(photos: Path, arguments: list[str]) -> None:
    ran = giqa("score", photos, *arguments)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "Traceback" not in ran.stderr


def test_inputs_are_not_written_over(photos: Path, tmp_path: Path) -> None:
    """Named, in a directory, by a pattern, through a link; whatever the output."""
    own = tmp_path / "own"
    own.mkdir()
    for name in ("p0.jpg", "p1.jpg"):
        (own / name).write_bytes((photos / name).read_bytes())
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    target = own / "p1.jpg"
    (tmp_path / "link.csv").symlink_to(target)
    for arguments in (
        ["score", own, "--csv", target],
        ["score", f"{own}/*.jpg", "--json", target],
        ["score", own, "--parquet", tmp_path / "link.csv"],
        ["score", target, "--report", target],
        ["video", target, "--json", target],
        ["video", target, "--srt", target],
        ["video", target, "--scenes-csv", tmp_path / "link.csv"],
    ):
        ran = giqa(*arguments)
        assert ran.exit_code == 2, arguments
        assert "is an input, too" in ran.stderr
        assert {path.name: path.read_bytes() for path in own.iterdir()} == before


def test_maps_are_no_inputs(photos: Path, tmp_path: Path) -> None:
    """Neither written over pictures nor scored as such, in this run or the next."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "p0.jpg").write_bytes((photos / "p0.jpg").read_bytes())
    (own / "p1.jpg").write_bytes((photos / "p1.jpg").read_bytes())
    maps = own / "z" / "maps"
    for _ in range(2):
        ran = giqa("score", "-r", own, "--map", maps)
        assert (ran.exit_code, len(rows(ran.stdout)), len(list(maps.iterdir()))) == (0, 2, 4)
    taken = maps / "000001-p0.jpg.png"
    before = taken.read_bytes()
    for arguments in (
        ["-r", maps],
        [f"{own}/z/../z/maps/"],
        [f"{maps}/*.png"],
        [taken, own / "p1.jpg"],
    ):
        ran = giqa("score", *arguments, "--map", maps)
        assert (ran.exit_code, ran.stdout) == (2, ""), arguments
        assert "is an input, too" in ran.stderr
        assert taken.read_bytes() == before
    ran = giqa("score", own / "p0.jpg", own / "p1.jpg", "--map", own)
    assert (ran.exit_code, len(list(own.iterdir()))) == (0, 7)


@pytest.mark.parametrize("name", ["", "x" * 300])
def test_names_that_no_file_has(photos: Path, name: str) -> None:
    ran = giqa("score", photos / "p0.jpg", "--csv", name)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "[unwritable]" in ran.stderr
    ran = giqa("score", name, photos / "p0.jpg")
    assert ran.exit_code == 3
    assert len(rows(ran.stdout)) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "x.jpg", "--threads", 10**21],
        ["score", "x.jpg", "--max-bytes", 10**30],
        ["score", "x.jpg", "--deadline", 1e300],
        ["score", "x.jpg", "--url", "grpcs://127.0.0.1:9", "--tls-ca", __file__],
        ["serve", "--token-file", __file__],
        ["serve", "--tls-cert", __file__, "--tls-key", __file__],
        ["serve", "--precision", "fp99"],
        ["serve", "--precision", ""],
        ["score", "x.jpg", "--map", ""],
        ["batch", "run", "x", "--out", ""],
        ["batch", "resume", ""],
        ["score", "x.jpg", "--token-file", __file__],
        ["score", "x.jpg", "--in-flight", "3"],
        ["score", "x.jpg", "--url", "grpc://127.0.0.1:9", "--precision", "f32"],
        ["video", "x.mp4", "--deadline", "3"],
        ["video", "x.mp4", "--url", "grpc://127.0.0.1:9", "--threads", "2"],
        ["batch", "run", "x", "--out", "run", "--tls-name", "x"],
        ["serve", "--engines", "x"],
        ["serve", "--memory-mb", "9"],
        ["serve", "--port", "0"],
        ["serve", "--drain", "nan"],
        ["serve", "--queue-timeout", "inf"],
        ["serve", "--max-batch", "65"],
        ["video", "x.mp4", "--fps", "-1"],
        ["video", "x.mp4", "--fps", "nan"],
        ["video", "x.mp4", "--every", "0"],
        ["video", "x.mp4", "--start", "nan"],
        ["video", "x.mp4", "--start", "5", "--end", "2"],
        ["video", "x.mp4", "--fps", "2", "--keyframes"],
        ["video", "x.mp4", "--pool", "median"],
        ["video", "x.mp4", "--precision", "fp32"],
        ["batch", "run", "x", "--out", "run", "--fps", "2", "--every", "3"],
        ["batch", "run", "x", "--out", "run", "--window", "nan"],
        ["batch", "run", "x", "--out", "run", "--start", "nan"],
        ["batch", "run", "x", "--out", "run", "--every", "0"],
        ["batch", "run", "x", "--out", "run", "--deadline", "inf"],
    ],
)
def test_options_of_other_commands_that_make_no_sense_are_2(
    tmp_path: Path, arguments: list[str]
) -> None:
    with chdir(tmp_path):
        ran = giqa(*arguments)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "run").exists()


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_a_mark_in_a_list_is_no_part_of_a_name(photos: Path) -> None:
    listed = b"\xef\xbb\xbf" + os.fsencode(photos / "p0.jpg") + b"\r\n"
    ran = giqa("score", "-", stdin=listed)
    assert (ran.exit_code, rows(ran.stdout)[0][0]) == (0, str(photos / "p0.jpg"))
    with pytest.raises(UsageError, match="UTF-16"):
        list(find(["-"], stdin=io.BytesIO("a.jpg".encode("utf-16"))))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["score", "-"], "not_found"),
        (["score", "-0", "-"], "not_found"),
        (["score", "EMPTY"], "not_found"),
        (["batch", "run", "-", "--out", "RUN"], "not_found"),
        (["batch", "run", "EMPTY", "--out", "RUN"], "not_found"),
        (["batch", "run", "LIST", "--out", "RUN"], "not_found"),
        (["video", "-"], "empty"),
    ],
)
def test_nothing_to_score_is_said(tmp_path: Path, arguments: list[str], code: str) -> None:
    places = {"EMPTY": tmp_path / "empty", "LIST": tmp_path / "a.lst", "RUN": tmp_path / "run"}
    places["EMPTY"].mkdir()
    places["LIST"].touch()
    ran = giqa(*(places.get(word, word) for word in arguments))
    assert ran.exit_code == 3
    assert f"giqa: [{code}] " in ran.stderr
    assert "1 could not be scored" in ran.stderr


def test_a_video_is_told_where_it_belongs(tmp_path: Path) -> None:
    heads = {
        "a.mp4": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41",
        "a.mkv": b"\x1aE\xdf\xa3\x93B\x82\x88matroska",
        "a.avi": b"RIFF\0\0\0\0AVI LIST",
        "a.ts": (b"G" + bytes(187)) * 3,
        "a.mpg": b"\0\0\1\xba" + bytes(40),
        "a.mov": b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
    }
    for name, head in heads.items():
        (tmp_path / name).write_bytes(head + bytes(100))
    for name in heads:
        with pytest.raises(UnsupportedFormatError, match="is a video"):
            probe((tmp_path / name).read_bytes())
    for name in ("a.mpg", "a.mov", "a.ts"):  # three are told one by one
        del heads[name]
    ran = giqa("score", *(tmp_path / name for name in heads))
    assert [r[4] for r in rows(ran.stdout)] == ["unsupported_format"] * len(heads)
    assert ran.stderr.count("is a video (score it with `giqa video`)") == len(heads)


@pytest.mark.slow
def test_odd_streams_end_without_a_traceback(photos: Path, tmp_path: Path) -> None:
    name = tmp_path / "é\n\udcff.jpg"
    name.write_bytes((photos / "p0.jpg").read_bytes())
    ran = shell('$G score "$1"', name, env={"PYTHONIOENCODING": "ascii"})
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"\\xe9\\n\\udcff.jpg" in ran.stdout
    ran = shell('$G score "$1" --csv "$2" >&- <&-', photos / "p0.jpg", tmp_path / "a.csv")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 2
    ran = shell('$G score "$1" 2>&-', photos / "broken.jpg")
    assert ran.returncode == 3
    for script, code, said in (
        ("$G score - <&-", 2, b"stdin is closed"),
        ('$G score "$1" --csv - >&-', 1, b"stdout is closed"),
        ('$G score "$1" --csv >(cat >"$2")', 0, b""),
    ):
        ran = shell(script, photos / "p0.jpg", tmp_path / "cat.csv")
        assert (ran.returncode, b"Traceback" in ran.stderr) == (code, False), ran.stderr
        assert said in ran.stderr


@pytest.mark.slow
def test_little_memory_is_said_to_be_that(photos: Path) -> None:
    ran = shell('ulimit -v 900000; $G score "$1"', photos / "p0.jpg")
    assert ran.returncode in (1, 3)
    assert b"[out_of_memory]" in ran.stderr, ran.stderr.decode()
    assert b"Traceback" not in ran.stderr
