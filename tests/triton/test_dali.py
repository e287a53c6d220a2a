"""What a bad image does on a GPU, where it fails its whole batch: to the watch, and to clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from giqa import LocalScorer, TritonScorer
from giqa.bundle import Bundle
from giqa.contract import GIQA, IMAGE, SCORE
from giqa.kserve import Connection, Tensor, request, service_stub
from giqa.serving import Backend, GatewayOptions, GatewayProcess, Server, Watch
from tests.makers import jpeg, png
from tests.ports import free_port
from tests.triton.stand_in import gpu_like

pytestmark = pytest.mark.slow

DAMAGED = bytearray(png(300, 200))
DAMAGED[len(DAMAGED) // 2 : len(DAMAGED) // 2 + 200] = bytes(200)
"""Its header is fine: only the decoder finds out."""


@pytest.fixture(scope="module")
def gpu(bundle: Bundle) -> Iterator[Server]:
    with gpu_like(bundle) as server:
        yield server


def flood(server: Server, over: threading.Event) -> None:
    """Bad images alone, as fast as they are refused, straight past our client's care."""
    inputs = {IMAGE: Tensor("UINT8", (1, len(DAMAGED)), bytes(DAMAGED))}
    with server.connection.channel() as channel:
        stub = service_stub(channel)
        calls = []
        while not over.is_set():
            calls = [call for call in calls if not call.done()]
            if len(calls) < 6:
                calls.append(stub.ModelInfer.future(request(GIQA, inputs, [SCORE]), timeout=60))
            time.sleep(0.01)
        for call in calls:
            call.exception()


def test_bad_images_make_no_wrong_answer(gpu: Server, bundle: Bundle, local: LocalScorer) -> None:
    said: list[str] = []
    watch = Watch(gpu, say=said.append, interval_s=0.4)
    watch.known_answer()
    stop, over = threading.Event(), threading.Event()
    threads = [
        threading.Thread(target=watch.run, args=(stop,)),
        *(threading.Thread(target=flood, args=(gpu, over)) for _ in range(2)),
    ]
    good = [jpeg(300 + 8 * i, 240, seed=i) for i in range(12)]
    wanted = [r.score for r in local.score(good)]
    for thread in threads:
        thread.start()
    try:
        with TritonScorer(gpu.connection, in_flight=4, deadline_s=120) as scorer:
            for _ in range(3):
                rows = list(scorer.score([*good, bytes(DAMAGED)]))
                assert rows[-1].error is not None
                assert rows[-1].error.code == "corrupt"
                assert [r.error for r in rows[:-1]] == [None] * len(good)
                for row, score in zip(rows, wanted, strict=False):
                    assert row.score == pytest.approx(score, abs=1)
        assert watch.metrics.ready, said
    finally:
        over.set()
        stop.set()
        for thread in threads:
            thread.join(120)
    assert not [line for line in said if "anew" in line], said


def test_behind_the_gateway_any_client_has_codes_and_isolation(
    gpu: Server, bundle: Bundle, local: LocalScorer
) -> None:
    import tempfile

    port, over = free_port(), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        options = GatewayOptions(
            port=port,
            socket=f"{folder}/gateway",
            backends=(Backend(target=gpu.connection.target, bundle=str(bundle.folder)),),
            device="gpu",
            admin_key="k",
        )
        gateway = GatewayProcess(options, print)
        gateway.start()
        thread = threading.Thread(target=flood, args=(gpu, over))
        thread.start()
        try:
            data = jpeg(400, 300)
            (wanted,) = local.score([data])
            connection = Connection(host="127.0.0.1", port=port)
            with connection.channel() as channel:
                infer = service_stub(channel).ModelInfer
                for _ in range(20):
                    tensor = Tensor("UINT8", (1, len(data)), data)
                    reply = infer(request(GIQA, {IMAGE: tensor}, [SCORE]), timeout=60)
                    assert reply.model_name == GIQA
                    score = memoryview(reply.raw_output_contents[0]).cast("f")[0]
                    assert score == pytest.approx(wanted.score, abs=1)
                tensor = Tensor("UINT8", (1, len(DAMAGED)), bytes(DAMAGED))
                with pytest.raises(grpc.RpcError) as e:
                    infer(request(GIQA, {IMAGE: tensor}, [SCORE]), timeout=60)
            assert e.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert e.value.details().startswith("[corrupt]")
        finally:
            over.set()
            thread.join(120)
            gateway.stop(1)
