"""The suite `gpu`: that it needs one, and on a CPU that it measures and compares rightly."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import images, tensorrt
from benchmarks.gpus import exact
from benchmarks.options import Options
from benchmarks.record import Record, record
from benchmarks.served.perf_analyzer import NAME
from benchmarks.suites import SUITES, gpu, gpu_server, run
from giqa.bundle import load_bundle
from giqa.errors import EngineMismatchError
from giqa.precision import BOUNDS
from giqa.serving import Machine
from tests.tools import tool


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(EngineMismatchError, match="no NVIDIA GPU"):
        next(gpu.run(Options(quick=True)))


BARE = """
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions
from pathlib import Path

from benchmarks.wheels import _closure, wheels

part, photographs, result = sys.argv[1:]
names = [one.partition("==")[0] for one in wheels(part)]
there = {*names, *_closure("torch"), "giqa"}
owners = packages_distributions()


class Only(MetaPathFinder):
    @staticmethod
    def find_spec(name, path=None, target=None):
        of = owners.get(name.partition(".")[0])
        if of and not {one.lower().replace("_", "-").replace(".", "-") for one in of} & there:
            return None
        return PathFinder.find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Only
import torch
from benchmarks.options import Options
from benchmarks.record import record

torch.set_num_threads(2)
options = Options(images=Path(photographs), quick=True, rounds=2, threads=2)
suite = import_module(f"benchmarks.suites.{part}")
found = record(part, suite.measure(options, torch.device("cpu")), options)
Path(result).write_text(found.model_dump_json(by_alias=True))
"""


def bare(part: str, folder: Path, checkout: Path) -> Record:
    """Run a part on the CPU with nothing but PyTorch and the wheels that it is said to need."""
    photographs = folder / "photographs"
    photographs.mkdir()
    images.write(images.mixed(Options(), 4), photographs)
    done = subprocess.run(
        [sys.executable, "-c", BARE, part, str(photographs), str(folder / "result.json")],
        capture_output=True, text=True, cwd=checkout,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return Record.model_validate_json((folder / "result.json").read_text())


def test_it_measures_on_a_cpu_as_it_would_on_a_gpu(tmp_path: Path, checkout: Path) -> None:
    found = bare("gpu", tmp_path, checkout)
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
def test_graphs_are_measured_on_a_cpu_as_they_would_be_on_a_gpu(
    tmp_path: Path, checkout: Path
) -> None:
    found = bare("gpu_graphs", tmp_path, checkout)
    assert found.get("PyTorch f32/largest difference").median < 1e-2
    assert found.get("PyTorch f32/SROCC").median == pytest.approx(1)
    assert found.get("PyTorch f32/moved by batch and order").median < 1e-2
    assert found.get("PyTorch f32, batch 1/throughput").median > 0


@pytest.mark.dali
def test_decoding_is_measured_on_a_cpu_as_it_would_be_on_a_gpu(
    tmp_path: Path, checkout: Path
) -> None:
    found = bare("gpu_decoding", tmp_path, checkout)
    for kind in ("JPEG", "CMYK", "EXIF turned", "grey", "PNG"):  # with itself
        assert found.get(f"{kind}/largest difference").median == 0
    assert found.get("neighbours/pixels moved").median == 0
    broken = found.get("broken/built again")
    assert broken.facts["refused"]
    assert "decode" in str(broken.facts["says"]).lower()
    assert found.get("batch 4/throughput").median > 0


@pytest.mark.slow
@pytest.mark.skipif(tool(NAME) is None, reason=f"no {NAME}; `make analyzer` fetches it")
def test_a_server_is_measured_on_a_cpu_as_it_would_be_on_a_gpu() -> None:
    options = Options(quick=True, rounds=2, threads=2)
    found = record("gpu_server", gpu_server.measure(options, torch.device("cpu")), options)
    assert found.get("server/largest difference").median < BOUNDS["int8"].tolerance
    assert found.get("bad among them/good rows lost").median == 0
    assert found.get("bad among them/largest difference").median == 0
    assert found.get("bad among them/refused").median == 100
    assert found.get("client/throughput").median > 0
    assert found.get("perf_analyzer, concurrency 1/throughput").median > 0


def test_a_prediction_stands_beside_a_gpu_that_has_one() -> None:
    bundle = load_bundle()
    assert gpu_server._predicted(bundle, "NVIDIA H100 80GB HBM3")["predicted images/s"] > 0
    assert gpu_server._predicted(bundle, "cpu") == {}


def test_all_float32_is_exact() -> None:
    torch.backends.cudnn.allow_tf32 = True
    exact()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_engines_that_fit_are_kept_and_go_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is built is a stand-in; which precisions, when and where is not."""
    built: list[str] = []
    clock = iter(range(0, 10_000, 100))

    def build(bundle: object, folder: Path, *, precision: str, **_: object) -> None:
        built.append(precision)
        folder.mkdir(parents=True)

    def load(folder: Path, *_: object, **__: object) -> None:
        if not folder.exists():
            raise EngineMismatchError("no engine")

    here = Machine("NVIDIA T4", "7.5", "10.13.2", None, None)
    monkeypatch.setattr(tensorrt, "this_machine", lambda: here)
    monkeypatch.setattr(tensorrt, "build_engines", build)
    monkeypatch.setattr(tensorrt, "load_engines", load)
    monkeypatch.setattr(tensorrt, "KEPT", tmp_path)
    monkeypatch.setattr(tensorrt, "Engines", lambda folder, precision: folder)
    monkeypatch.setattr(tensorrt.time, "monotonic", lambda: next(clock))
    first = dict(tensorrt.engines(load_bundle(), 32))
    assert built == ["f16"]  # a T4 has no bf16, and 200 s are over
    assert first["TensorRT f16"].parent == tmp_path / here.key
    monkeypatch.setattr(tensorrt.time, "monotonic", lambda: 0.0)
    assert list(tensorrt.engines(load_bundle(), 32))[1:]
    assert built == ["f16", "int8", "f32"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("suite", [name for name in SUITES if name.startswith("gpu")])
def test_every_part_says_that_it_needs_a_gpu(suite: str) -> None:
    with pytest.raises(EngineMismatchError, match="no NVIDIA GPU") as caught:
        next(run(suite, Options(quick=True)))
    assert caught.value.item == suite


def test_a_checkout_can_be_carried(checkout: Path) -> None:
    """By what takes 64 MiB: compressed, or as a tree of what the parts need."""
    git = ["git", "-C", str(checkout)]
    if subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True).returncode:
        pytest.skip("no repository")
    whole = subprocess.run([*git, "archive", "HEAD"], capture_output=True, check=True).stdout
    assert len(gzip.compress(whole, 1)) < 60e6
    text = (checkout / "benchmarks" / "README.md").read_text()
    (needed,) = re.findall(r"sparse-checkout set([\w\s]+)`", text)
    tree = subprocess.run(
        [*git, "ls-tree", "-rl", "HEAD", "--", *needed.split()], capture_output=True, check=True
    ).stdout
    files = {line.split(b"\t")[1].decode(): int(line.split()[3]) for line in tree.splitlines()}
    assert sum(files.values()) < 64 * 2**20
    code = (checkout / name for name in files if name.endswith(".py"))
    assert not [c for c in code if re.search(r"^(from|import) tests\b", c.read_text(), re.M)]
