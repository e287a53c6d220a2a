"""The peers' processes, with `giqa` itself as the one that is always there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers.process import OURS, Peer
from benchmarks.suites.peers import evenly, read_labels
from giqa.bundle import load_bundle
from giqa.errors import TableInvalidError, UsageError, WorkerFailedError

HERE = Path(sys.prefix)


def test_a_peer_gives_the_known_answer_and_tells_what_it_took() -> None:
    bundle = load_bundle()
    known = bundle.manifest.self_test
    with Peer(OURS, threads=1) as peer:
        stream = peer([bundle.self_test_image] * 3)
        single = peer([bundle.self_test_image] * 2, single=True)
        with pytest.raises(WorkerFailedError, match="FileNotFoundError"):
            peer([Path("nowhere.jpg")])
    for score in stream.scores + single.scores:
        assert score == pytest.approx(known.score, abs=max(known.tolerance.values()))
    assert (stream.run.images, len(stream.scores), stream.run.latencies) == (3, 3, ())
    assert len(single.run.latencies) == len(single.scores) == 2
    assert 0 < sum(single.run.latencies) <= single.run.seconds
    assert stream.run.cpu_seconds > 0
    assert single.peak_mb >= stream.peak_mb > 50


def test_a_peer_that_is_not_installed_says_so() -> None:
    with pytest.raises(WorkerFailedError, match="No module named") as failed:
        Peer("brisque", threads=1, environment=HERE)
    assert failed.value.item == "brisque"


def test_no_environment(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make peers"):
        Peer("musiq", threads=1, environment=tmp_path)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_evenly_takes_so_many_from_all_over(sizes: tuple[int, int]) -> None:
    n, count = sizes
    found = evenly(range(n), count)
    assert len(set(found)) == count
    assert found == sorted(found)
    # As far from one end as from the other: the mean stays where it was.
    assert sum(found) / count == pytest.approx((n - 1) / 2, abs=0.51)


def test_labels(tmp_path: Path) -> None:
    table = tmp_path / "mos.csv"
    table.write_text("path,mos\na/b.jpg,0.5\nc.jpg,1\n")
    assert read_labels(table) == (
        [tmp_path / "a/b.jpg", tmp_path / "c.jpg"],
        [0.5, 1.0],
        "not named",
    )
    table.write_text("image,mos\nb.jpg,3\n")
    assert read_labels(table) == ([tmp_path / "images/b.jpg"], [3.0], "not named")
    table.write_text("path,mos,split\na.jpg,1,validation\nb.jpg,2,test\n")
    assert read_labels(table) == ([tmp_path / "b.jpg"], [2.0], "test")
    table.write_text("path,mos,split\na.jpg,1,train\n")
    with pytest.raises(TableInvalidError, match="no rows"):
        read_labels(table)
    table.write_text("name,mos\nb.jpg,3\n")
    with pytest.raises(TableInvalidError, match="no column 'path'"):
        read_labels(table)
    table.write_text("path,mos\n")
    with pytest.raises(TableInvalidError, match="no rows"):
        read_labels(table)
