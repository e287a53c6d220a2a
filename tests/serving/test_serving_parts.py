"""Parts of a server that need none: folders, tokens, the log of requests, configuration files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from giqa.cli._serve import serve
from giqa.contract import GIQA, IMAGE, SCORE
from giqa.errors import OverloadedError, ServerRefusedError, ShapeMismatchError, UsageError
from giqa.kserve import Tensor, request
from giqa.serving import _folder as folders
from giqa.serving import _requests as requests
from giqa.serving._exposure import is_loopback
from giqa.serving._folder import Folder, sweep
from giqa.serving._gateway_checks import decoding_cost, read_message
from giqa.serving._requests import RequestLog, request_id_of
from giqa.serving._serve import _reap
from giqa.serving._tokens import Client, Tokens
from tests.makers import jpeg


@pytest.fixture
def tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary and shared memory of this test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(folders, "_SHM", tmp_path)
    return tmp_path


def test_a_folder_in_use_is_not_swept(tmp: Path) -> None:
    """Whoever made it may count processes otherwise, as in another container."""
    foreign = Folder()
    named = tmp / "giqa-serve-999999999-abc"  # of no process that there is here
    foreign.path.rename(named)
    region = tmp / f"{folders.shm_prefix(named)}1"
    region.touch()
    sweep()
    assert named.is_dir()
    assert region.exists()
    os.close(foreign._lock)  # its process ended
    sweep()
    assert not named.exists()
    assert not region.exists()


@pytest.mark.parametrize("name", ["giqa-serve-*", "giqa-serve-1-[a-z]", "giqa-serve-1-x"])
def test_sweeping_touches_nobody_elses(name: str, tmp: Path) -> None:
    """Anyone may make a folder in /tmp, of any name."""
    with Folder() as mine:
        region = tmp / f"{folders.shm_prefix(mine)}1"
        region.touch()
        planted = tmp / name
        planted.mkdir()
        (planted / ".lock").touch()
        outside = tmp / "outside"
        outside.mkdir()
        (planted / "link").symlink_to(outside)
        sweep()
        assert not planted.exists()
        assert region.exists()
        assert outside.exists()
        assert mine.is_dir()


def test_a_lock_that_is_a_link_is_not_followed(tmp: Path) -> None:
    precious = tmp / "precious"
    precious.write_text("x")
    planted = tmp / "giqa-serve-1-x"
    planted.mkdir()
    (planted / ".lock").symlink_to(precious)
    sweep()
    assert precious.read_text() == "x"


def test_a_folder_is_its_users_alone() -> None:
    with Folder() as path:
        assert path.stat().st_mode & 0o777 == 0o700
    assert not path.exists()


def test_one_word_is_a_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("sesame\n")
    tokens = Tokens(file)
    assert tokens.find(["wrong", "sesame"]).name == "client"
    for shown in ([], ["wrong"], [""], ["sesame "], ["sésame"], ["\udcff"]):
        with pytest.raises(ServerRefusedError):
            tokens.find(shown)
    assert Tokens(None).find([]).name == "anyone"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "two words",
        "[tokens]",
        "[tokens.a]\ntoken = 5",
        '[tokens.a]\ntoken = ""',
        '[tokens.a]\ntoken = "x"\nlimit = 3',
        '[tokens.a]\ntoken = "x"\nin_flight = -1',
        '[tokens."a b"]\ntoken = "x"',
        '[tokens.a]\ntoken = "x"\n[tokens.b]\ntoken = "x"',
        "\0",
    ],
)
def test_a_file_that_is_none_is_refused_and_tells_no_secret(text: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(UsageError) as e:
        Tokens(file)
    assert '"x"' not in str(e.value)


def test_limits_outlive_a_change_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from giqa.serving import _tokens as module

    monkeypatch.setattr(module, "_LOOK_S", 0.0)
    file = tmp_path / "tokens"
    file.write_text('[tokens.a]\ntoken = "x"\nin_flight = 2\n')
    said: list[str] = []
    tokens = Tokens(file, said.append)
    tokens.find(["x"]).begin()
    file.write_text('[tokens.a]\ntoken = "y"\nin_flight = 1\n')
    with pytest.raises(ServerRefusedError):
        tokens.find(["x"])
    with pytest.raises(OverloadedError):
        tokens.find(["y"]).begin()
    file.unlink()  # nothing changes
    assert tokens.find(["y"]).name == "a"
    assert len(said) >= 2


@given(st.integers(1, 20), st.integers(0, 60))
def test_no_more_than_a_minutes_worth_at_once(per_minute: int, tries: int) -> None:
    client, passed = Client("a", per_minute=per_minute), 0
    started = time.monotonic()
    for _ in range(tries):
        try:
            client.begin()
            client.end()
            passed += 1
        except OverloadedError:
            pass
    later = (time.monotonic() - started) * per_minute / 60
    assert min(tries, per_minute) <= passed <= per_minute + later + 1


def test_a_file_that_changes_keeps_count_of_what_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended after the change was never taken off: a place less for each, for ever."""
    monkeypatch.setattr("giqa.serving._tokens._LOOK_S", 0.0)
    file = tmp_path / "tokens"
    file.write_text('[tokens.a]\ntoken = "t"\nin_flight = 2\n')
    tokens = Tokens(file)
    first = tokens.find(["t"])
    first.begin()
    first.begin()
    file.write_text('[tokens.a]\ntoken = "new"\nin_flight = 3\n\n')
    again = tokens.find(["new"])
    again.begin()
    with pytest.raises(OverloadedError):
        again.begin()
    for client in (first, first, again):
        client.end()
    for _ in range(3):
        tokens.find(["new"]).begin()
    with pytest.raises(ServerRefusedError):
        tokens.find(["t"])


def test_slower_than_once_a_minute_is_not_never() -> None:
    client = Client("a", per_minute=0.5)
    client.begin()
    with pytest.raises(OverloadedError):
        client.begin()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x0a",  # ends in a field
        b"\x0a\x05ab",
        b"\xff" * 20,
        b"\x0b\x0c",  # a group
        b"\x00",
        b"\x0a\x00" * 65,
        b"\x2a\x80\x80\x40" + bytes(2**20),
        b"\x0a\x02\xff\xfe",  # a name that is no text
    ],
)
def test_messages_that_are_not_read(raw: bytes) -> None:
    with pytest.raises(ShapeMismatchError):
        read_message(raw)


def test_a_picture_costs_the_same_however_it_is_sent() -> None:
    image = jpeg(64, 48)
    message = request(GIQA, {IMAGE: Tensor("UINT8", (1, len(image)), image)}, [SCORE])
    assert read_message(message.SerializeToString()) == message
    assert decoding_cost(message) == 64 * 48 * 3
    typed = request(GIQA, {IMAGE: Tensor("UINT8", (1, len(image)), b"")}, [SCORE])
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.uint_contents.extend(image)
    assert decoding_cost(typed) == decoding_cost(message)


LINE = {"client": "a", "way": "grpc", "model": "giqa", "code": "ok", "size": 1}


def test_the_log_is_rotated(tmp_path: Path) -> None:
    file = tmp_path / "log"
    log = RequestLog(file, max_bytes=2000, files=2)
    for n in range(100):
        log.write(request_id=str(n), started=time.monotonic(), **LINE)
    log.close()
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    last = json.loads(file.read_text().splitlines()[-1])
    assert (last["id"], last["code"]) == ("99", "ok")


def test_a_full_disk_costs_lines_only(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.symlink_to("/dev/full")
    log = RequestLog(file)
    for n in range(3):
        log.write(request_id=str(n), started=0.0, **LINE)
    file.unlink()  # there is room again
    log.write(request_id="3", started=0.0, **LINE)
    log.close()
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["3"]


def test_a_log_in_a_folder_that_is_gone_costs_lines_only(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "no" / "log")
    log.write(request_id="1", started=0.0, **LINE)
    (tmp_path / "no").mkdir()
    log.write(request_id="2", started=0.0, **LINE)
    assert json.loads((tmp_path / "no" / "log").read_text())["id"] == "2"
    log.close()


@given(st.text())
def test_an_id_is_one_word(given_id: str) -> None:
    found = request_id_of(given_id)
    assert requests._NAME.fullmatch(found)
    assert found == given_id or not requests._NAME.fullmatch(given_id)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port = 1\nmax-queue = 0\n", "--max-queue"),
        ("prt = 1\n", "'prt' is no option"),
        ("max_queue = 1\n", "'max_queue' is no option"),
        ("port = [1]\n", "'port' wants a whole number"),
        ("port = true\n", "'port' wants a whole number"),
        ("port = '1'\n", "'port' wants a whole number"),
        ("port = 70000\n", "--port"),
        ("max-queue = 1.9\n", "'max-queue' wants a whole number"),
        ("drain = 'long'\n", "'drain' wants a number"),
        ("drain = nan\n", "--drain"),
        ("verbose = 'no'\n", "'verbose' wants true or false"),
        ("address = 1\n", "'address' wants a text"),
        ("device = 'tpu'\n", "--device"),
        ("token-file = 'none'\n", "--token-file"),
        ("[serve]\nport = 1\n", "'serve' is no option"),
        ("config = 'x'\n", "'config' is no option"),
        ("extra = 'x'\n", "'extra' is no option"),
        ("port = \n", "no TOML"),
    ],
)
def test_a_configuration_that_makes_no_sense(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(text)
    result = CliRunner().invoke(serve, ["--config", str(file)])
    assert result.exit_code != 0
    assert words in result.output + str(result.exception)


def params(*arguments: str) -> dict[str, object]:
    return serve.make_context("serve", list(arguments)).params


def test_every_option_can_stand_in_a_file(tmp_path: Path) -> None:
    """What the command line makes of it, a file makes of it, and the command line wins."""
    there = tmp_path / "there"
    there.write_text("")
    for option in serve.params:
        if not isinstance(option, click.Option) or option.name == "config":
            continue
        name = option.opts[0]
        value: object = "name"
        if option.is_flag:
            value = option.default is not True
        elif isinstance(option.type, click.IntRange | click.FloatRange):
            value = 7
        elif isinstance(option.type, click.Choice):
            value = option.type.choices[-1]
        elif isinstance(option.type, click.Path):
            value = str(there if option.type.file_okay else tmp_path)
        text = json.dumps(value)
        (file := tmp_path / "serve.toml").write_text(f"{name[2:]} = {text}\n")
        by_name = [name] if value is True else [name, str(value)]
        if value is False:
            by_name = [option.secondary_opts[0]]
        wanted = params(*by_name)
        assert wanted != params(), name
        assert params("--config", str(file)) == wanted, name
    file.write_text("port = 7\n")
    assert params("--config", str(file), "--port", "9")["port"] == 9


def test_the_documented_file_is_taken(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of the tutorial, whole: each of its lines is in force."""
    page = (checkout / "build/site/pages/tutorials/server.md").read_text()
    (text,) = re.findall(r"```toml\n(# serve\.toml\n.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    for name in ("cert.pem", "key.pem", "tokens.toml"):
        (tmp_path / name).write_text("")
    (tmp_path / "serve.toml").write_text(text)
    found, plain = params("--config", "serve.toml"), params()
    given = tomllib.loads(text)
    assert len(given) >= 8
    for key, value in given.items():
        kept = found[key.replace("-", "_")]
        assert (str(kept) if isinstance(kept, Path) else kept) == value
        assert kept != plain[key.replace("-", "_")], f"{key} says nothing"


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("host", False),
        ("", False),
    ],
)
def test_loopback(address: str, wanted: bool) -> None:
    assert is_loopback(address) == wanted


def test_orphans_that_ended_are_taken_note_of() -> None:
    """As the first process of a container has to."""
    script = (
        "import ctypes, os, subprocess, sys, time\n"
        "from giqa.serving._python_processes import zombies\n"
        "from giqa.serving._serve import _reap\n"
        "ctypes.CDLL(None).prctl(36, 1)\n"  # PR_SET_CHILD_SUBREAPER
        "known = subprocess.Popen(['true'])\n"
        "subprocess.run(['sh', '-c', 'sleep 0.2 &'])\n"
        "end = time.monotonic() + 20\n"
        "while len(list(zombies(os.getpid()))) < 2 and time.monotonic() < end: time.sleep(0.05)\n"
        "assert len(list(zombies(os.getpid()))) == 2\n"
        "_reap({known.pid})\n"
        "assert list(zombies(os.getpid())) == [known.pid]\n"
        "assert known.wait() == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _reap(set())  # nothing to do is no error
