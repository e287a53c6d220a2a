"""From names to items, and from items to bytes."""

import io
import os
import tracemalloc
from itertools import islice
from pathlib import Path

import pytest

from giqa.errors import GiqaError, TooManyBytesError
from giqa.inputs import find, read
from giqa.types import Item, Limits


def tree(root: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/c.webp", "sub/deep/d.tif", "other/e.gif"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def names(root: Path, *arguments: str, **options: object) -> list[str]:
    found = find(arguments or [str(root)], **options)  # type: ignore[arg-type]
    return [os.path.relpath(i.name, root) for i in found]


def test_a_directory_is_its_images_sorted(tmp_path: Path) -> None:
    root = tree(tmp_path)
    assert names(root) == ["a.PNG", "b.jpg"]
    everything = ["a.PNG", "b.jpg", "other/e.gif", "sub/c.webp", "sub/deep/d.tif"]
    assert names(root, recursive=True) == everything


def test_patterns(tmp_path: Path) -> None:
    root = tree(tmp_path)
    assert names(root, f"{root}/*.jpg") == ["b.jpg"]
    assert names(root, f"{root}/**/*.*") == [
        "a.PNG", "b.jpg", "notes.txt", "other/e.gif", "sub/c.webp", "sub/deep/d.tif",
    ]  # fmt: skip
    (none,) = find([f"{root}/*.nothing"])
    assert none.error is not None
    assert none.error.code == "not_found"


def test_a_literal_name_beats_a_pattern(tmp_path: Path) -> None:
    odd = tmp_path / "a[1].jpg"
    odd.write_bytes(b"x")
    (item,) = find([str(odd)])
    assert item.path == odd


def test_order_and_duplicates_are_kept(tmp_path: Path) -> None:
    root = tree(tmp_path)
    b = str(root / "b.jpg")
    assert names(root, b, str(root), b) == ["b.jpg", "a.PNG", "b.jpg", "b.jpg"]


def test_empty_and_missing_are_items_with_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (empty,) = find([str(tmp_path / "empty")])
    assert empty.error is not None
    assert empty.error.code == "not_found"
    (missing,) = find([str(tmp_path / "no.jpg")])
    with pytest.raises(GiqaError) as caught:
        read(missing)
    assert caught.value.code == "not_found"


def test_loops_of_links_end(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "sub" / "up").symlink_to(root)
    (root / "self.jpg").symlink_to(root / "self.jpg")
    found = names(root, recursive=True)
    assert found.count("b.jpg") == 1
    assert "self.jpg" in found
    item = next(i for i in find([str(root)]) if i.name.endswith("self.jpg"))
    with pytest.raises(GiqaError) as caught:
        read(item)
    assert caught.value.code == "unreadable"


def test_a_directory_named_like_an_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    (item,) = find([str(tmp_path)])
    assert item.error is not None
    assert item.error.code == "unreadable"


@pytest.mark.parametrize(
    ("text", "null", "expected"),
    [
        (b"a.jpg\nb c.jpg\n", False, ["a.jpg", "b c.jpg"]),
        (b"a.jpg\r\nb.jpg", False, ["a.jpg", "b.jpg"]),
        (b"a.jpg\0b\nc.jpg\0", True, ["a.jpg", "b\nc.jpg"]),
        (b"caf\xe9.jpg\n", False, ["caf\udce9.jpg"]),
        (b"*.jpg\n", False, ["*.jpg"]),
    ],
)
def test_lists(text: bytes, null: bool, expected: list[str]) -> None:
    found = find(["-"], stdin=io.BytesIO(text), null_separated=null)
    assert [i.name for i in found] == expected


@pytest.mark.parametrize(
    "text", [b"", b"\n\n", b"\r\n", b"\0\0", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"]
)
def test_a_list_without_names_is_a_row(text: bytes) -> None:
    null = b"\0" in text
    (item,) = find(["-"], stdin=io.BytesIO(text), null_separated=null)
    assert item.error is not None
    assert (item.name, item.error.code) == ("-", "not_found")
    first, second = find(["a.jpg", "-"], stdin=io.BytesIO(text), null_separated=null)
    assert (first.error, second.name) == (None, "-")


def test_a_long_list_is_read_lazily() -> None:
    stream = io.BytesIO(b"".join(b"photos/%07d.jpg\n" % i for i in range(300_000)))
    tracemalloc.start()
    items = find(["-"], stdin=stream)
    assert next(items).name == "photos/0000000.jpg"
    assert sum(1 for _ in items) == 299_999
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # items for the whole list would take over 100 MB


def test_names_that_are_not_text(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(raw)).write_bytes(b"abc")
    (item,) = find([str(tmp_path)])
    assert bytes(read(item)) == b"abc"


def test_the_byte_limit_holds_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as f:
        f.truncate(1 << 40)
    with pytest.raises(TooManyBytesError):
        read(Item.of(path))
    assert len(read(Item.of(b"12345"), Limits(max_bytes=5))) == 5
    with pytest.raises(TooManyBytesError):
        read(Item.of(b"123456"), Limits(max_bytes=5))


def test_devices_are_refused() -> None:
    (item,) = islice(find(["/dev/zero"]), 1)
    with pytest.raises(GiqaError) as caught:
        read(item)
    assert caught.value.code == "unreadable"
