"""`giqa serve` as an operator meets it: ready, watched, guarded, stopped without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest

from giqa import LocalScorer, TritonScorer
from giqa.bundle import MANIFEST, Bundle, load_bundle
from giqa.client import Retry
from giqa.contract import FUSION, PREPROCESS, PREPROCESS_PRECISE
from giqa.errors import GiqaError, ServerRefusedError, ServerUnavailableError, UsageError
from giqa.kserve import messages
from giqa.serving import Server, ServerOptions, find_tritonserver
from giqa.serving._python_processes import stub_processes
from giqa.serving._repository_options import instances_on_cpu
from giqa.tensors import composing_models
from tests.makers import BAD, jpeg
from tests.ports import free_port
from tests.triton.conftest import options, serving, watched
from tests.triton.test_exposure import ask

GIQA = [sys.executable, "-m", "giqa"]


def left_behind(pid: int) -> list[str]:
    """Files and processes of a supervisor that are still there."""
    names = [*os.listdir("/dev/shm"), *os.listdir("/tmp")]
    found = [name for name in names if f"giqa-serve-{pid}-" in name]
    running = subprocess.run(
        ["pgrep", "-fa", f"giqa-serve-{pid}-"], capture_output=True, text=True
    ).stdout.splitlines()
    return found + running


@contextmanager
def command(*arguments: str, ready: bool = True) -> Iterator[tuple[subprocess.Popen, int]]:
    """`giqa serve` on a free port."""
    port = free_port()
    process = subprocess.Popen(
        [*GIQA, "serve", "--port", str(port), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if ready:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready: "), process.communicate()[1]
        yield process, port
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        process.communicate(timeout=60)


def score(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([*GIQA, "score", *arguments], capture_output=True, text=True, timeout=120)


def test_score_url_and_a_stop_under_load(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(8):
        (folder / f"{i:02}.jpg").write_bytes(jpeg(300 + i, 200, seed=i))
    for name in list(BAD)[:4]:
        (folder / f"bad-{name}").write_bytes(BAD[name][0]())
    watch = str(free_port())
    with command("--drain", "20", "--watch-port", watch) as (process, port):
        url = f"grpc://127.0.0.1:{port}"
        assert urlopen(f"http://127.0.0.1:{watch}/ready", timeout=10).read() == b"ready\n"
        remote = score("--url", url, "--jsonl", str(tmp_path / "r.jsonl"), str(folder))
        here = score("--jsonl", str(tmp_path / "l.jsonl"), str(folder))
        assert (remote.returncode, here.returncode) == (3, 3), remote.stderr
        assert (tmp_path / "r.jsonl").read_text() == (tmp_path / "l.jsonl").read_text()
        assert remote.stdout == here.stdout
        rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
        assert len(rows) == 12

        # What is under way when SIGTERM comes is finished; what comes later is refused.
        outcomes: list[str] = []

        def work() -> None:
            with TritonScorer(url, in_flight=8, retry=Retry(attempts=1)) as scorer:
                for result in scorer.score([jpeg()] * 2000):
                    outcomes.append(result.error.code if result.error else "ok")
                    if result.error:
                        break

        worker = threading.Thread(target=work)
        worker.start()
        while len(outcomes) < 20:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=40)
        worker.join(30)
        assert process.returncode == 0, stderr
        assert "stopped" in stderr
        assert "not all requests" not in stderr
        assert set(outcomes) <= {"ok", "server_unavailable"}
        assert not left_behind(process.pid)
    assert score("--url", url, "--deadline", "1", str(folder)).returncode == 5


@pytest.mark.slow
def test_every_dead_model_comes_back_under_load(bundle: Bundle, local: LocalScorer) -> None:
    image = bundle.self_test_image.read_bytes()
    (expected,) = local.score([image])
    with serving(bundle) as server, watched(server) as said:
        url, over = server.connection.url, threading.Event()
        rows: list[float | str] = []
        sent = 0

        def source() -> Iterator[bytes]:
            nonlocal sent
            while not over.is_set():
                sent += 1
                yield image

        def load() -> None:
            with TritonScorer(url, in_flight=4, deadline_s=15) as scorer:
                for result in scorer.score(source()):
                    rows.append(result.error.code if result.error else result.score)

        worker = threading.Thread(target=load)
        worker.start()
        for model in (*composing_models("cpu"), PREPROCESS):  # one dies twice
            assert server.pid is not None
            said.clear()
            # The newest, since one that is replaced may still be there.
            pid = max(pid for pid, name in stub_processes(server.pid) if name == model)
            os.kill(pid, signal.SIGKILL)
            started = time.monotonic()
            while not any(f"loaded {model} again" in line for line in said):
                assert time.monotonic() - started < 10, (model, said)
                time.sleep(0.1)
            profile = "precise" if model == PREPROCESS_PRECISE else "fast"
            with TritonScorer(url, in_flight=1, deadline_s=10, batch=2) as scorer:
                assert all(r.score for r in scorer.score([image] * 2, profile=profile))
            assert time.monotonic() - started < 10, (model, said)
        over.set()
        worker.join(60)
        started = time.monotonic()
        wanted = sum(
            instances_on_cpu(m, server.repository_options) for m in composing_models("cpu")
        )
        while len(left := list(stub_processes(server.pid))) > wanted:  # replaced ones end
            assert time.monotonic() - started < 40, left
            time.sleep(0.5)
        assert len(rows) == sent
        good = [r for r in rows if not isinstance(r, str)]
        assert set(good) == {expected.score}
        assert {r for r in rows if isinstance(r, str)} <= {
            "server_unavailable",
            "deadline_exceeded",
        }
        assert len(good) > 20


def loaded_at_first(server: Server, killed: int) -> set[str]:
    """What a new start has loaded when it first answers."""
    started = time.monotonic()
    while time.monotonic() - started < 120:
        with suppress(GiqaError):
            index = server.call("RepositoryIndex", messages().RepositoryIndexRequest(), 5).models
            if server.pid != killed:
                return {model.name for model in index if model.state == "READY"}
        time.sleep(0.05)
    raise AssertionError("it does not come back")


@pytest.fixture(scope="module")
def tended(tiled: Bundle) -> Iterator[tuple[Server, list[str]]]:
    """A server that is started again when it ends, and what is said of it."""
    with (
        serving(tiled, client_shared_memory=True, admin_key="mine") as server,
        watched(server) as said,
    ):
        yield server, said


def test_a_dead_server_comes_back(tended: tuple[Server, list[str]], tiled: Bundle) -> None:
    image = tiled.self_test_image.read_bytes()
    server, said = tended
    with TritonScorer(
        server.connection.url,
        bundle=tiled,
        transport="stream",
        deadline_s=60,
        retry=Retry(attempts=60),
    ) as scorer:
        rows = scorer.score([image] * 2000)
        next(rows)
        killed = server.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)  # in mid-stream
        loaded = loaded_at_first(server, killed)
        assert "giqa" in loaded
        assert PREPROCESS_PRECISE not in loaded  # scores do not wait for what they do not need
        scores = {r.score if r.error is None else str(r.error) for r in rows}
    assert len(scores) == 1
    # Scores go on before all models are there, and so before the watch has its own answer.
    started = time.monotonic()
    while not any("ready again" in line for line in said):
        assert time.monotonic() - started < 120, said
        time.sleep(0.1)


@pytest.mark.parametrize("way", ["unary", pytest.param("stream", marks=pytest.mark.slow)])
def test_clients_killed_in_mid_request(
    way: str, tended: tuple[Server, list[str]], tiled: Bundle
) -> None:
    """The next request works: at once, or after a start (Triton 2.51 may crash at this)."""
    url = tended[0].connection.url
    image = tiled.self_test_image.read_bytes()
    with LocalScorer(tiled) as local:
        (wanted,) = local.score([image])
    script = (
        "import sys; from giqa import TritonScorer\n"
        "scorer = TritonScorer(sys.argv[1], bundle=sys.argv[4], in_flight=8,\n"
        "                      transport=sys.argv[2], shared_memory=True, admin_key='mine')\n"
        "data = open(sys.argv[3], 'rb').read()\n"
        "for n, r in enumerate(scorer.score(data for _ in range(100_000))):\n"
        "    print(n, flush=True)\n"
    )
    arguments = [url, way, str(tiled.self_test_image), str(tiled.folder)]
    for n in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        assert process.stdout.readline()
        time.sleep(0.1 * n)
        process.kill()
        process.wait()
        process.stdout.close()
        started = time.monotonic()
        with TritonScorer(url, bundle=tiled, deadline_s=150, retry=Retry(attempts=400)) as scorer:
            assert next(scorer.score([image])).score == wanted.score
        assert time.monotonic() - started < 120
    assert not [name for name in os.listdir("/dev/shm") if name.startswith("psm_")]


def test_a_taken_port_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = subprocess.run([*GIQA, "serve", "--port", port], capture_output=True, text=True)
    assert result.returncode == 2
    assert f"127.0.0.1:{port}" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_answer_is_never_ready(tiled: Bundle, tmp_path: Path) -> None:
    """As when numpy 2 makes the Python backend silently wrong."""
    folder = tmp_path / "wrong"
    shutil.copytree(tiled.folder, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["self_test"]["score"] = 12.0
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with command("--bundle", str(folder), ready=False) as (process, port):
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "ready" not in stdout
        assert "[bundle_invalid]" in stderr
        assert "instead of 12.000" in stderr
        assert not left_behind(process.pid)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_model_that_cannot_load_is_told(tiled: Bundle) -> None:
    wrong = options(tiled, bundle="/nowhere")
    with pytest.raises(ServerUnavailableError, match="no such bundle"), serving(tiled, wrong):
        pass


def test_a_start_that_takes_too_long_is_told(bundle: Bundle) -> None:
    with (
        pytest.raises(ServerUnavailableError, match="not ready after 1 s") as e,
        serving(bundle, start_s=1.0),
    ):
        pass
    assert "--start-timeout" in e.value.remedy


def test_tls_token_admin_key_and_a_full_disk(
    tiled: Bundle, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    cert, key = certificate
    said: list[str] = []
    server = Server(
        tiled,
        find_tritonserver(),
        ServerOptions(
            port=free_port(),
            metrics_port=None,
            tls_cert=cert,
            tls_key=key,
            tls_client_ca=cert,
            token="sesame",
            log=Path("/dev/full"),
        ),
        options(tiled),
        say=said.append,
        client={"server_name": "localhost", "cert": cert, "key": key},
    )
    try:
        server.start()
        server.known_answer()
        assert sum("No space left" in line for line in said) == 1  # it costs log lines only
        port = server.connection.port
        image = tmp_path / "image.jpg"
        image.write_bytes(jpeg())
        secure, plain = f"grpcs://127.0.0.1:{port}", f"grpc://127.0.0.1:{port}"
        proof = {"bundle": tiled, "cert": cert, "key": key}
        tls = {"ca": cert, "server_name": "localhost", "deadline_s": 3, **proof}
        with TritonScorer(secure, token="sesame", **tls) as scorer:
            assert next(scorer.score([image])).score
            load = messages().RepositoryModelLoadRequest(model_name=FUSION)
            # A client's token opens no administrator's door.
            with pytest.raises(ServerRefusedError):
                ask(replace(server.connection, admin_key=None), "RepositoryModelLoad", load)
        for token in (None, "wrong"):
            with pytest.raises(ServerRefusedError):
                TritonScorer(secure, token=token, **tls)
        for url, more in (
            (plain, {"bundle": tiled}),
            (secure, proof),  # the system's authorities do not know the server
            (secure, {"ca": cert, **proof}),  # its name is another
            (secure, {"bundle": tiled, "ca": cert, "server_name": "localhost"}),  # who is asking?
        ):
            started = time.monotonic()
            with pytest.raises(ServerUnavailableError):
                TritonScorer(url, token="sesame", deadline_s=2, **more)
            assert time.monotonic() - started < 6
        (tmp_path / "token").write_text("sesame\n")
        guarded = ("--token-file", str(tmp_path / "token"), "--tls-ca", str(cert))
        guarded += ("--tls-cert", str(cert), "--tls-key", str(key))
        guarded += ("--tls-name", "localhost", "--bundle", str(tiled.folder))
        result = score("--url", secure, *guarded, str(image))
        assert result.returncode == 0, result.stderr
    finally:
        server.stop()


def test_half_of_tls_is_refused(bundle: Bundle, certificate: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError):
        Server(bundle, find_tritonserver(), ServerOptions(tls_cert=certificate[0]), options(bundle))


def test_a_gpu_needs_another_server(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="no GPU backends"):
        Server(bundle, find_tritonserver(), ServerOptions(), options(bundle, device="gpu"))


def test_another_bundle_is_noticed_before_the_first_image(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(load_bundle().folder, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["version"] = "9.9.9"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(
        GiqaError, match=r"serves giqa-s@0\.\d+\.\d+ .* here is giqa-s@9\.9\.9"
    ) as e:
        TritonScorer(url, bundle=folder)
    assert e.value.code == "engine_mismatch"


def test_the_supervisor_killed_takes_the_server_along(tiled: Bundle) -> None:
    with command("--bundle", str(tiled.folder)) as (process, _):
        process.kill()
        process.wait()
        started = time.monotonic()
        while subprocess.run(["pgrep", "-f", f"giqa-serve-{process.pid}-"]).returncode == 0:
            assert time.monotonic() - started < 30
            time.sleep(0.2)
    # What it could not clear away, the next one does.
    assert left_behind(process.pid)
    with command("--bundle", str(tiled.folder), ready=False):
        started = time.monotonic()
        while left_behind(process.pid):
            assert time.monotonic() - started < 30
            time.sleep(0.2)
