"""Batch runs in process, with the default bundle: rows, resume, proof, bad input."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from giqa import batch
from giqa.batch import Runtime, Scoring, Sources, Summary
from giqa.errors import (
    BundleInvalidError,
    EngineMismatchError,
    GiqaError,
    PlanInvalidError,
    ServerUnavailableError,
    UsageError,
)
from giqa.local import LocalScorer
from giqa.results import ImageResult
from tests.photos import photo


@pytest.fixture(scope="module")
def scorer() -> Iterator[LocalScorer]:
    with LocalScorer() as opened:
        yield opened


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(11):
        Image.fromarray(photo(80, 60 + i, i)).save(folder / f"{i:02d}.jpg")
    (folder / "05.jpg").write_bytes((folder / "05.jpg").read_bytes()[:900])
    return folder


@pytest.fixture(scope="module")
def whole(scorer: LocalScorer, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run over `photos`."""
    out = tmp_path_factory.mktemp("whole")
    batch.run([str(photos)], out, shard_size=4, scorer=scorer)
    return out


def rows(out: Path) -> list[dict]:
    files = sorted((out / "shards").glob("*.parquet"))
    return [row for f in files for row in pq.read_table(f).to_pylist()]


def copy(out: Path, to: Path) -> Path:
    return Path(shutil.copytree(out, to))


def test_rows_are_the_scorers_own(scorer: LocalScorer, photos: Path, whole: Path) -> None:
    paths = sorted(photos.glob("*.jpg"))
    expected = list(scorer.score(paths))
    found = rows(whole)
    assert [r["path"] for r in found] == [str(p) for p in paths]
    assert [r["score"] for r in found] == [r.score for r in expected]
    assert [r["error_code"] for r in found] == [r.error and r.error.code for r in expected]
    assert [r["input"] for r in found] == list(range(11))
    assert {r["frame"] for r in found} == {None}
    assert sum(r["status"] == "error" for r in found) == 1
    assert len(list((whole / "shards").iterdir())) == 3
    verdict = batch.verify(whole)
    assert (verdict.inputs, verdict.rows, verdict.problems) == (11, 11, ())
    assert verdict.errors == {"truncated": 1}
    one = pq.read_table(whole / "shards")  # as others read it: a folder of Parquet
    assert one.num_rows == 11
    assert one.schema.equals(batch.row_schema())


def test_resume_scores_what_is_missing(scorer: LocalScorer, whole: Path, tmp_path: Path) -> None:
    out = copy(whole, tmp_path / "out")
    first, second, third = sorted((out / "shards").iterdir())
    kept = first.read_bytes(), third.stat().st_mtime_ns
    second.unlink()
    (out / "shards" / f".{second.name}.gone.1.tmp").write_bytes(b"half")
    seen: list[batch.Progress] = []
    summary = batch.resume(out, scorer=scorer, progress=seen.append)
    assert summary == Summary(str(out), 11, 11, 1, 3, 1)
    first_said, last_said = seen[0], seen[-1]
    assert (first_said.state, first_said.done, first_said.total) == ("running", 0, 11)
    assert (last_said.state, last_said.done, last_said.rows, last_said.failed) == ("done", 11, 4, 1)
    status = json.loads((out / "status.json").read_text())
    assert (status["state"], status["done"], status["total"]) == ("done", 11, 11)
    assert (first.read_bytes(), third.stat().st_mtime_ns) == kept
    assert rows(out) == rows(whole)
    assert sorted((out / "shards").iterdir()) == [first, second, third]
    assert batch.resume(out, scorer=scorer).written == 0


class Interrupted:
    """A scorer whose server goes away, or whose user does, after some images."""

    def __init__(self, scorer: LocalScorer, after: int, end: BaseException) -> None:
        self._scorer, self._after, self._end = scorer, after, end

    def __getattr__(self, name: str) -> object:
        return getattr(self._scorer, name)

    def score(self, items, **options) -> Iterator[ImageResult]:
        for i, result in enumerate(self._scorer.score(items, **options)):
            if i == self._after:
                if not isinstance(self._end, GiqaError):
                    raise self._end
                result = ImageResult(
                    result.path, result.bundle, result.engine, result.profile, error=self._end
                )
            yield result


@pytest.mark.parametrize("end", [ServerUnavailableError("gone"), KeyboardInterrupt()])
def test_whole_shards_stay_after_any_end(
    scorer: LocalScorer, photos: Path, whole: Path, tmp_path: Path, end: BaseException
) -> None:
    with pytest.raises(type(end)):
        batch.run([str(photos)], tmp_path, shard_size=4, scorer=Interrupted(scorer, 9, end))
    names = [p.name for p in sorted((whole / "shards").iterdir())]
    assert [p.name for p in sorted((tmp_path / "shards").iterdir())] == names[:2]
    assert len(batch.verify(tmp_path).problems) == 1
    assert batch.resume(tmp_path, scorer=scorer).written == 1
    assert rows(tmp_path) == rows(whole)
    assert batch.verify(tmp_path).problems == ()


def test_every_kind_of_input_in_one_run(scorer: LocalScorer, photos: Path, tmp_path: Path) -> None:
    a, b = photos / "00.jpg", photos / "01.jpg"
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(a, "in/a.jpg")
        tar.addfile(tarfile.TarInfo("a.json"), io.BytesIO())
        tar.add(b, "b.jpg")
    with tarfile.open(tmp_path / "s.tar") as tar:
        inside_b = tar.getmember("b.jpg").offset_data + 100
    (tmp_path / "cut.tar").write_bytes((tmp_path / "s.tar").read_bytes()[:inside_b])
    pq.write_table(pa.table({"uri": [a.as_uri(), str(b)]}), tmp_path / "t.parquet")
    secret = tmp_path / "secret.jpg"
    secret.symlink_to("/proc/1/mem")  # what even root may not read
    (tmp_path / "d.jpg").mkdir()
    listed = [b, b, tmp_path / "no.jpg", secret, tmp_path / "d.jpg", "odd://x/a.jpg"]
    (tmp_path / "l.txt").write_text("".join(f"{name}\n" for name in listed))
    sources = Sources(
        inputs=("s.tar", "cut.tar", "t.parquet", "l.txt", "no*.jpg"), folder=str(tmp_path)
    )
    out = tmp_path / "out"
    summary = batch.run(sources, out, shard_size=3, scorer=scorer)
    score_a, score_b = (r.score for r in scorer.score([a, b]))
    found = rows(out)
    scores = [r["score"] for r in found]
    codes = [r["error_code"] for r in found]
    assert scores[:3] == [score_a, score_b, score_a]
    assert codes[3:5] == ["truncated", "truncated"]
    assert scores[5:9] == [score_a, score_b, score_b, score_b]
    assert codes[9] == "not_found"
    assert codes[10] in ("unreadable", "permission_denied", "empty")
    assert codes[11:] == ["unreadable", "unreadable", "not_found"]
    assert [r["path"] for r in found[:2]] == ["s.tar::in/a.jpg", "s.tar::b.jpg"]
    assert summary.inputs == summary.rows == len(found) == 14
    assert batch.verify(out).problems == ()


def test_names_that_are_not_text(scorer: LocalScorer, photos: Path, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    shutil.copy(photos / "00.jpg", os.fsdecode(raw))
    out = tmp_path / "out"
    assert batch.run([str(tmp_path)], out, scorer=scorer).failed == 0
    assert rows(out)[0]["path"].endswith("caf\\udce9.jpg")
    assert batch.verify(out).problems == ()
    with pytest.raises(UsageError, match="not valid text"):
        batch.run([os.fsdecode(raw)], tmp_path / "other", scorer=scorer)


def test_limits_and_profile_hold(scorer: LocalScorer, photos: Path, tmp_path: Path) -> None:
    scoring = Scoring(profile="precise", max_bytes=60_000)
    name = tmp_path / "large.png"
    Image.fromarray(photo(200, 200)).save(name)
    batch.run([str(name)], tmp_path, scoring=scoring, runtime=Runtime(threads=1))
    (row,) = rows(tmp_path)
    assert (row["error_code"], row["profile"]) == ("too_many_bytes", "precise")


def test_a_list_of_nothing_is_a_run_of_one_row(scorer: LocalScorer, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("\n")
    out = tmp_path / "out"
    summary = batch.run([str(tmp_path / "l.txt")], out, scorer=scorer)
    assert (summary.rows, summary.failed) == (1, 1)
    assert [row["error_code"] for row in rows(out)] == ["not_found"]
    assert batch.verify(out).problems == ()


def test_a_folder_takes_one_run(scorer: LocalScorer, photos: Path, whole: Path) -> None:
    with pytest.raises(UsageError, match="batch resume"):
        batch.run([str(photos)], whole, scorer=scorer)


def test_a_run_killed_while_planning_is_planned_again(
    scorer: LocalScorer, photos: Path, whole: Path, tmp_path: Path
) -> None:
    (tmp_path / "inputs.parquet").write_bytes(b"of a killed run")
    with pytest.raises(PlanInvalidError):
        batch.resume(tmp_path, scorer=scorer)
    batch.run([str(photos)], tmp_path, shard_size=4, scorer=scorer)
    assert rows(tmp_path) == rows(whole)


def test_a_list_that_is_gone_is_an_error(scorer: LocalScorer, photos: Path, tmp_path: Path) -> None:
    names = tmp_path / "l.txt"
    names.write_text(f"{photos}/00.jpg\n")
    batch.run([str(names)], tmp_path / "out", scorer=scorer)
    names.unlink()
    with pytest.raises(PlanInvalidError, match="listed again"):
        batch.resume(tmp_path / "out", scorer=scorer)


def test_another_bundle_or_engine_is_refused(
    scorer: LocalScorer, whole: Path, tmp_path: Path
) -> None:
    out = copy(whole, tmp_path / "out")
    plan = out / "plan.json"
    text = plan.read_text()
    digest = batch.read_plan(out).bundle_sha256
    plan.write_text(text.replace(digest, "0" * 64))
    with pytest.raises(BundleInvalidError, match="not the bundle"):
        batch.resume(out, scorer=scorer)
    plan.write_text(text.replace(scorer.engine, "openvino-other"))
    with pytest.raises(EngineMismatchError, match="openvino-other"):
        batch.resume(out, scorer=scorer)


def change(shard: Path, **columns: list) -> None:
    """Write a shard anew, with other values in some columns."""
    table = pq.read_table(shard)
    for name, values in columns.items():
        i = table.schema.get_field_index(name)
        table = table.set_column(i, table.schema.field(i), pa.array(values, table.schema[i].type))
    pq.write_table(table, shard)


def tamper(out: Path, how: str) -> None:
    first, second, third = sorted((out / "shards").iterdir())
    table = pq.read_table(first)
    if how == "score":
        change(first, score=[1.0, *table["score"].to_pylist()[1:]])
    elif how == "twice":
        pq.write_table(pa.concat_tables([table, table.slice(3)]), first)
    elif how == "lost":
        pq.write_table(table.slice(1), first)
    elif how == "order":
        pq.write_table(table.take([1, 0, 2, 3]), first)
    elif how == "name":
        change(first, path=["x.jpg", *table["path"].to_pylist()[1:]])
    elif how == "other":
        pq.write_table(pq.read_table(second), first)
    elif how == "schema":
        pq.write_table(table.drop_columns(["notes"]), first)
    elif how == "bytes":
        first.write_bytes(first.read_bytes()[:-40])
    elif how == "extra":
        shutil.copy(first, first.with_name("copy.parquet"))
    else:
        third.unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("score", "not those that were written"),
        ("twice", "2 rows instead of 1"),
        ("lost", "0 rows instead of 1"),
        ("order", "out of order"),
        ("name", "names x.jpg"),
        ("other", "not its own"),
        ("schema", "schema"),
        ("bytes", "cannot be read"),
        ("extra", "belongs to no shard"),
        ("missing", "is missing"),
    ],
)
def test_verify_finds(whole: Path, tmp_path: Path, how: str, said: str) -> None:
    out = copy(whole, tmp_path / "out")
    tamper(out, how)
    assert any(said in problem for problem in batch.verify(out).problems)


def test_several_servers_need_workers(tmp_path: Path) -> None:
    runtime = Runtime(urls=("grpc://a", "grpc://b"))
    with pytest.raises(UsageError, match="executor ray"):
        batch.run(["x"], tmp_path, runtime=runtime)
