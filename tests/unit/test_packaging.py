"""What users install: the wheel's contents, and a core that is light and silent."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

HEAVY = [
    "av",
    "cv2",
    "jinja2",
    "matplotlib",
    "nvidia",
    "onnx",
    "onnxruntime",
    "openvino",
    "pi_heif",
    "ray",
    "scenedetect",
    "scipy",
    "skimage",
    "sklearn",
    "torch",
    "torchvision",
    "timm",
    "tritonclient",
]
MB = 2**20


@pytest.fixture(scope="module")
def project(checkout: Path) -> dict:
    return tomllib.loads((checkout / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("wheel")
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", *flags, "-w", folder, checkout], check=True
    )
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        yield file


def _metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (n for n in wheel.namelist() if n.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_wheel_holds_giqa_whole_and_nothing_else(wheel: zipfile.ZipFile, checkout: Path) -> None:
    packed = {n for n in wheel.namelist() if ".dist-info/" not in n}
    own = {
        p.relative_to(checkout).as_posix()
        for p in (checkout / "giqa").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert packed == own


def test_wheel_is_typed_and_licensed(wheel: zipfile.ZipFile) -> None:
    assert "giqa/py.typed" in wheel.namelist()
    assert "Apache License" in _metadata(wheel, "licenses/LICENSE")


def test_wheel_carries_the_default_bundle_within_its_size(wheel: zipfile.ZipFile) -> None:
    files = [i for i in wheel.infolist() if i.filename.startswith("giqa/bundles/giqa-s/")]
    assert "manifest.json" in {Path(i.filename).name for i in files}
    assert max(i.file_size for i in files) <= 50 * MB
    assert sum(i.file_size for i in files) <= 80 * MB


def test_the_long_description_stands_alone(wheel: zipfile.ZipFile) -> None:
    """An index shows it beside no repository: what is linked must be elsewhere, and be there."""
    message = email.message_from_string(_metadata(wheel, "METADATA"))
    assert message["Description-Content-Type"] == "text/markdown"
    text = message.get_payload()
    assert text.startswith("# giqa\n")
    assert "pip install 'giqa[cpu]'" in text
    targets = re.findall(r"\]\(([^)\s]*)\)", text)
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []


def test_wheel_has_the_command(wheel: zipfile.ZipFile) -> None:
    assert "giqa = giqa.cli:run" in _metadata(wheel, "entry_points.txt")


def test_core_is_light(wheel: zipfile.ZipFile) -> None:
    requires = email.message_from_string(_metadata(wheel, "METADATA")).get_all("Requires-Dist", [])
    core = {re.split(r"[^\w-]", line)[0] for line in requires if "extra ==" not in line}
    assert core == {"click", "numpy", "pillow", "pyarrow", "pydantic", "tqdm"}


def test_versions_agree(project: dict) -> None:
    import giqa

    assert giqa.__version__ == project["version"]


def _python(code: str) -> subprocess.CompletedProcess[str]:
    # -I: neither this folder nor PYTHON* variables lend it anything.
    return subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code], capture_output=True, text=True
    )


def test_import_is_pure_and_silent() -> None:
    done = _python(
        "import sys; before = set(sys.modules); import giqa; "
        f"heavy = set({HEAVY!r}) & {{n.split('.')[0] for n in set(sys.modules) - before}}; "
        "sys.exit(' '.join(sorted(heavy)) or 0)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Refuses every import that a core-only environment would refuse.
CORE_ONLY = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def test_every_public_name_is_there_in_the_core() -> None:
    done = _python(CORE_ONLY + "import giqa\nfor name in giqa.__all__: getattr(giqa, name)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_scoring_in_the_core_names_the_extra() -> None:
    done = _python(
        CORE_ONLY
        + "import giqa, giqa.errors\n"
        + "try: giqa.LocalScorer()\n"
        + "except giqa.errors.MissingExtraError as e: print(e.remedy)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "pip install 'giqa[cpu]'\n", "")


def test_help_works_in_the_core() -> None:
    done = _python(
        CORE_ONLY + "sys.argv = ['giqa', '--help']\nfrom giqa.cli import main\nsys.exit(main())"
    )
    assert done.returncode == 0, done.stderr
    assert "score" in done.stdout


def test_openvino_and_nncf_report_to_nobody() -> None:
    """In a process of its own: NNCF keeps quiet under pytest anyway."""
    program = """
import sys
from giqa.openvino import import_openvino
from build.quantize import _nncf
import_openvino()
_nncf()
from openvino.tools.ovc import convert_impl, telemetry_utils
from nncf.telemetry import telemetry
assert "openvino_telemetry" not in sys.modules
print(convert_impl.tm.__name__, telemetry_utils.tm.__name__, type(telemetry).__name__)
import openvino_telemetry  # others may have it
"""
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout
    stub = "openvino.tools.ovc.telemetry_stub"
    assert said.split() == [stub, stub, "MagicMock"]
