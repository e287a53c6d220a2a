"""What we call of TensorRT, against the real Python bindings of each version that is supported.

The bindings are wheels of 1.2 MB; the libraries behind them, of gigabytes, want a GPU. Here stands
a library with the C symbols that importing needs, so names and signatures are NVIDIA's own, and
nothing is built. `.ci/run` fetches the wheels: $GIQA_TENSORRT_BINDINGS is a folder of them.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tensorrt_rtx

STUB = """
#define STUB(name) void *name(void) { return 0; }
STUB(createInferBuilder_INTERNAL) STUB(createInferRefitter_INTERNAL)
STUB(createInferRuntime_INTERNAL) STUB(createNvOnnxParserRefitter_INTERNAL)
STUB(createNvOnnxParser_INTERNAL) STUB(getBuilderPluginRegistry)
STUB(getNvOnnxParserVersion) STUB(getPluginRegistry) STUB(initLibNvInferPlugins)
"""
CLASSES = {
    "runtime": "",
    "tensorrt": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
}
"""Our names of TensorRT's objects, and their classes; the module itself."""
OF_RTX = {"ComputeCapability", "num_compute_capabilities", "set_compute_capability"}
"""What only TensorRT-RTX has, and only it is asked for."""
CALLS = {
    "IOptimizationProfile.set_shape": ["input", "min", "opt", "max"],
    "IBuilderConfig.set_timing_cache": ["cache", "ignore_mismatch"],
    "IBuilderConfig.set_memory_pool_limit": ["pool", "pool_size"],
    "Builder.build_serialized_network": ["network", "config"],
    "IExecutionContext.set_input_shape": ["name", "shape"],
}
"""Parameters of what is called with several."""


def used(checkout: Path) -> set[str]:
    """Dotted names of TensorRT in our source: `Builder.create_network`, `BuilderFlag.TF32`."""
    found: set[str] = set()
    for path in ("build/parser.py", "benchmarks/tensorrt.py"):
        for node in ast.walk(ast.parse((checkout / path).read_text())):
            names = []
            while isinstance(node, ast.Attribute):
                names.insert(0, node.attr)
                node = node.value
            if names and isinstance(node, ast.Name) and node.id in CLASSES:
                names = names[: names.index("__members__")] if "__members__" in names else names
                owner = CLASSES[node.id]
                if node.id == "runtime" and path.startswith("benchmarks"):
                    owner = "Runtime"
                # Behind a class's member nothing is looked at: its type is not known here.
                cut = 1 if owner else 2
                found.add(".".join(filter(None, [owner, *names[:cut]])))
    return found


LOOK = """
import json, sys
import tensorrt_bindings as tensorrt
found = {"version": tensorrt.__version__, "names": {}, "docs": {}}
for dotted in json.loads(sys.argv[1]):
    thing = tensorrt
    for part in dotted.split("."):
        thing = getattr(thing, part, None)
        if thing is None:
            break
    found["names"][dotted] = thing is not None
    found["docs"][dotted] = getattr(thing, "__doc__", "") or ""
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (compiler := shutil.which("cc") or shutil.which("gcc")) is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("libraries")
    (folder / "stub.c").write_text(STUB)
    for name in ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser"):
        for major in (10, 11):
            soname = f"{name}.so.{major}"
            command = [
                compiler,
                "-shared",
                "-fPIC",
                f"-Wl,-soname,{soname}",
                "-o",
                soname,
                "stub.c",
            ]
            subprocess.run(command, cwd=folder, check=True)
    return folder


def wheels() -> list[Path]:
    folder = os.environ.get("GIQA_TENSORRT_BINDINGS")
    tag = f"-cp{sys.version_info[0]}{sys.version_info[1]}-"
    return sorted(p for p in Path(folder).rglob("*.whl") if tag in p.name) if folder else []


def test_our_names_are_found(checkout: Path) -> None:
    """Else what follows would check nothing."""
    assert {
        "Builder.create_network",
        "BuilderFlag.TF32",
        "IBuilderConfig.set_timing_cache",
        "IExecutionContext.execute_async_v3",
        "DataType.HALF",
        "OnnxParser",
    } <= used(checkout)


def test_tensorrt_rtx_has_what_is_called(checkout: Path) -> None:
    """Installed everywhere, the same interface; it runs nothing, so has no BF16 binding of ours."""
    for dotted in used(checkout):
        thing = tensorrt_rtx
        for part in dotted.split("."):
            assert hasattr(thing, part), dotted
            thing = getattr(thing, part)


@pytest.mark.skipif(not wheels(), reason="set GIQA_TENSORRT_BINDINGS to a folder of wheels")
@pytest.mark.parametrize("wheel", wheels(), ids=lambda path: path.name.split("-")[1])
def test_tensorrt_has_what_is_called(
    wheel: Path, libraries: Path, checkout: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path)
    names = sorted(n for n in used(checkout) | set(CALLS) if not OF_RTX & set(n.split(".")))
    env = {"PYTHONPATH": str(tmp_path), "LD_LIBRARY_PATH": str(libraries), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(names)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["version"] == wheel.name.split("-")[1]
    assert [n for n, there in found["names"].items() if not there] == []
    for dotted, parameters in CALLS.items():
        said = re.search(r"\((.*?)\) ->", found["docs"][dotted], re.S)
        assert said is not None, dotted
        assert re.findall(r"(\w+):", said[1])[1 : len(parameters) + 1] == parameters, dotted
