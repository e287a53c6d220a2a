"""The suite `gpu`: that it needs one, and on a CPU that it measures and compares rightly."""

from __future__ import annotations

import pytest
import torch

from benchmarks.options import Options
from benchmarks.record import record
from benchmarks.suites import SUITES, gpu, gpu_decoding, gpu_graphs, run
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


@pytest.mark.slow
def test_graphs_are_measured_on_a_cpu_as_they_would_be_on_a_gpu() -> None:
    options = Options(quick=True, rounds=2, threads=2)
    found = record("gpu_graphs", gpu_graphs.measure(options, torch.device("cpu")), options)
    assert found.get("PyTorch f32/largest difference").median < 1e-2
    assert found.get("PyTorch f32/SROCC").median == pytest.approx(1)
    assert found.get("PyTorch f32/moved by batch and order").median < 1e-2
    assert found.get("PyTorch f32, batch 1/throughput").median > 0


def test_decoding_is_measured_on_a_cpu_as_it_would_be_on_a_gpu() -> None:
    options = Options(quick=True, rounds=2, threads=2)
    found = record("gpu_decoding", gpu_decoding.measure(options, torch.device("cpu")), options)
    for kind in ("JPEG", "CMYK", "EXIF turned", "grey", "PNG"):  # with itself
        assert found.get(f"{kind}/largest difference").median == 0
    assert found.get("neighbours/pixels moved").median == 0
    broken = found.get("broken/built again")
    assert broken.facts["refused"]
    assert "decode" in str(broken.facts["says"]).lower()
    assert found.get("batch 4/throughput").median > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("suite", [name for name in SUITES if name.startswith("gpu")])
def test_every_part_says_that_it_needs_a_gpu(suite: str) -> None:
    with pytest.raises(EngineMismatchError, match="no NVIDIA GPU") as caught:
        next(run(suite, Options(quick=True)))
    assert caught.value.item == suite
