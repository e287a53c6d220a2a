"""The one renderer of Triton model repositories: from a bundle's manifest to configs and files.

Both devices have the same ensembles with the same tensors (see `giqa.contract`). On a CPU the
composing models run in Triton's Python backend (DALI and OpenVINO), on a GPU in its DALI and
TensorRT backends, with no Python on the way.
"""

from __future__ import annotations

import io
import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from PIL import Image

from giqa.bundle import Bundle
from giqa.contract import ENSEMBLES, PREPROCESS_BYTES, PREPROCESS_PRECISE, PREPROCESSES
from giqa.decode import LARGE, serialize_pipeline
from giqa.manifest import Manifest
from giqa.serving._configs import composing_config, ensemble_config, to_text
from giqa.serving._gpu import decoder_hints
from giqa.serving._repository_options import RepositoryOptions, road_of
from giqa.tensors import composing_models, ensembles

TILED: Final = "tiles.jpg"
"""The sample for warming up that is large enough for tiles."""

_HEADER = "# Rendered by `python -m build repository` from the bundle's manifest: do not edit.\n"


def render_repository(bundle: Bundle, options: RepositoryOptions) -> dict[str, bytes]:
    """Render a model repository.

    Args:
        bundle: the bundle to serve.
        options: what for.

    Returns:
        Contents by path within the repository. On a GPU the engines
        (`<branch>/1/model.plan`) are missing: they are built where they run.

    Raises:
        MissingExtraError: tritonclient (or, for a GPU, DALI) is not installed.
        UsageError: what a GPU's tensors need is more than `options.memory`.
    """
    known = composing_models(options.device)
    files: dict[str, bytes] = {}
    for name in (*known, *ensembles(options.device)):
        images = _samples(name, bundle, options)
        config = ensemble_config(name, bundle, options) if name in ENSEMBLES else None
        config = config or composing_config(name, bundle, options, images)
        files[f"{name}/config.pbtxt"] = (_HEADER + to_text(config)).encode()
        if name in ENSEMBLES:
            files[f"{name}/1/.gitkeep"] = b""  # Triton wants the version's folder, git a file
        elif options.device == "cpu":
            files[f"{name}/1/model.py"] = _python(name).encode()
        elif name in PREPROCESSES:
            files[f"{name}/1/model.dali"] = _dali(name, bundle.manifest, options)
        files |= {f"{name}/warmup/{file}": image for file, image in images.items()}
    return files


def write_repository(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a repository: all of it or nothing.

    Args:
        folder: its place; what lies there is replaced.
        files: contents by path.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in files.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        staging.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _python(name: str) -> str:
    kind = "PreprocessModel" if name in PREPROCESSES else "GraphModel"
    return (
        f'"""{name}: see giqa.serving."""\n\n'
        f"from giqa.serving import {kind} as TritonPythonModel\n\n"
        '__all__ = ["TritonPythonModel"]\n'
    )


def _samples(name: str, bundle: Bundle, options: RepositoryOptions) -> dict[str, bytes]:
    """Images that a preprocess model warms up with, by name.

    On a CPU pictures with tiles go through a pipeline of their own; not where so large ones do
    not stay in memory, or are refused.
    """
    if name not in PREPROCESSES or name == PREPROCESS_BYTES:
        return {}
    found = {bundle.self_test_image.name: bundle.self_test_image.read_bytes()}
    fast = bundle.manifest.profiles["fast"]
    most = min(options.limits.max_pixels, LARGE)
    side = max(math.isqrt(fast.tile_pixels) + 1, bundle.manifest.tensors.local_side)
    own = options.device == "cpu" and name != PREPROCESS_PRECISE
    if own and fast.tiles and side * side <= most:
        file = io.BytesIO()
        Image.new("RGB", (side, side), "grey").save(file, "JPEG")
        found[TILED] = file.getvalue()
    return found


def _dali(name: str, manifest: Manifest, options: RepositoryOptions) -> bytes:
    sizes, fast = manifest.tensors, manifest.profiles["fast"]
    tiles = {"tiles": fast.tiles, "tile_pixels": fast.tile_pixels} if fast.tiles else {}
    found = road_of(name, options)
    return serialize_pipeline(
        regions="grid" if name == PREPROCESS_PRECISE else "frame",
        **({} if name == PREPROCESS_PRECISE else tiles),
        global_side=sizes.global_side,
        local_side=sizes.local_side,
        batch=found.batch,
        threads=found.threads,
        device="gpu",
        hints=decoder_hints(found),
    )
