"""`giqa doctor`: what runs here, what does not, and why."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import click

from giqa import __version__
from giqa.cli._common import FAILURE, Exit
from giqa.errors import GiqaError, MissingExtraError


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        status: `ok`, `missing` (optional and not there) or `broken`.
        detail: version or reason, and what to do.
        needed: scoring in process needs it.
    """

    name: str
    status: Literal["ok", "missing", "broken"]
    detail: str
    needed: bool = False


_EXTRAS = (
    # what, distribution, module, extra, needed for scoring in process
    ("OpenVINO", "openvino", "openvino", "cpu", True),
    ("Triton client", "tritonclient", "tritonclient", "client", False),
    ("PyAV", "av", "av", "video", False),
    ("Jinja", "jinja2", "jinja2", "report", False),
    ("Ray", "ray", "ray", "ray", False),
    ("PyTorch", "torch", "torch", "train", False),
    ("Torch-TensorRT", "torch-tensorrt", "torch_tensorrt", "tensorrt", False),
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Tell what runs here, what does not, and why; exit 1 if images cannot be scored.

    Example: giqa doctor
    """
    checks = list(_checks())
    if as_json:
        click.echo(json.dumps([asdict(c) for c in checks], indent=1))
    else:
        for check in checks:
            click.echo(f"{check.status:<8} {check.name:<16} {check.detail}")
    if any(c.needed and c.status != "ok" for c in checks):
        raise Exit(FAILURE)


def _checks() -> Iterator[Check]:
    yield Check("giqa", "ok", f"{__version__}, Python {platform.python_version()}")
    yield Check("platform", "ok", _platform())
    yield _guard("NumPy", _numpy, needed=True)
    yield _guard("decoder", _decoder, needed=True)
    yield _guard("OpenCV", _opencv)
    for name, distribution, module, extra, needed in _EXTRAS:
        yield _package(name, distribution, module, extra, needed)
    yield _guard("CPU", _cpu, needed=True)
    yield _guard("tritonserver", _tritonserver)
    yield _guard("NVIDIA GPU", _gpu)
    yield _guard("engines", _engines)
    yield _guard("default bundle", _bundle, needed=True)


class _MissingError(Exception):
    """The thing is optional and not there."""


def _guard(name: str, probe: Callable[[], str], *, needed: bool = False) -> Check:
    try:
        return Check(name, "ok", probe(), needed)
    except _MissingError as e:
        return Check(name, "missing", str(e), needed)
    except (GiqaError, ImportError, RuntimeError, OSError) as e:
        return Check(name, "broken", str(e).splitlines()[0] if str(e) else repr(e), needed)


def _package(name: str, distribution: str, module: str, extra: str, needed: bool) -> Check:
    def probe() -> str:
        try:
            version = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            raise _MissingError(f"pip install 'giqa[{extra}]'") from None
        if needed:
            import_module(module)
        elif find_spec(module) is None:
            raise ImportError(f"{distribution} {version} has no module {module}")
        return version

    return _guard(name, probe, needed=needed)


def _numpy() -> str:
    version = metadata.version("numpy")
    served = "nvidia-pytriton" in {d.name.lower() for d in metadata.distributions() if d.name}
    if served and int(version.split(".")[0]) >= 2:
        raise RuntimeError(
            f"{version}: Triton's Python backend is silently wrong with 2; pip install 'numpy<2'"
        )
    return version


def _platform() -> str:
    libc = " ".join(platform.libc_ver()).strip()
    return f"{platform.system()} {platform.machine()}{', ' if libc else ''}{libc}"


def _decoder() -> str:
    from giqa.decode import has_dali

    if not has_dali():
        return "Pillow alone: no DALI here (Linux: pip install 'giqa[cpu]'); scores differ a little"
    import_module("nvidia.dali")
    return f"DALI {metadata.version('nvidia-dali-cuda130')}, Pillow {metadata.version('pillow')}"


def _opencv() -> str:
    found = {
        d.name: d.version for d in metadata.distributions() if "opencv" in (d.name or "").lower()
    }
    if len(found) > 1:
        raise RuntimeError(f"{', '.join(sorted(found))} overwrite each other: keep one")
    if not found:
        raise _MissingError("pip install 'giqa[video]' brings it, for cuts of videos")
    return " ".join(next(iter(found.items())))


def _cpu() -> str:
    from giqa.openvino import cpu_capabilities, cpu_count, int8_is_fast

    fast = "fast" if int8_is_fast() else "slow"
    return f"{cpu_count()} threads, {' '.join(cpu_capabilities())}; int8 is {fast}"


def _tritonserver() -> str:
    from giqa.serving import describe_faults, find_tritonserver

    try:
        found = find_tritonserver()
    except MissingExtraError:
        raise _MissingError("not on PATH; pip install 'giqa[server]' brings one") from None
    return f"{found.path}; {describe_faults(found.version)}"


def _gpu() -> str:
    if not Path("/dev/nvidiactl").exists():
        raise _MissingError("no driver: everything runs on the CPU but TensorRT engines")
    return "driver found"


def _engines() -> str:
    from giqa.bundle import load_bundle
    from giqa.serving import all_gpus, engines_of, load_engines

    bundle = load_bundle()
    folder = engines_of(bundle)
    if not folder.is_dir():
        raise _MissingError("none for the default bundle; python -m build engines makes them")
    engines = load_engines(folder, bundle, *all_gpus())
    first = next(iter(engines.values()))
    return f"TensorRT {first.tensorrt}, {first.precision}, {first.gpu}, up to {first.max_batch}"


def _bundle() -> str:
    from giqa.local import LocalScorer

    with LocalScorer(self_test=False) as scorer:
        difference = scorer.self_test()
        return f"{scorer.manifest.id}, {scorer.engine}: self-test off by {abs(difference):.3f}"
