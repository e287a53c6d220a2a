"""The suite `gpu`: that it needs one, and on a CPU that it measures and compares rightly."""

from __future__ import annotations

import pytest
import torch

from benchmarks.options import Options
from benchmarks.record import record
from benchmarks.suites import gpu
from giqa.errors import EngineMismatchError


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(EngineMismatchError, match="no NVIDIA GPU"):
        next(gpu.run(Options(quick=True)))


def test_it_measures_on_a_cpu_as_it_would_on_a_gpu() -> None:
    options = Options(quick=True, rounds=2, threads=2)
    found = record("gpu", gpu.measure(options, torch.device("cpu")), options)
    assert found.get("PyTorch eager f32/largest difference").median < 1e-3
    off = found.get("PyTorch eager bf16/largest difference")
    assert 0 < off.median < off.facts["spread"]  # type: ignore[operator]
    assert 0 < found.get("PyTorch eager f32, batch 1/efficiency").median <= 110
    (compared,) = found.comparisons
    assert compared.against == "PyTorch eager f32, batch 1/throughput"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_it_measures_on_a_gpu() -> None:
    options = Options(quick=True, rounds=2)
    found = record("gpu", gpu.run(options), options)
    assert found.get("PyTorch eager f16/largest difference").median < 2
