"""What a batch run's inputs are: lists, tables, tar shards, URIs; and the table that keeps them."""

import io
import os
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from giqa.batch import Plan, Runtime, Scoring, Sources, _units
from giqa.batch._folder import Folder, number_shards
from giqa.batch._read import read_items
from giqa.batch._rows import encode
from giqa.batch._sources import Listing
from giqa.batch._units import Unit
from giqa.errors import CorruptError, FolderInUseError, GiqaError, PlanInvalidError, UsageError
from giqa.types import Limits
from giqa.uris import local_path


def units(folder: Path, *inputs: str | Path, stdin: bytes | None = None, **options) -> list[Unit]:
    sources = Sources(inputs=tuple(map(str, inputs)), folder=str(folder), **options)
    return list(Listing(sources, None if stdin is None else io.BytesIO(stdin)))


def make_tar(path: Path, members: dict[str, bytes], **options) -> Path:
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def make_plan(folder: Folder, found: list[Unit], shard_size: int) -> Plan:
    written = folder.write_inputs(number_shards(found, shard_size))
    plan = Plan(
        sources=Sources(inputs=("x",)),
        scoring=Scoring(),
        runtime=Runtime(),
        bundle="b@1.0.0",
        bundle_sha256="0",
        scored_by="openvino-f32",
        shard_size=shard_size,
        shards=written.shards,
        inputs=written.units,
        units=written.units,
        weight=written.weight,
        listing_sha256="0",
        inputs_sha256=written.sha256,
    )
    folder.write_plan(plan)
    return plan


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("p/b.jpg", "p/a.PNG", "p/clip.mp4", "p/notes.txt", "p/sub/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_names_stay_as_they_were_given(tree: Path) -> None:
    assert [u.name for u in units(tree, "p")] == ["p/a.PNG", "p/b.jpg", "p/clip.mp4"]
    assert [u.kind for u in units(tree, "p")] == ["image", "image", "video"]
    assert [u.name for u in units(tree, "./p/", recursive=True)][-1] == "./p/sub/c.webp"
    assert [u.name for u in units(tree, "p/*.jpg", tree / "p" / "b.jpg")] == [
        "p/b.jpg",
        f"{tree}/p/b.jpg",
    ]
    assert [u.input for u in units(tree, "p", "p/b.jpg", "no/*.jpg", "p")] == list(range(8))


def test_a_folder_whose_name_is_a_pattern(tmp_path: Path) -> None:
    odd = tmp_path / "[x]"
    odd.mkdir()
    (odd / "1.jpg").write_bytes(b"x")
    assert [u.name for u in units(odd, "*.jpg", "1.jpg")] == ["1.jpg", "1.jpg"]


def test_what_is_not_there_is_a_unit_with_an_error(tree: Path) -> None:
    (tree / "empty").mkdir()
    found = units(tree, "empty", "no*.jpg", "no.tar", "p/b.jpg")
    assert [u.error_code for u in found] == ["not_found"] * 3 + [None]
    (tree / "empty.lst").touch()
    pq.write_table(pa.table({"url": pa.array([], pa.string())}), tree / "empty.parquet")
    names = ["empty.lst", "-", "empty.parquet", "p/b.jpg"]
    found = units(tree, *names, stdin=b"\n")
    assert [(u.name, u.error_code) for u in found] == [
        *((name, "not_found") for name in names[:3]),
        ("p/b.jpg", None),
    ]


def test_lists_keep_order_duplicates_and_odd_names(tree: Path) -> None:
    (tree / "list.txt").write_bytes(b"p/b.jpg\r\nno.jpg\n\np/b.jpg\ncaf\xe9.jpg")
    names = ["p/b.jpg", "no.jpg", "p/b.jpg", "caf\udce9.jpg"]
    assert [u.name for u in units(tree, "list.txt")] == names
    (tree / "nul.lst").write_bytes(b"a\nb.jpg\0c.jpg\0")
    assert [u.name for u in units(tree, "nul.lst", null_separated=True)] == ["a\nb.jpg", "c.jpg"]
    assert [u.name for u in units(tree, "-", stdin=b"x.jpg\ny.tar\n")] == ["x.jpg", "y.tar"]
    with pytest.raises(GiqaError) as caught:
        units(tree, "no.txt")
    assert caught.value.code == "not_found"


def test_tables_of_uris(tree: Path) -> None:
    path = tree / "t.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3], "url": ["a.jpg", None, "b.jpg"]}), path)
    found = units(tree, "t.parquet")
    assert [u.name for u in found] == ["a.jpg", "t.parquet::1", "b.jpg"]
    assert [u.error_code for u in found] == [None, "empty", None]
    with pytest.raises(UsageError, match="column id is int64: neither paths nor bytes"):
        units(tree, path.as_uri(), column="id")
    with pytest.raises(UsageError, match="none of the columns nope"):
        units(tree, "t.parquet", column="nope")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptError, match="Parquet"):
        units(tree, "t.parquet")


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_images_in_tar_shards_are_read_where_they_lie(tmp_path: Path, kind: int) -> None:
    long = "x/" * 60 + "long.png"
    members = {"0.jpg": b"first", "0.json": b"{}", long: os.urandom(3000), "e.jpg": b""}
    if kind == tarfile.USTAR_FORMAT:
        del members[long]
    make_tar(tmp_path / "s.tar", members, format=kind)
    found = units(tmp_path, "s.tar")
    images = {k: v for k, v in members.items() if not k.endswith("json")}
    assert [u.name for u in found] == [f"s.tar::{name}" for name in images]
    items = read_items(found, str(tmp_path), Limits())
    assert [item.data for item in items] == list(images.values())
    remote = "memory://batch/s.tar"
    fsspec.filesystem("memory").pipe(remote, (tmp_path / "s.tar").read_bytes())
    items = read_items(units(tmp_path, remote), str(tmp_path), Limits())
    assert [item.data for item in items] == list(images.values())


def damage(data: bytes, how: str) -> bytes:
    if how == "cut in a member":
        return data[: 512 + 100]
    if how == "cut after a member":
        return data[: 2 * 1024]
    if how == "bad header":
        return data[:1024] + b"\xff" * 512 + data[1536:]
    return {"nothing": b"", "no tar": b"x" * 4096, "gzip": b"\x1f\x8b" + data}[how]


@pytest.mark.parametrize(
    ("how", "whole", "code"),
    [
        ("cut in a member", 1, "truncated"),
        ("cut after a member", 2, "truncated"),
        ("bad header", 1, "corrupt"),
        ("nothing", 0, "corrupt"),
        ("no tar", 0, "corrupt"),
        ("gzip", 0, "unsupported_format"),
    ],
)
def test_a_damaged_tar_loses_nothing_before_it(
    tmp_path: Path, how: str, whole: int, code: str
) -> None:
    path = make_tar(tmp_path / "s.tar", {f"{i}.jpg": b"x" * 500 for i in range(3)})
    path.write_bytes(damage(path.read_bytes(), how))
    make_tar(tmp_path / "t.tar", {"ok.jpg": b"y"})
    found = units(tmp_path, "s.tar", "t.tar")
    assert [u.name for u in found][-2:] == ["s.tar", "t.tar::ok.jpg"]
    assert (found[-2].error_code, len(found) - 2) == (code, whole)
    if how == "cut in a member":
        first = next(read_items(found, str(tmp_path), Limits()))
        assert first.error is not None
        assert first.error.code == "truncated"


def test_uris() -> None:
    assert local_path("a b.jpg", "/x") == "/x/a b.jpg"
    assert local_path("/a.jpg", "/x") == "/a.jpg"
    assert local_path("file:///a%20b%23.jpg", "/x") == "/a b#.jpg"
    assert local_path("file://localhost/a.jpg", "/x") == "/a.jpg"
    assert local_path("file://elsewhere/a.jpg", "/x") is None
    assert local_path("s3://bucket/a.jpg", "/x") is None


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_a_paths_own_uri_leads_back(name: str) -> None:
    path = Path("/") / name
    assert local_path(path.as_uri(), "/x") == os.path.normpath(path) or ".." in path.parts


def test_items_from_other_places_keep_order_and_limits(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for i in range(40):
        memory.pipe(f"/batch/{i}.jpg", b"%d" % i)
    names = [f"memory://batch/{i}.jpg" for i in range(41)]
    names[7] = str(tmp_path / "local.jpg")
    names[9] = "nothing-like-it://x/y.jpg"
    found = [Unit(i, "image", name) for i, name in enumerate(names)]
    items = list(read_items(found, "/", Limits(max_bytes=1)))
    assert [item.name for item in items] == names
    assert items[7].path == Path(names[7])
    assert [items[i].error.code for i in (9, 40)] == ["unreadable", "not_found"]
    assert items[3].data == b"3"
    assert items[39].data == b"39"  # one byte too many: the scorer refuses it
    tar = Unit(0, "image", "t.tar::a.jpg", "t.tar", None, 0, 2)
    (item,) = read_items([tar], "/", Limits(max_bytes=1))
    assert item.error is not None
    assert item.error.code == "too_many_bytes"


numbers = st.none() | st.integers(0, 2**62)
made_units = st.builds(
    Unit,
    st.integers(0, 2**62),
    st.sampled_from(["image", "video"]),
    st.binary(min_size=1, max_size=20).filter(lambda b: 0 not in b).map(os.fsdecode),
    st.none() | st.binary(min_size=1, max_size=5).map(os.fsdecode),
    st.none() | st.just("image"),
    numbers,
    numbers,
    st.none() | st.floats(0, 1e6),
    st.none() | st.floats(0, 1e6),
    st.none() | st.sampled_from(["corrupt", "not_found"]),
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(made_units, max_size=5))
def test_units_survive_the_table(made: list[Unit]) -> None:
    table = _units.to_table(enumerate(made), _units.unit_schema())
    assert list(_units.from_table(table)) == list(enumerate(made))
    assert len({u.identity for u in made}) == len(set(made))


@pytest.mark.parametrize(("count", "size"), [(0, 3), (1, 3), (9, 3), (10, 3), (9000, 4000)])
def test_shards_part_the_units(tmp_path: Path, count: int, size: int) -> None:
    folder = Folder(tmp_path)
    found = [Unit(i, "image", f"{i}.jpg") for i in range(count)]
    plan = make_plan(folder, found, size)
    assert folder.plan() == plan
    shards = list(folder.read_shards(plan))
    assert [u for s in shards for u in s.units] == found
    assert {len(s.units) for s in shards[:-1]} <= {size}
    assert [s.number for s in shards] == list(range(plan.shards))
    assert all(folder.read_shard(plan, s.number) == s for s in shards)
    assert len({s.address for s in shards}) == len(shards)


def test_addresses_hang_on_bundle_and_options(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    plan = make_plan(folder, [Unit(0, "image", "a.jpg")], 3)
    changes = [
        {},
        {"bundle_sha256": "1"},
        {"scored_by": "openvino-bf16"},
        {"scoring": Scoring(profile="precise")},
        {"scoring": Scoring(max_pixels=1)},
    ]
    addresses = [folder.read_shard(plan.model_copy(update=c), 0).address for c in changes]
    assert len(set(addresses)) == len(changes)
    elsewhere = plan.model_copy(update={"runtime": Runtime(threads=3)})
    assert folder.read_shard(elsewhere, 0).address == addresses[0]


def test_a_damaged_plan_is_a_clear_error(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with pytest.raises(PlanInvalidError, match="no plan"):
        folder.plan()
    make_plan(folder, [Unit(0, "image", "a.jpg")], 3)
    whole = folder.plan_file.read_text()
    folder.plan_file.write_text(whole[:-30])
    with pytest.raises(PlanInvalidError):
        folder.plan()
    folder.plan_file.write_text(whole)
    folder.inputs_file.write_bytes(folder.inputs_file.read_bytes() + b"x")
    with pytest.raises(PlanInvalidError, match="altered"):
        folder.plan()


def test_a_lock_is_one_runs(tmp_path: Path) -> None:
    first, second = Folder(tmp_path).lock(), Folder(tmp_path).lock()
    taken = pytest.raises(FolderInUseError, match=f"process {os.getpid()} on")
    with first, taken, second:
        pass
    with Folder(tmp_path).lock():
        pass


def test_secrets_stay_out_of_plans() -> None:
    runtime = Runtime(token="hush", token_file=Path("t"))
    assert "hush" not in runtime.model_dump_json()
    assert "hush" not in repr(runtime)


def test_a_shard_is_the_same_bytes_again() -> None:
    assert encode([], "x") == encode([], "x")


def test_planning_holds_two_row_groups(tmp_path: Path) -> None:
    class Counted(Unit):
        live = most = 0

        def __new__(cls, *_: object) -> Unit:
            Counted.live += 1
            Counted.most = max(Counted.most, Counted.live)
            return super().__new__(cls)

        def __del__(self) -> None:
            Counted.live -= 1

    made = (Counted(i, "image", f"{i}.jpg") for i in range(10_000))
    assert Folder(tmp_path).write_inputs(number_shards(made, 1000)).units == 10_000
    assert Counted.most <= 2 * 5000
