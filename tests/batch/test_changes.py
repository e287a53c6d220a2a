"""Inputs that change, come and go between runs."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from giqa import batch
from giqa.batch import Changes, Scoring, Sources
from giqa.batch._folder import Folder
from giqa.errors import PlanInvalidError
from tests.batch.test_tables import GREYS, png, rows
from tests.batch.test_tars import add
from tests.brightness import Brightness
from tests.clips import pan, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "in"
    place.mkdir()
    for i, grey in enumerate(GREYS):
        (place / f"{i}.png").write_bytes(png(grey))
    write(place / "v.mp4", pan(40))
    with tarfile.open(place / "s.tar", "w") as tar:
        add(tar, "a.png", png(1))
        add(tar, "b.png", png(2))
    return place


def plan(folder: Path, out: Path, scorer: Brightness, **sources: object) -> batch.Summary:
    return batch.run(
        Sources(inputs=(str(folder),), **sources),
        out,
        scoring=Scoring(chunk_s=0.5),
        shard_size=2,
        scorer=scorer,
    )


def table(out: Path) -> dict[tuple[str, int | None], float | None]:
    return {(Path(r["path"]).name, r["frame"]): r["score"] for r in rows(out)}


def touch(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))


@pytest.mark.parametrize("check", ["stat", "hash"])
def test_what_changed_is_scored_again(
    folder: Path, tmp_path: Path, brightness: Brightness, check: str
) -> None:
    out = tmp_path / "out"
    plan(folder, out, brightness, check=check)
    before = table(out)
    touch(folder / "1.png", png(250))
    write(folder / "v.mp4", pan(20))
    (verdict,) = {p.split(":")[1] for p in batch.verify(out).problems}
    assert "changed since" in verdict
    brightness.seen.clear()
    found = batch.resume(out, scorer=brightness)
    assert found.changes == Changes(changed=2)
    assert brightness.seen == [str(folder / "1.png")]  # its neighbours' rows are taken over
    after = table(out)
    assert after["1.png", None] == pytest.approx(250 / 2.55)
    assert [f for n, f in after if n == "v.mp4"] == list(range(20))
    same = [key for key in before if key[0] not in ("1.png", "v.mp4")]
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert batch.verify(out).problems == ()
    fresh = tmp_path / "fresh"
    plan(folder, fresh, brightness)
    drop = ("bundle",)
    assert [{k: v for k, v in r.items() if k not in drop} for r in rows(out)] == [
        {k: v for k, v in r.items() if k not in drop} for r in rows(fresh)
    ]
    assert batch.resume(out, scorer=brightness).written == 0


def test_a_copy_with_another_time_is_no_change_by_its_hash(
    folder: Path, tmp_path: Path, brightness: Brightness
) -> None:
    plan(folder, tmp_path / "out", brightness, check="hash")
    os.utime(folder / "1.png", ns=(1, 1))
    found = batch.resume(tmp_path / "out", scorer=brightness)
    assert (found.changes, found.written) == (Changes(), 0)


def test_what_is_new_is_appended_and_what_is_gone_is_marked(
    folder: Path, tmp_path: Path, brightness: Brightness
) -> None:
    out = tmp_path / "out"
    first = plan(folder, out, brightness)
    kept = {p.name: p.stat().st_mtime_ns for p in (out / "shards").iterdir()}
    before = table(out)
    (folder / "00.png").write_bytes(png(5))
    (folder / "z.png").write_bytes(png(7))
    write(folder / "w.mp4", pan(15))
    (folder / "3.png").unlink()
    found = batch.resume(out, scorer=brightness)
    assert found.changes == Changes(new=3, gone=1)
    assert (found.inputs, found.written) == (first.inputs, 0)
    found = batch.update(out, scorer=brightness)
    assert found.changes == Changes(new=3, gone=1)
    assert found.inputs == first.inputs + 3
    now = {p.name: p.stat().st_mtime_ns for p in (out / "shards").iterdir()}
    assert now.items() >= kept.items()
    after = table(out)
    assert after.items() >= before.items()  # a row of what is gone stays
    assert after["z.png", None] == pytest.approx(7 / 2.55)
    assert len([1 for name, _ in after if name == "w.mp4"]) == 15
    assert found.videos == 2
    verdict = batch.verify(out)
    assert (verdict.problems, verdict.gone) == ((), 1)
    marked = {u.name for _, u in Folder(out).units() if u.gone}
    assert marked == {str(folder / "3.png")}
    again = batch.update(out, scorer=brightness)
    assert (again.changes, again.written) == (Changes(), 0)
    (folder / "3.png").write_bytes(png(99))
    assert batch.update(out, scorer=brightness).changes == Changes(changed=1)
    assert batch.verify(out).gone == 0
    assert table(out)["3.png", None] == pytest.approx(99 / 2.55)


def test_what_comes_through_a_pipe_is_looked_at_too(
    folder: Path, tmp_path: Path, brightness: Brightness
) -> None:
    import io

    names = "".join(f"{folder}/{name}\n" for name in ("0.png", "1.png", "0.png", "v.mp4"))
    out = tmp_path / "out"
    batch.run(["-"], out, stdin=io.BytesIO(names.encode()), scorer=brightness)
    assert batch.resume(out, scorer=brightness).written == 0
    touch(folder / "0.png", png(77))
    (folder / "1.png").unlink()
    assert batch.resume(out, scorer=brightness).changes == Changes(changed=2, gone=1)
    assert table(out)["0.png", None] == pytest.approx(77 / 2.55)
    assert table(out)["1.png", None] == pytest.approx(GREYS[1] / 2.55)
    assert batch.verify(out).problems == ()


def test_a_tar_that_changed_is_listed_again(
    folder: Path, tmp_path: Path, brightness: Brightness
) -> None:
    out = tmp_path / "out"
    plan(folder, out, brightness)
    with tarfile.open(folder / "s.tar", "w") as tar:
        add(tar, "a.png", png(100))
        add(tar, "b.png", png(2))
        add(tar, "c.png", png(3))
    found = batch.update(out, scorer=brightness)
    assert found.changes == Changes(changed=2, new=1)
    assert table(out)["s.tar::a.png", None] == pytest.approx(100 / 2.55)
    assert table(out)["s.tar::c.png", None] == pytest.approx(3 / 2.55)
    assert batch.verify(out).problems == ()


@pytest.mark.parametrize("moment", ["before the plan", "after the plan"])
def test_a_kill_in_an_update_loses_nothing(
    folder: Path,
    tmp_path: Path,
    brightness: Brightness,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    plan(folder, out, brightness)
    (folder / "z.png").write_bytes(png(7))
    write_plan = Folder.write_plan

    def killed(self: Folder, plan: batch.Plan) -> None:
        if moment == "after the plan":
            with monkeypatch.context() as patch:
                patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
                patch.setattr("giqa.batch._folder.write", lambda p, data: p.write_bytes(data))
                write_plan(self, plan)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write_plan", killed)
        with pytest.raises(KeyboardInterrupt):
            batch.update(out, scorer=brightness)
    batch.update(out, scorer=brightness)
    assert table(out)["z.png", None] == pytest.approx(7 / 2.55)
    assert batch.verify(out).problems == ()


def test_a_plan_of_another_run_is_refused(
    folder: Path, tmp_path: Path, brightness: Brightness
) -> None:
    plan(folder, tmp_path / "a", brightness)
    (folder / "z.png").write_bytes(png(7))
    plan(folder, tmp_path / "b", brightness)
    shutil.copy(tmp_path / "b" / "plan.json", tmp_path / "a" / "plan.json")
    with pytest.raises(PlanInvalidError, match="altered"):
        batch.resume(tmp_path / "a", scorer=brightness)


@pytest.mark.usefixtures("small_default")
def test_changes_are_said(folder: Path, tmp_path: Path) -> None:
    from giqa.cli import group

    out = str(tmp_path / "out")
    said = CliRunner().invoke(group, ["batch", "run", str(folder / "*.png"), "--out", out])
    assert said.exit_code == 0, said.output
    touch(folder / "1.png", png(250))
    (folder / "y.png").write_bytes(png(1))
    (folder / "0.png").unlink()
    said = CliRunner().invoke(group, ["batch", "resume", out])
    assert "1 inputs changed: scored again" in said.stderr
    assert "1 inputs are new: `giqa batch update` takes them in" in said.stderr
    assert "1 inputs are gone: their rows stay" in said.stderr
    said = CliRunner().invoke(group, ["batch", "update", out])
    assert "1 inputs are new: appended" in said.stderr
    assert pq.read_table(tmp_path / "out" / "shards").num_rows == 6
