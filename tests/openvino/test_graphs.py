"""Compiled graphs: halves of a batch, and which CPUs their threads may use."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from giqa.bundle import Bundle, load_bundle
from giqa.contract import FUSION, LOCAL_BRANCH
from giqa.openvino import CompiledGraph
from giqa.precision import Precision
from giqa.tensors import inputs_of, tensor_shapes


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


def example(bundle: Bundle, graph: str, batch: int) -> dict[str, Any]:
    rng = np.random.default_rng(batch)
    shapes = {name: tensor_shapes(bundle.manifest.tensors)[name] for name in inputs_of(graph)}
    return {
        name: rng.integers(0, 256, (batch, 1, *shape[1:]), np.uint8)
        if kind == "UINT8"
        else rng.standard_normal((batch, 1, *shape[1:]), np.float32)
        for name, (kind, shape) in shapes.items()
    }


@pytest.mark.parametrize("precision", ["f32", "int8"])
@pytest.mark.parametrize("name", [LOCAL_BRANCH, FUSION])
def test_halves_of_a_batch_give_the_same_numbers(
    name: str, precision: Precision, bundle: Bundle
) -> None:
    whole = CompiledGraph(bundle, name, precision, 2)
    halved = CompiledGraph(bundle, name, precision, 2, halves=True)
    for batch in (1, 2, 3, 8):
        given = example(bundle, name, batch)
        wanted, found = whole(given), halved(given)
        assert set(found) == set(whole.outputs)
        for output, array in found.items():
            np.testing.assert_array_equal(array, wanted[output])


def test_what_fails_in_halves_leaves_the_graph_usable(bundle: Bundle) -> None:
    halved = CompiledGraph(bundle, LOCAL_BRANCH, "f32", 2, halves=True)
    good = example(bundle, LOCAL_BRANCH, 2)
    before = {name: array.copy() for name, array in halved(good).items()}
    with pytest.raises(RuntimeError):
        halved({name: array[..., :2] for name, array in good.items()})
    for name, array in halved(good).items():
        np.testing.assert_array_equal(array, before[name])


THREADS = """
import os
from giqa import LocalScorer, load_bundle
with LocalScorer() as scorer:
    picture = load_bundle().self_test_image
    assert all(row.error is None for row in scorer.score([picture] * 8))
    allowed = {frozenset(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")}
    print(allowed == {frozenset(os.sched_getaffinity(0))})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_thread_is_bound_to_a_cpu() -> None:
    """Otherwise every process binds its own to the first CPUs, and two have the speed of one."""
    done = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "True"


def test_signals_come_through_when_scorers_were_closed() -> None:
    """OpenVINO's plugin leaves the thread that loads it a stack for signals that it frees."""
    script = """
import ctypes, gc, signal, threading
import numpy as np
from giqa import LocalScorer
from giqa.openvino import cpu_capabilities

class Stack(ctypes.Structure):
    _fields_ = [("where", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def stack():
    found = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.where, found.size

before, heard = stack(), []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
cpu_capabilities()
for _ in range(2):
    scorers = [LocalScorer(precision="f32", self_test=False, threads=2) for _ in range(2)]
    for scorer in scorers:  # halves of even batches are compiled here
        list(scorer.score([np.zeros((90, 90, 3), np.uint8)] * 2))
    del scorer
    closing = threading.Thread(target=scorers.clear)  # frees them in another thread
    closing.start()
    closing.join()
    gc.collect()
    assert stack() == before, (before, stack())
    signal.raise_signal(signal.SIGUSR1)
assert len(heard) == 2
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
