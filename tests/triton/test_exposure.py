"""What anyone who reaches the port could do to a server, and cannot any more."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import pytest

from giqa import LocalScorer, TritonScorer
from giqa.bundle import Bundle
from giqa.client import Retry
from giqa.contract import FUSION, GIQA, GIQA_ISOLATED, IMAGE, LOCAL_BRANCH, SCORE
from giqa.errors import (
    DeadlineExceededError,
    GiqaError,
    ServerRefusedError,
    StorageFullError,
    UsageError,
)
from giqa.kserve import Connection, Tensor, import_grpc, messages, request, service_stub, to_error
from giqa.serving import Server, ServerOptions, Watch, find_tritonserver
from giqa.serving import _exposure as exposure
from giqa.serving._known import with_comment
from giqa.serving._python_processes import stub_processes
from tests.makers import jpeg
from tests.triton.conftest import ADMIN, options, serving, watched


@pytest.fixture(scope="module")
def closed(tiled: Bundle) -> Iterator[Server]:
    """A server as it is by default."""
    with serving(tiled) as started:
        yield started


@pytest.fixture
def region() -> Iterator[shared_memory.SharedMemory]:
    found = shared_memory.SharedMemory(create=True, size=1 << 20)
    yield found
    found.close()
    found.unlink()


def ask(connection: Connection, name: str, message: object) -> Any:
    grpc = import_grpc()
    with connection.channel() as channel:
        try:
            stub = service_stub(channel)
            return getattr(stub, name)(message, timeout=10, metadata=connection.metadata)
        except grpc.RpcError as e:
            raise to_error(e.code().name, e.details() or "") from e


def register(connection: Connection, key: str, name: str = "mine", size: int = 64) -> object:
    message = messages().SystemSharedMemoryRegisterRequest(name=name, key=key, byte_size=size)
    return ask(connection, "SystemSharedMemoryRegister", message)


SHARED_MEMORY = [
    ("SystemSharedMemoryStatus", "SystemSharedMemoryStatusRequest"),
    ("SystemSharedMemoryRegister", "SystemSharedMemoryRegisterRequest"),
    ("SystemSharedMemoryUnregister", "SystemSharedMemoryUnregisterRequest"),
    ("CudaSharedMemoryStatus", "CudaSharedMemoryStatusRequest"),
    ("CudaSharedMemoryRegister", "CudaSharedMemoryRegisterRequest"),
    ("CudaSharedMemoryUnregister", "CudaSharedMemoryUnregisterRequest"),
]


@pytest.mark.parametrize(("method", "message"), SHARED_MEMORY)
@pytest.mark.parametrize("key", [None, "wrong", "right"])
def test_shared_memory_is_off(method: str, message: str, key: str | None, closed: Server) -> None:
    """Even who has the admin key cannot use it: it was not allowed."""
    admin = {None: None, "wrong": "wrong", "right": closed.options.admin_key}[key]
    connection = replace(closed.connection, admin_key=admin)
    with pytest.raises(ServerRefusedError):
        ask(connection, method, getattr(messages(), message)())
    closed.known_answer()


@pytest.mark.parametrize(("method", "message"), SHARED_MEMORY)
def test_allowed_shared_memory_wants_the_admin_key(
    method: str, message: str, server: Server
) -> None:
    for admin in (None, "wrong"):
        connection = replace(server.connection, admin_key=admin)
        with pytest.raises(ServerRefusedError):
            ask(connection, method, getattr(messages(), message)())


def test_a_region_is_read_where_it_is_allowed(
    server: Server, region: shared_memory.SharedMemory
) -> None:
    connection = replace(server.connection, admin_key=ADMIN)
    image = jpeg()
    region.buf[: len(image)] = image
    message = request(GIQA, {IMAGE: Tensor("UINT8", (1, len(image)), image)}, [SCORE])
    sent = ask(connection, "ModelInfer", message).raw_output_contents
    del message.raw_input_contents[:]
    message.inputs[0].parameters["shared_memory_region"].string_param = "mine"
    message.inputs[0].parameters["shared_memory_byte_size"].int64_param = len(image)
    register(connection, f"/{region.name}", size=len(image))
    assert ask(connection, "ModelInfer", message).raw_output_contents == sent
    gone = messages().SystemSharedMemoryUnregisterRequest(name="mine")
    ask(connection, "SystemSharedMemoryUnregister", gone)
    with pytest.raises(GiqaError, match="mine"):
        ask(connection, "ModelInfer", message)


def test_outputs_go_into_no_region(closed: Server) -> None:
    image = jpeg()
    message = request(GIQA, {IMAGE: Tensor("UINT8", (1, len(image)), image)}, [SCORE])
    message.outputs[0].parameters["shared_memory_region"].string_param = "any"
    message.outputs[0].parameters["shared_memory_byte_size"].int64_param = 4
    with pytest.raises(GiqaError, match="any"):
        closed.call("ModelInfer", message, 10)


def test_regions_of_models_have_a_reserved_name_and_one_reader(closed: Server) -> None:
    regions = [p for p in Path("/dev/shm").glob("*") if f"giqa-serve-{os.getpid()}-" in p.name]
    assert regions
    for path in regions:
        assert path.name.startswith("triton_python_backend_shm_region_")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_cache_and_shared_memory_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="choose one"):
        ServerOptions(cache_bytes=1 << 20, client_shared_memory=True)


@pytest.mark.parametrize(
    "argument",
    [
        "--cache-config=local,size=1048576",
        "--cache-conf=local,size=1048576",  # getopt takes what is not ambiguous
        "--allow-http=true",
        "--http-port=80",
        "--grpc-restricted-protocol=inference:a=b",
        "--model-control-mode=poll",
        "--allow-sagemaker=1",
        "--response_cache_byte_size=1",
        "-r",
    ],
)
def test_further_arguments_undo_no_guard(argument: str) -> None:
    with pytest.raises(UsageError, match="decided"):
        ServerOptions(extra=(argument,))


@pytest.mark.parametrize("address", ["0.0.0.0", "10.1.2.3", "::", "fd00::1", "example.org"])
def test_tritons_http_stays_on_this_machine(address: str, bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="CVE-2025-23310"):
        Server(
            bundle,
            find_tritonserver(),
            ServerOptions(address=address, http_port=1234),
            options(bundle),
        )


def test_faults_are_told_by_version() -> None:
    old = exposure.describe_faults((2, 51))
    assert "2.51" in old
    assert "CVE-2025-23310" in old
    new = exposure.describe_faults((2, 99))
    assert "CVE-2025-23310" not in new
    assert {f.way for f in exposure.faults_of((2, 51))} == {
        "http",
        "grpc",
        "shared memory",
        "admin",
    }


def test_little_shared_memory_is_told_before_anything_starts(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = os.statvfs("/dev/shm")
    docker = os.statvfs_result((4096, 4096, 16384, 16384, 16384, *tuple(small)[5:]))
    monkeypatch.setattr(exposure.os, "statvfs", lambda path: docker)
    started = time.monotonic()
    with pytest.raises(StorageFullError, match="64 MiB of shared memory are free") as e:
        Server(bundle, find_tritonserver(), ServerOptions(), options(bundle)).start()
    assert time.monotonic() - started < 5
    assert "--max-batch 1" in e.value.remedy
    exposure.check_shared_memory(bundle.manifest, options(bundle, max_batch=1))


@pytest.mark.slow
def test_what_is_needed_is_what_is_taken(bundle: Bundle) -> None:
    before = set(Path("/dev/shm").glob("*"))
    with serving(bundle) as server:
        regions = set(Path("/dev/shm").glob(f"*giqa-serve-{os.getpid()}-*")) - before
        with TritonScorer(server.connection.url, in_flight=32) as scorer:
            assert all(r.score for r in scorer.score([jpeg(900, 700, seed=i) for i in range(48)]))
        taken = sum(path.stat().st_size for path in regions)
    assert taken > 2**20
    assert taken < exposure.shared_memory_needed(bundle.manifest, options(bundle))


def test_other_bytes_are_the_same_picture(bundle: Bundle, local: LocalScorer) -> None:
    image = bundle.self_test_image.read_bytes()
    files = [image, with_comment(image, "a1"), with_comment(image, "b2")]
    assert len(set(files)) == 3
    assert len({r.score for r in local.score(files)}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("hung", [LOCAL_BRANCH, FUSION])
def test_a_hang_behind_a_cache_is_seen(hung: str, bundle: Bundle) -> None:
    """The cache answers what it knows; the watch asks what it does not."""
    said: list[str] = []
    with serving(bundle, options(bundle, cache=True), cache_bytes=16 * 2**20) as server:
        watch = Watch(server, say=said.append, interval_s=0.4, deadline_s=5)
        started = time.monotonic()
        while not watch.check():
            assert time.monotonic() - started < 60, said
        assert watch.metrics.ready
        stop = threading.Event()
        thread = threading.Thread(target=watch.run, args=(stop,))
        assert server.pid is not None
        for pid in [pid for pid, name in stub_processes(server.pid) if name == hung]:
            os.kill(pid, signal.SIGSTOP)
        thread.start()
        try:
            started = time.monotonic()
            while watch.metrics.ready:
                assert time.monotonic() - started < 20, said
                time.sleep(0.05)
            while not watch.metrics.ready:
                assert time.monotonic() - started < 60, said
                time.sleep(0.05)
        finally:
            stop.set()
            thread.join(60)
        assert any("anew" in line or "again" in line for line in said)


def test_a_late_canary_is_given_up_but_not_cancelled(
    closed: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeadlineExceededError):
        closed.difference(0.001)
    pid = closed.pid
    for _ in range(20):
        with pytest.raises(DeadlineExceededError):
            closed.difference(0.002, GIQA_ISOLATED)
    time.sleep(2)
    assert closed.pid == pid
    closed.known_answer()


@pytest.mark.slow
def test_a_server_that_works_is_let_work(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Pictures that take longer than the canary waits are no hang."""
    import io

    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    file = io.BytesIO()
    Image.new("L", (14_000, 14_000), 128).save(file, "PNG")
    large = file.getvalue()
    assert len(large) < 250_000
    with serving(bundle) as server:
        said: list[str] = []
        stop = threading.Event()
        watch = Watch(server, say=said.append, interval_s=0.2, deadline_s=1)
        thread = threading.Thread(target=watch.run, args=(stop,))
        thread.start()
        try:
            with TritonScorer(server.connection.url, deadline_s=120, in_flight=4) as scorer:
                rows = list(scorer.score([large] * 4))
        finally:
            stop.set()
            thread.join(60)
        assert [r.error for r in rows] == [None] * 4
        assert not [line for line in said if "anew" in line], said


@pytest.mark.slow
def test_nothing_but_its_caller_ends_the_watch(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing file descriptor, say, is an exception that nobody foresaw."""
    with serving(bundle) as server, watched(server) as said:

        def broken(self: object) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(Watch, "reload_dead", broken)
        started = time.monotonic()
        while not any("Too many open files" in line for line in said):
            assert time.monotonic() - started < 20
            time.sleep(0.1)
        monkeypatch.undo()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        while not any("ready again" in line for line in said):
            assert time.monotonic() - started < 180
            time.sleep(0.1)


@pytest.mark.slow
def test_a_full_disk_at_a_restart_is_waited_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    import giqa.serving._server as process

    with serving(bundle) as server, watched(server) as said:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(process, "write_repository", full)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        started = time.monotonic()
        while sum("No space left" in line for line in said) < 2:
            assert time.monotonic() - started < 30, said
            time.sleep(0.1)
        monkeypatch.undo()
        while not any("ready again" in line for line in said):
            assert time.monotonic() - started < 180, said
            time.sleep(0.1)
        with TritonScorer(server.connection.url, retry=Retry(attempts=20)) as scorer:
            assert next(scorer.score([jpeg()])).score
