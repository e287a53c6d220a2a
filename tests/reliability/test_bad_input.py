"""Every file gets a score or a coded error, and no other file's score moves by a bit."""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from giqa import LocalScorer
from giqa.bundle import load_bundle
from giqa.decode import Decoder, probe
from giqa.results import ImageResult
from giqa.types import Item, Limits
from tests.makers import BAD, GOOD, gif_frames, image, jpeg, oriented, png, save, with_profile

AT = 7
"""Where among the good images the odd one goes: inside the first batch."""

MADE = GOOD | {name: make for name, (make, _) in BAD.items()}
"""Every odd file, good and bad."""


@pytest.fixture(scope="module")
def scorer() -> Iterator[LocalScorer]:
    with LocalScorer() as made:
        yield made


@pytest.fixture(scope="module")
def neighbours() -> list[bytes]:
    return [jpeg(200 + 16 * i, 300 - 8 * i, seed=i) for i in range(20)]


@pytest.fixture(scope="module")
def expected(scorer: LocalScorer, neighbours: list[bytes]) -> list[float | None]:
    found = [r.score for r in scorer.score(neighbours)]
    assert None not in found
    assert len(set(found)) == len(found)
    return found


def among(
    scorer: LocalScorer,
    neighbours: list[bytes],
    expected: list[float | None],
    odd: bytes | Path,
) -> ImageResult:
    """Score something odd among the neighbours; assert that they did not notice."""
    mixed: list[bytes | Path] = [*neighbours[:AT], odd, *neighbours[AT:]]
    results = list(scorer.score(mixed))
    assert len(results) == len(mixed)
    result = results.pop(AT)
    assert [r.score for r in results] == expected
    return result


@pytest.fixture(scope="module")
def odd(
    scorer: LocalScorer, neighbours: list[bytes], expected: list[float | None]
) -> dict[str, ImageResult]:
    """Every odd file's result, each between two good images that did not notice.

    One pass over all of them, in an order that puts good and bad ones into each batch.
    """
    names = sorted(MADE, key=lambda name: sha256(name.encode()).digest())
    pairs = [(MADE[name](), neighbours[i % len(neighbours)]) for i, name in enumerate(names)]
    results = list(scorer.score(data for pair in pairs for data in pair))
    assert [r.score for r in results[1::2]] == [
        expected[i % len(expected)] for i in range(len(names))
    ]
    return dict(zip(names, results[::2], strict=True))


@pytest.mark.parametrize("name", GOOD)
def test_odd_but_good_files_are_scored(odd: dict[str, ImageResult], name: str) -> None:
    data = GOOD[name]()
    result = odd[name]
    assert result.error is None, result.error
    assert result.score is not None
    assert 0 <= result.score <= 100
    assert (result.width, result.height) == probe(data).upright_size


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_their_code(odd: dict[str, ImageResult], name: str) -> None:
    _, code = BAD[name]
    result = odd[name]
    assert result.score is None
    assert result.error is not None
    assert result.error.code == code
    assert result.error.message
    assert result.error.item == "<bytes>"


def test_what_is_no_file(
    scorer: LocalScorer, neighbours: list[bytes], expected: list[float | None], tmp_path: Path
) -> None:
    (tmp_path / "directory.jpg").mkdir()
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "socket.jpg"))
        codes = {
            "missing.jpg": "not_found",
            "dangling.jpg": "not_found",
            "directory.jpg": "unreadable",
            "fifo.jpg": "unreadable",
            "loop.jpg": "unreadable",
            "socket.jpg": "unreadable",
            "fifo.jpg/below": "not_found",
            "nul\0byte.jpg": "unreadable",
        }
        pairs = zip((tmp_path / name for name in codes), neighbours, strict=False)
        results = list(scorer.score(x for pair in pairs for x in pair))
    assert [r.score for r in results[1::2]] == expected[: len(codes)]
    found = {n: r.error and r.error.code for n, r in zip(codes, results[::2], strict=True)}
    assert found == codes


def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(jpeg())
    path.chmod(0)
    command = [sys.executable, "-m", "giqa", "score", str(path)]
    if os.geteuid() == 0:  # root reads everything, unless that power is taken away
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("root without setpriv cannot be refused")
        drop = "-dac_override,-dac_read_search"
        command = [setpriv, f"--bounding-set={drop}", f"--inh-caps={drop}", *command]
    ran = subprocess.run(command, capture_output=True, timeout=120)
    assert ran.returncode == 3, ran.stderr
    assert ran.stdout.rstrip().endswith(b"permission_denied")


def test_a_picture_of_108_megapixels(
    scorer: LocalScorer, neighbours: list[bytes], expected: list[float | None]
) -> None:
    big = save(image(1200, 900).resize((12000, 9000)), "JPEG", quality=50)
    result = among(scorer, neighbours, expected, big)
    assert result.error is None
    assert (result.width, result.height) == (12000, 9000)


def test_a_gif_of_10000_frames(
    scorer: LocalScorer, neighbours: list[bytes], expected: list[float | None]
) -> None:
    start = time.perf_counter()
    result = among(scorer, neighbours, expected, gif_frames(10_000))
    assert result.error is None
    assert "first_frame" in result.notes
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize(("kind", "bound"), [("PNG", 0), ("TIFF", 0), ("WEBP", 0), ("JPEG", 1)])
def test_orientations_score_alike(scorer: LocalScorer, kind: str, bound: float) -> None:
    """Equal where the file is lossless; the JPEG's blocks lie differently in each."""
    results = list(scorer.score([oriented(o, kind) for o in range(1, 9)]))
    scores = [r.score for r in results]
    assert all(s is not None for s in scores)
    assert max(scores) - min(scores) <= bound  # type: ignore[operator, type-var]
    assert {(r.width, r.height) for r in results} == {(448, 336)}


@pytest.mark.parametrize("space", ["p3", "adobe", "srgb"])
def test_colour_profiles_score_like_srgb(scorer: LocalScorer, space: str) -> None:
    plain, managed = scorer.score([png(), with_profile(space)])
    assert plain.score is not None
    assert managed.score is not None
    assert abs(plain.score - managed.score) < 1
    assert ("icc_converted" in managed.notes) == (space != "srgb")


def test_the_same_file_twice(scorer: LocalScorer, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg())
    first, second = scorer.score([path, path])
    assert first == second


def test_notes_say_what_was_done(scorer: LocalScorer) -> None:
    for name, note in {
        "pages.tif": "first_frame",
        "animated.gif": "first_frame",
        "rgba.png": "alpha_flattened",
        "palette-transparent.png": "alpha_flattened",
        "p3.jpg": "icc_converted",
        "thin.png": "extreme_aspect",
    }.items():
        (result,) = scorer.score([GOOD[name]()])
        assert note in result.notes, name


def test_limits_hold(neighbours: list[bytes]) -> None:
    limits = Limits(max_bytes=40_000, max_pixels=80_000, max_frames=2)
    with LocalScorer(limits=limits, self_test=False) as small:
        for data, code in (
            (png(400, 100), "too_many_bytes"),
            (jpeg(300, 300), "too_many_pixels"),
            (gif_frames(3), "too_many_frames"),
        ):
            (result,) = small.score([data])
            assert result.error is not None
            assert result.error.code == code
        (result,) = small.score([jpeg(200, 200)])
        assert result.status == "ok"


def test_damaged_jpeg2000_crashes_nothing() -> None:
    """Found by fuzzing: DALI's decoder takes the process with it."""
    whole = GOOD["lossless.jp2"]()
    rng = np.random.default_rng(0)
    items = []
    for _ in range(400):
        data = bytearray(whole)
        for at in rng.integers(60, 700, rng.integers(1, 6)):
            data[at] = rng.integers(256)
        items.append(Item.of(bytes(data)))
    for one in Decoder(load_bundle().manifest)(items, "fast"):
        assert (one.views is None) != (one.error is None)


def test_isolation_costs_a_bounded_time(neighbours: list[bytes]) -> None:
    """A batch with bad items takes at most a few times as long to decode as one without."""
    decoder = Decoder(load_bundle().manifest, batch=8)
    good = [Item.of(data) for data in neighbours[:8]]
    # It passes the probe and fails in DALI, so that the whole batch is decoded again.
    bad = Item.of(BAD["no-data.png"][0]())

    def seconds(items: list[Item]) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            decoder(items, "fast")
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    clean = seconds(good)
    assert seconds([*good[:3], bad, *good[4:]]) < 4 * clean + 0.1
    assert seconds([bad] * 4 + good[4:]) < 5 * clean + 0.2
