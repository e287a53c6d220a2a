"""`giqa.score` and scorers: whatever holds a picture, wherever Python runs."""

import asyncio
import io
import multiprocessing
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, JpegImagePlugin

import giqa
from giqa import ImageResult, LocalScorer, UsageError, score
from giqa.contract import PROFILES
from giqa.types import Limits
from tests.photos import photo

PIXELS = photo(300, 200)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("front") / "a.jpg"
    path.write_bytes(jpeg())
    return path


@pytest.fixture(scope="module")
def scorer() -> Iterator[LocalScorer]:
    with LocalScorer(precision="f32") as made:
        yield made


def test_types_times_entry_points(path: Path, scorer: LocalScorer) -> None:
    """Each alone and all together, at the function and at the scorer: the same score."""
    data = path.read_bytes()
    decoded = np.asarray(Image.open(path))
    sources: list[Any] = [
        str(path), path, data, bytearray(data), memoryview(data), io.BytesIO(data),
        Image.open(path), decoded, decoded / 255, torch.from_numpy(decoded.copy()),
    ]  # fmt: skip
    together = [r.score for r in scorer.score(sources)]
    sources[5].seek(0)
    (expected,) = {together[0]}
    # A JPEG is decoded by DALI and by Pillow to the same pixels but for rounding.
    assert together == pytest.approx([expected] * len(sources), abs=0.2)
    assert len({*together[7:]}) == 1
    for source in sources:
        one = score(source, scorer)
        assert isinstance(one, ImageResult)
        assert one.score == pytest.approx(expected, abs=0.2)
        if isinstance(source, io.BytesIO):
            source.seek(0)
        assert [r.score for r in scorer.score(source)] == [one.score]
    assert [r.score for r in score(iter(sources[6:]), scorer)] == together[6:]


def test_a_string_is_a_path_and_not_letters(path: Path, scorer: LocalScorer) -> None:
    assert [r.path for r in scorer.score(str(path))] == [str(path)]


@pytest.mark.parametrize("profile", PROFILES)
def test_arrays_have_maps_sizes_and_profiles(scorer: LocalScorer, profile: Any) -> None:
    result = score(PIXELS, scorer, profile=profile, quality_map=True)
    assert (result.width, result.height, result.path) == (300, 200, "<array>")
    assert result.quality_map is not None


def test_any_element_is_a_row_and_neighbours_are_unharmed(path: Path, scorer: LocalScorer) -> None:
    alone = score(path, scorer).score
    odd: list[Any] = [None, 3, np.zeros((2, 2, 2)), object(), io.StringIO("x"), [path], "no.jpg"]
    mixed = [x for bad in odd for x in (path, bad)] + [path]
    results = list(scorer.score(mixed))
    assert [r.status for r in results] == ["ok", "error"] * len(odd) + ["ok"]
    assert {r.score for r in results if r.score is not None} == {alone}
    codes = [r.error.code for r in results if r.error]
    assert codes == [
        *("unsupported_format", "unsupported_format", "shape_mismatch", "unsupported_format"),
        *("unreadable", "unsupported_format", "not_found"),
    ]
    assert all(r.error.remedy for r in results if r.error)


class Slow(io.RawIOBase):
    """A pipe: what it gives is less than what it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def read(self, size: int = -1) -> bytes:
        given, self._rest = self._rest[: min(99, size)], self._rest[min(99, size) :]
        return given


def test_files_that_give_little_and_files_at_their_end(path: Path, scorer: LocalScorer) -> None:
    data = path.read_bytes()
    written = io.BytesIO()
    written.write(data)
    little, at_end, whole = scorer.score([Slow(data), written, data])
    assert little.score == whole.score
    assert at_end.error is not None
    assert (at_end.error.code, at_end.error.remedy) == ("empty", "after writing: file.seek(0)")


def test_a_limit_takes_no_memory(path: Path) -> None:
    limits = Limits(max_bytes=2**62)
    with LocalScorer(precision="f32", limits=limits) as scorer, path.open("rb") as file:
        assert {r.status for r in scorer.score([path, file, path.read_bytes()])} == {"ok"}


@pytest.mark.parametrize("wrong", ["x", 5, LocalScorer, object()])
def test_what_is_no_scorer_is_told(path: Path, wrong: Any) -> None:
    with pytest.raises(UsageError, match="is no scorer"):
        score(path, wrong)


def test_maps_are_asked_for_by_yes_or_no(path: Path, scorer: LocalScorer) -> None:
    with pytest.raises(UsageError, match="quality_map"):
        score(path, scorer, quality_map="yes")  # type: ignore[call-overload]


def test_memory_that_is_not_there_costs_its_own_row(
    path: Path, scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from giqa.decode import _decoder

    usual = _decoder.inputs.read

    def read(item: Any, limits: Any) -> Any:
        if item.name == "big":
            raise MemoryError
        return usual(item, limits)

    monkeypatch.setattr(_decoder.inputs, "read", read)
    results = list(scorer.score([path, giqa.Item("big", path), path]))
    assert [r.error and r.error.code for r in results] == [None, "out_of_memory", None]


def test_the_default_scorer_is_opened_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from giqa import front, local

    opened = []
    usual = local.LocalScorer.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        opened.append(threading.get_ident())
        usual(self, *args, **options)

    monkeypatch.setattr(front, "_default", None)
    monkeypatch.setattr(local.LocalScorer, "__init__", init)
    with ThreadPoolExecutor(4) as pool:
        found = {r.score for r in pool.map(score, [path] * 12)}
    assert (len(found), len(opened)) == (1, 1)
    assert {r.score for r in score([path] * 3)} == found


def test_asyncio(path: Path, scorer: LocalScorer) -> None:
    async def many() -> list[ImageResult]:
        return await asyncio.gather(*(asyncio.to_thread(score, path, scorer) for _ in range(4)))

    assert len({r.score for r in asyncio.run(many())}) == 1


class Pictures(torch.utils.data.Dataset[float]):
    """What users of PyTorch write: a dataset that holds a scorer."""

    def __init__(self, path: Path, scorer: LocalScorer) -> None:
        self.path, self.scorer = path, scorer

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> float:
        found = score(self.path, self.scorer).score
        assert found is not None
        return found


def _scores(scorer: LocalScorer, path: Path) -> list[float | None]:
    return [r.score for r in scorer.score([path] * 3)]


def _in_process(method: str, scorer: LocalScorer, path: Path) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        return pool.submit(_scores, scorer, path).result()


def _in_pool(method: str, scorer: LocalScorer, path: Path) -> Any:
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.apply(_scores, (scorer, path))


def _in_loader(method: str, scorer: LocalScorer, path: Path) -> Any:
    loader = torch.utils.data.DataLoader(
        Pictures(path, scorer),
        batch_size=None,
        num_workers=1,
        timeout=240,
        multiprocessing_context=method,
    )
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return list(loader)[:3]
    finally:  # PyTorch leaves one of its own
        signal.signal(signal.SIGCHLD, before)


WORKERS = [_in_process, _in_pool, _in_loader]


@pytest.mark.parametrize("work", WORKERS)
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_forked_workers_say_what_to_do(work: Any, path: Path, scorer: LocalScorer) -> None:
    """With the parent's scorer, and with another one that is opened where it arrives pickled."""
    expected = _scores(scorer, path)
    with pytest.raises(UsageError, match=r"before this process was forked.*`spawn`"):
        work("fork", scorer, path)
    assert _scores(scorer, path) == expected


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("work", WORKERS)
def test_spawned_workers_score(work: Any, method: str, path: Path, scorer: LocalScorer) -> None:
    expected = _scores(scorer, path)
    assert work(method, scorer, path) == expected


def test_pickling(path: Path, scorer: LocalScorer) -> None:
    result = score(path, scorer)
    assert pickle.loads(pickle.dumps(result)) == result
    bad = score("none.jpg", scorer)
    assert pickle.loads(pickle.dumps(bad)).error.code == "not_found"


def test_an_unpickled_scorer_opens_when_it_is_used(path: Path) -> None:
    """An error while a worker unpickles its task would end the pool, or hang it."""
    with LocalScorer(precision="f32", threads=1, batch=3) as made:
        pickled, expected = pickle.dumps(made), score(path, made).score
    twice = pickle.dumps(pickle.loads(pickled))  # not opened in between
    with pickle.loads(twice) as again:
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda one: score(one, again).score, [path] * 3))
        assert found == [expected] * 3
        assert (again.engine, again.manifest) == (made.engine, made.manifest)
    unused = pickle.loads(pickled)
    unused.close()
    with pytest.raises(UsageError, match="is closed"):
        unused.score([path])


def test_a_closed_scorer_says_so(path: Path) -> None:
    closed = LocalScorer(self_test=False)
    waiting = closed.score([path])
    closed.close()
    closed.close()
    for use in (lambda: closed.score([path]), lambda: list(waiting), closed.self_test):
        with pytest.raises(UsageError, match="is closed"):
            use()


def test_nothing_of_the_process_is_changed(
    scorer: LocalScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While pictures are scored, other threads see their own filters and Pillow's limit."""
    data = bytearray(jpeg())
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0" * 5
    data[2:2] = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    limit = Image.MAX_IMAGE_PIXELS
    seen: list[Any] = []
    usual = JpegImagePlugin.JpegImageFile._open

    def opens(self: Any) -> None:
        seen.append((list(warnings.filters) == filters, Image.MAX_IMAGE_PIXELS))
        usual(self)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "_open", opens)
    scores: set[float | None] = set()
    for heard in ("default", "error"):
        with warnings.catch_warnings(record=True):
            warnings.simplefilter(heard)  # type: ignore[arg-type]
            filters = list(warnings.filters)
            results = list(scorer.score([bytes(data), jpeg()]))
        assert [r.status for r in results] == ["ok", "ok"]
        scores.add(results[0].score)
        if heard == "default":
            assert set(seen) == {(True, limit)}
    assert {pixels for _, pixels in seen} == {limit}
    assert len(scores) == 1


def test_two_self_tests_leave_the_limits(path: Path) -> None:
    with LocalScorer(limits=Limits(max_pixels=100), self_test=False) as tight:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: tight.self_test(), range(4)))
        error = score(path, tight).error
        assert error is not None
        assert error.code == "too_many_pixels"


def test_no_torch_is_imported(path: Path) -> None:
    code = (
        "import sys, numpy as np, giqa\n"
        "assert giqa.score(np.zeros((30, 30, 3), np.uint8)).score is not None\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=240)


def test_results_become_tables_and_show_themselves(path: Path, scorer: LocalScorer) -> None:
    results = list(score([path, "no <b>.jpg"], scorer))
    table = giqa.to_arrow(results)
    assert table["path"].to_pylist() == [str(path), "no <b>.jpg"]
    assert table["error_code"].to_pylist() == [None, "not_found"]
    frame = giqa.to_pandas(iter(results))
    assert frame["score"][0] == pytest.approx(results[0].score)
    assert len(giqa.to_pandas(results[0])) == 1
    assert giqa.to_arrow([]).num_rows == 0
    shown = [r._repr_html_() for r in results]
    assert f"{results[0].score:.1f}" in shown[0]
    assert "not_found" in shown[1]
    assert "no &lt;b&gt;.jpg" in shown[1]
