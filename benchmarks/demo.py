"""Six photographs and their degraded versions, scored on a server and in process: `make demo`.

The photographs ship inside scikit-image and scikit-learn. Each is scored as it is, blurred, noisy
and heavily compressed; the exit code is 1 if any version scores at or above its original, or if
the server's scores are not those in process. Where DALI cannot be imported here the server has it
nonetheless, and pixels differ a little.
"""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

if TYPE_CHECKING:
    from giqa.results import ImageResult

Photo = npt.NDArray[np.uint8]

_LOCAL = ("localhost", "127.", "::1")


def forbid_network() -> None:
    """Make every connection of this process to another host an error, for good.

    Seen by Python's audit events: connections made by Python code, name look-ups included.
    """

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            address = args[1]
        elif event == "socket.getaddrinfo":
            address = args
        else:
            return
        # Unix sockets have a path for an address; no host, or "", means this one.
        if isinstance(address, tuple) and address[0]:
            host = address[0]
            host = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
            if not host.startswith(_LOCAL):
                raise RuntimeError(f"giqa works offline, but something asked for {host}")

    sys.addaudithook(audit)


def photos() -> dict[str, Photo]:
    """Load the sample photographs.

    Returns:
        Name to (H, W, 3) uint8 sRGB.
    """
    from skimage import data
    from sklearn.datasets import load_sample_image

    pictures: dict[str, Photo] = {
        name: getattr(data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")
    }
    for name in ("china", "flower"):
        pictures[name] = load_sample_image(f"{name}.jpg")
    return pictures


def blurred(picture: Photo, rng: np.random.Generator) -> Photo:
    """As if out of focus: Gaussian, sigma 0.6 % of the long side."""
    radius = 0.006 * max(picture.shape)
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def noisy(picture: Photo, rng: np.random.Generator) -> Photo:
    """As if at far too high an ISO: Gaussian noise, sigma 25 of 255."""
    return np.clip(np.rint(picture + rng.normal(0, 25, picture.shape)), 0, 255).astype(np.uint8)


def compressed(picture: Photo, rng: np.random.Generator) -> Photo:
    """JPEG at quality 8, as if shared once too often."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=8)
    return np.asarray(Image.open(file).convert("RGB"))


VERSIONS: dict[str, Callable[[Photo, np.random.Generator], Photo]] = {
    "original": lambda picture, _: picture,
    "blurred": blurred,
    "noisy": noisy,
    "compressed": compressed,
}


def write(folder: Path, seed: int = 0) -> dict[tuple[str, str], Path]:
    """Write every version of every photograph as a PNG file.

    PNG, so that the versions differ in what is seen, not in how they are stored.

    Args:
        folder: an existing folder.
        seed: seed of the noise.

    Returns:
        (photograph, version) to file, in the table's order.
    """
    rng = np.random.default_rng(seed)
    files = {}
    for name, picture in photos().items():
        for version, degrade in VERSIONS.items():
            path = folder / f"{name}-{version}.png"
            # Fast to write; how small the file is does not matter here.
            Image.fromarray(degrade(picture, rng)).save(path, compress_level=1)
            files[name, version] = path
    return files


@contextmanager
def served() -> Iterator[str]:
    """Run `giqa serve` on a free port of this machine.

    Yields:
        Its address, once it is ready.

    Raises:
        RuntimeError: it did not become ready.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "giqa", "serve", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("ready"):
            raise RuntimeError(f"giqa serve: exit code {process.wait()}")
        print(line, end="")
        yield f"grpc://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def main() -> int:
    """Write the files, score them on a server and in process, print the table.

    Returns:
        0 if every original scores above its versions and both ways agree, else 1.
    """
    forbid_network()
    from giqa import LocalScorer, Scorer, TritonScorer
    from giqa.decode import has_dali
    from giqa.precision import OTHER_PIXELS

    def rate(scorer: Scorer) -> tuple[list[ImageResult], float]:
        start = time.perf_counter()
        return list(scorer.score(files.values())), time.perf_counter() - start

    with tempfile.TemporaryDirectory(prefix="giqa-demo-") as folder:
        files = write(Path(folder))
        with served() as url, TritonScorer(url) as remote:
            results, seconds = rate(remote)
        with LocalScorer() as local:
            bundle, engine = local.manifest.id, local.engine
            here, seconds_here = rate(local)
    scores: dict[tuple[str, str], float] = {}
    for key, result in zip(files, results, strict=True):
        if result.score is None:
            print(f"{'-'.join(key)}: {result.error}", file=sys.stderr)
            return 1
        scores[key] = result.score
    apart = max(abs((a.score or 0) - (b.score or 0)) for a, b in zip(results, here, strict=True))

    names = dict.fromkeys(name for name, _ in files)
    worse = list(VERSIONS)[1:]
    wrong = [(n, v) for n in names for v in worse if scores[n, v] >= scores[n, "original"]]
    print(f"{bundle} on {engine}: 0 (bad) .. 100 (excellent)\n")
    print(f"{'photograph':<12}" + "".join(f"{version:>12}" for version in VERSIONS))
    for name in names:
        cells = (f"{scores[name, v]:.1f}{'!' * ((name, v) in wrong)}" for v in VERSIONS)
        print(f"{name:<12}" + "".join(f"{cell:>12}" for cell in cells))
    for way, taken in (("over gRPC", seconds), ("in process", seconds_here)):
        rate_ = len(files) / taken
        print(f"\n{way:<10} {len(files)} images in {taken:.1f} s, {rate_:.1f} images/s", end="")
    print(f"\nlargest difference between the two: {apart:g}")
    for name, version in wrong:
        print(f"wrong: {name} {version} scores at or above its original", file=sys.stderr)
    return 1 if wrong or apart > (0 if has_dali() else OTHER_PIXELS) else 0


if __name__ == "__main__":
    sys.exit(main())
