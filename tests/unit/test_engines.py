"""Engines: descriptions, what is refused before a server sees it, nothing half-written."""

from __future__ import annotations

import ast
import errno
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

from build.engines import binding_names, build_engines, serialize, torch_keywords, write_engines
from build.parser import Settings
from build.profiles import bundle_profiles, profile_of, profiles_of
from giqa.bundle import Bundle, load_bundle
from giqa.contract import FUSION, GLOBAL_BRANCH, GRAPHS, TILES
from giqa.errors import EngineMismatchError, MissingExtraError, StorageFullError, UsageError
from giqa.serving import (
    DESCRIPTION,
    PLAN,
    Machine,
    all_gpus,
    engines_of,
    load_engines,
    this_machine,
)
from giqa.serving._tensorrt import link_plans, read_engine

HERE = Machine("H100", "9.0", "10.13.2", "13.0.1", "25.09")
SMI = '#!/bin/sh\n[ "$1" = -L ] && exit 0\necho "NVIDIA H100 80GB HBM3, 9.0"\n'
NO_GPU = shutil.which("nvidia-smi") is None


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


def write(folder: Path, bundle: Bundle, settings: Settings | None = None, **changes: object):
    """Engines whose plans are any bytes: what is verified here never looks into them."""
    plans = {name: f"plan of {name}".encode() * 100 for name in GRAPHS}
    what = {
        "machine": HERE,
        "tensorrt": "10.13.2.6",
        "builder": "tensorrt",
        "precision": "f16",
        "settings": settings or Settings(),
    }
    what |= changes
    what["profiles"] = {
        n: bundle_profiles(bundle, n, what["precision"], max_batch=8) for n in GRAPHS
    }
    return write_engines(plans, folder, bundle, **what)


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    write(tmp_path / "engines", bundle)
    return tmp_path / "engines"


def test_what_is_written_is_read(bundle: Bundle, folder: Path) -> None:
    found = load_engines(folder, bundle, HERE, max_batch=8)
    assert tuple(found) == GRAPHS
    one = found[FUSION]
    assert (one.tensorrt, one.sm, one.precision, one.max_batch) == ("10.13.2", "9.0", "f16", 8)
    assert one.onnx_sha256 == bundle.manifest.files[bundle.manifest.graphs[FUSION]].sha256
    few, many = (profile["LOCAL_TOKENS"] for profile in one.profiles)
    assert (few.minimum[:2], few.maximum[:2]) == ((1, 1), (8, 1 + TILES))
    assert (many.minimum[:2], many.maximum[:2]) == ((1, 2), (8, 9 + TILES))
    assert read_engine(folder, FUSION) == one
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        f"{name}/{file}" for name in GRAPHS for file in (PLAN, DESCRIPTION)
    }


def _edit(folder: Path, **changes: object) -> None:
    path = folder / FUSION / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _truncate(folder: Path) -> None:
    with (folder / FUSION / PLAN).open("r+b") as file:
        file.truncate(100)


def _alter(folder: Path) -> None:
    with (folder / FUSION / PLAN).open("r+b") as file:
        file.write(b"X")


DAMAGE = {
    "bytes instead of": _truncate,
    "SHA-256 differs": _alter,
    "model.plan: No such file": lambda f: (f / FUSION / PLAN).unlink(),
    "no engine: No such file": lambda f: (f / FUSION / DESCRIPTION).unlink(),
    "was built from": lambda f: _edit(f, onnx_sha256="0" * 64),
    "several precisions": lambda f: _edit(f, precision="f32"),
    "is an engine of global_branch": lambda f: _edit(f, graph=GLOBAL_BRANCH),
    "tensorrt: String should match": lambda f: _edit(f, tensorrt="ten"),
    "schema: Input should be": lambda f: _edit(f, schema="giqa.engine/1"),
    "surprise: Extra inputs": lambda f: _edit(f, surprise=1),
    "Invalid JSON": lambda f: (f / FUSION / DESCRIPTION).write_text("{"),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_damage_is_told_with_the_command_that_mends_it(
    bundle: Bundle, folder: Path, message: str
) -> None:
    DAMAGE[message](folder)
    with pytest.raises(EngineMismatchError) as caught:
        load_engines(folder, bundle, HERE)
    assert message in caught.value.message
    assert "python -m build engines" in caught.value.remedy
    assert f"--out {folder}" in caught.value.remedy


def test_another_gpu_is_refused(bundle: Bundle, folder: Path) -> None:
    other = replace(HERE, gpu="RTX 4090", sm="8.9")
    with pytest.raises(EngineMismatchError, match="9.0 .H100., this GPU has 8.9 .RTX 4090") as e:
        load_engines(folder, bundle, other)
    assert e.value.remedy == (
        f"build it here: python -m build engines --bundle {bundle.folder} "
        f"--precision f16 --max-batch 8 --out {folder}"
    )


@pytest.mark.parametrize(("sm", "fits"), [("8.9", True), ("12.0", True), ("7.5", False)])
def test_hardware_compatible_engines(bundle: Bundle, tmp_path: Path, sm: str, fits: bool) -> None:
    write(tmp_path / "e", bundle, Settings(hardware_compatible=True))
    if fits:
        load_engines(tmp_path / "e", bundle, replace(HERE, sm=sm))
    else:
        with pytest.raises(EngineMismatchError, match="compatible engines need 8.0"):
            load_engines(tmp_path / "e", bundle, replace(HERE, sm=sm))


@pytest.mark.parametrize(
    ("here", "compatible", "fits"),
    [
        ("10.13.2", False, True),
        ("10.13.3", False, False),
        ("11.0.0", False, False),
        ("10.14.0", True, True),
        ("10.12.9", True, False),
        ("11.0.0", True, False),
        (None, False, True),
    ],
)
def test_versions(
    bundle: Bundle, tmp_path: Path, here: str | None, compatible: bool, fits: bool
) -> None:
    write(tmp_path / "e", bundle, Settings(version_compatible=compatible))
    machine = replace(HERE, tensorrt=here)
    if fits:
        load_engines(tmp_path / "e", bundle, machine)
    else:
        with pytest.raises(EngineMismatchError, match=f"TensorRT 10.13.2, here is {here}"):
            load_engines(tmp_path / "e", bundle, machine)


def test_a_larger_batch_is_refused(bundle: Bundle, folder: Path) -> None:
    with pytest.raises(EngineMismatchError, match="batches of 8 at most, 16") as caught:
        load_engines(folder, bundle, HERE, max_batch=16)
    assert "--max-batch 16" in caught.value.remedy


def test_a_full_disk_leaves_what_was_there(
    bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageFullError):
        write(folder, bundle, precision="bf16")
    monkeypatch.undo()
    assert load_engines(folder, bundle, HERE)[FUSION].precision == "f16"
    assert list(folder.parent.iterdir()) == [folder]


def test_only_engines_are_replaced(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="thesis.tex"):
        write(tmp_path, bundle)
    with pytest.raises(UsageError, match="is a file"):
        write(tmp_path / "thesis.tex", bundle)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_plans_are_linked_into_a_repository(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    link_plans(folder, tmp_path / "models")
    for name in GRAPHS:
        plan = tmp_path / "models" / name / "1" / PLAN
        assert plan.read_bytes() == (folder / name / PLAN).read_bytes()


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that answers as nvidia-smi does, first on PATH."""
    path = tmp_path / "bin" / "nvidia-smi"
    path.parent.mkdir()
    path.write_text(SMI)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    return path


def test_the_machine_is_read(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", "25.09")
    monkeypatch.setenv("CUDA_VERSION", "13.0.1")
    found = this_machine()
    assert (found.gpu, found.sm) == ("NVIDIA H100 80GB HBM3", "9.0")
    assert (found.cuda, found.container) == ("13.0.1", "25.09")


def test_every_gpu_has_to_fit(
    bundle: Bundle, folder: Path, smi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi.write_text(
        '#!/bin/sh\ncase "$1" in\n*memory*) echo "81559 MiB"; echo "24564 MiB" ;;\n'
        '*) echo "NVIDIA H100 80GB HBM3, 9.0"; echo "NVIDIA L4, 8.9" ;;\nesac\n'
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    both = [replace(gpu, tensorrt="10.13.2") for gpu in all_gpus()]
    assert [(g.sm, g.memory) for g in both] == [("9.0", 81559 * 2**20), ("8.9", 24564 * 2**20)]
    with pytest.raises(EngineMismatchError, match="this GPU has 8.9 .NVIDIA L4"):
        load_engines(folder, bundle, *both)
    assert load_engines(folder, bundle, both[0])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.sm for gpu in all_gpus()] == ["8.9"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(EngineMismatchError, match="no NVIDIA GPU"):
        all_gpus()


def test_what_engines_belong_to_has_a_name() -> None:
    assert HERE.key == "sm90-tensorrt10.13.2"
    keys = {HERE.key, replace(HERE, sm="8.9").key, replace(HERE, tensorrt="11.1.0").key}
    assert len(keys) == 3


def test_a_precision_that_a_gpu_has_not_is_refused(
    bundle: Bundle, smi: Path, tmp_path: Path
) -> None:
    smi.write_text('#!/bin/sh\necho "NVIDIA T4, 7.5"\n')
    with pytest.raises(EngineMismatchError, match="7.5, bf16 needs 8.0") as caught:
        build_engines(bundle, tmp_path / "engines", precision="bf16")
    assert "f16" in caught.value.remedy


@pytest.mark.parametrize("answer", ["exit 9", "echo nothing", "echo 'No devices were found'"])
def test_a_driver_that_does_not_answer(smi: Path, answer: str) -> None:
    smi.write_text(f"#!/bin/sh\n{answer}\n")
    with pytest.raises(EngineMismatchError, match="no NVIDIA GPU"):
        this_machine()


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_nothing_is_built_without_a_gpu(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EngineMismatchError, match="no NVIDIA GPU"):
        build_engines(bundle, tmp_path / "engines")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="there is a TensorRT")
def test_nothing_is_built_without_tensorrt(bundle: Bundle, smi: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match="TensorRT does not import") as caught:
        build_engines(bundle, tmp_path / "engines")
    assert "container" in caught.value.remedy
    assert not (tmp_path / "engines").exists()


@pytest.mark.skipif(find_spec("torch_tensorrt") is not None, reason="there is a torch-tensorrt")
def test_nothing_is_serialized_without_torch_tensorrt() -> None:
    with pytest.raises(MissingExtraError) as caught:
        serialize(None, [], [])
    assert caught.value.remedy == "pip install 'giqa[tensorrt]'"


@pytest.mark.gpu
def test_engines_are_built(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt", reason="no TensorRT")
    found = build_engines(bundle, tmp_path / "engines", settings=Settings(level=0))
    assert load_engines(tmp_path / "engines", bundle, this_machine()) == found


def _giqa(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "giqa", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


def test_serve_refuses_before_a_server_starts(
    bundle: Bundle, folder: Path, smi: Path, checkout: Path, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    server = tmp_path / "bin" / "tritonserver"
    server.write_text(f"#!/bin/sh\ntouch {started}\n")
    server.chmod(0o755)
    _truncate(folder)
    options = ["--device", "gpu", "--engines", str(folder), "--tritonserver", str(server)]
    done = _giqa("serve", *options, cwd=checkout)
    assert done.returncode == 1
    assert "[engine_mismatch]" in done.stderr
    assert "100 bytes instead of" in done.stderr
    assert "python -m build engines" in done.stderr
    assert not started.exists()


def test_engines_lie_in_their_bundle(bundle: Bundle) -> None:
    assert engines_of(bundle) == bundle.folder / "engines"


class _Two(torch.nn.Module):
    def __init__(self, several: bool) -> None:
        super().__init__()
        self.several = several

    def forward(self, a: torch.Tensor, b: torch.Tensor):
        return (a + b, a * b) if self.several else a + b


@pytest.mark.parametrize("several", [False, True])
def test_binding_names_have_the_programs_structure(several: bool) -> None:
    program = torch.export.export(_Two(several), (torch.ones(2), torch.ones(2)))
    outputs = ["SCORE", "QUALITY_MAP"] if several else ["SCORE"]
    found = binding_names(program, ["A", "B"], outputs)
    signature = program.module_call_graph[0].signature
    # torch-tensorrt compares structures: a list in a tuple's place is refused.
    given, gives = found["arg_input_binding_names"], found["output_binding_names"]
    assert pytree.tree_structure(given) == signature.in_spec.child(0)
    assert pytree.tree_structure(gives) == signature.out_spec
    assert pytree.tree_leaves(gives) == outputs


def test_keywords_are_torch_tensorrts() -> None:
    """Against the source in the wheel that the extra pins: $GIQA_TORCH_TENSORRT (.ci/run)."""
    wheel = os.environ.get("GIQA_TORCH_TENSORRT")
    if wheel is None:
        pytest.skip("set GIQA_TORCH_TENSORRT to the wheel")
    with zipfile.ZipFile(wheel) as file:
        tree = ast.parse(file.read("torch_tensorrt/dynamo/_compiler.py"))
        inputs = ast.parse(file.read("torch_tensorrt/_Input.py"))
    name = "convert_exported_program_to_serialized_trt_engine"
    (function,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    known = {a.arg for a in function.args.kwonlyargs}
    full = Settings(workspace_mb=1, level=1, timing_cache=Path("c"))
    names = {"arg_input_binding_names", "output_binding_names", "arg_inputs"}
    assert {*torch_keywords(full), *names} <= known
    said = ast.dump(inputs)
    assert all(f"'{word}'" in said for word in ("min_shape", "opt_shape", "max_shape", "dtype"))


def test_float32_is_float32_by_either_road() -> None:
    """Both builders take ten bits of mantissa for it unless told otherwise."""
    assert torch_keywords(Settings())["disable_tf32"] is True
    source = (Path(__file__).parents[2] / "build" / "parser.py").read_text()
    assert "config.clear_flag(runtime.BuilderFlag.TF32)" in source


def test_profiles_are_of_the_contract(bundle: Bundle) -> None:
    (view,) = profile_of(GLOBAL_BRANCH, bundle.manifest.tensors, max_batch=4, opt_batch=2)
    side = bundle.manifest.tensors.global_side
    assert (view.name, view.dtype) == ("GLOBAL_VIEW", "uint8")
    assert view.minimum == (1, 1, side, side, 3)
    assert (view.optimum[:2], view.maximum[:2]) == ((2, 1), (4, 9))


def test_a_request_fits_one_profile(bundle: Bundle) -> None:
    """Triton takes the nearest by a distance that mixes batch and views: it must have no choice."""
    sizes, tiles = bundle.manifest.tensors, bundle.manifest.tiles
    counts = [(v, t) for v in range(1, 10) for t in (0, tiles)]
    for graph in GRAPHS:
        profiles = profiles_of(graph, sizes, max_batch=32, tiles=tiles)
        for views, more in counts:
            fits = []
            for profile in profiles:
                inside = []
                for one in profile:
                    count = views + (more if one.name.startswith("LOCAL") else 0)
                    inside += [one.minimum[1] <= count <= one.maximum[1]]
                    assert all(
                        a <= b <= c
                        for a, b, c in zip(one.minimum, one.optimum, one.maximum, strict=True)
                    )
                    assert one.maximum[0] == 32  # both take whatever comes together
                fits.append(all(inside))
            assert sum(fits) == 1, (graph, views, more)
    fast = profiles_of(GLOBAL_BRANCH, sizes, max_batch=32, tiles=tiles)[0][0]
    assert fast.optimum[:2] == (32, 1)
