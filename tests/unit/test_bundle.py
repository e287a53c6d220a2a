"""The bundle: strict, verified, all or nothing."""

import json
import shutil
from pathlib import Path

import pytest

from giqa.bundle import find_bundle, list_bundles, load_bundle, write_bundle
from giqa.errors import BundleInvalidError, EngineMismatchError


@pytest.fixture(scope="module")
def original() -> Path:
    return find_bundle()


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | changes))


def test_default_bundle_is_packaged_and_small(original: Path) -> None:
    assert original in list_bundles()
    sizes = [p.stat().st_size for p in original.iterdir()]
    assert sum(sizes) <= 80e6
    assert max(sizes) <= 50e6


def test_round_trip(original: Path, tmp_path: Path) -> None:
    bundle = load_bundle(original)
    fields = json.loads(bundle.manifest.to_json())
    files = {name: original / name for name in fields.pop("files")}
    written = write_bundle(tmp_path / "again", fields, files)
    assert written.manifest == bundle.manifest
    assert written.digest == bundle.digest
    with pytest.raises(FileExistsError):
        write_bundle(tmp_path / "again", fields, files)


def test_a_manifest_older_than_int8_is_read(copy: Path) -> None:
    path = copy / "manifest.json"
    fields = json.loads(path.read_text())
    del fields["files"][fields.pop("int8")]
    (copy / "int8.npz").unlink()
    for older in ({}, {"int8_graphs": None}):
        path.write_text(json.dumps(fields | older))
        bundle = load_bundle(copy)
        with pytest.raises(EngineMismatchError, match="has no int8"):
            _ = bundle.int8
    path.write_text(json.dumps(fields | {"int8_graphs": fields["graphs"]}))
    with pytest.raises(BundleInvalidError, match="int8_graphs"):
        load_bundle(copy)


def test_int8_needs_its_hash(copy: Path) -> None:
    edit(copy, int8="other.npz")
    with pytest.raises(BundleInvalidError, match=r"no hash of \['other.npz'\]"):
        load_bundle(copy)


def test_write_is_all_or_nothing(original: Path, tmp_path: Path) -> None:
    fields = json.loads((original / "manifest.json").read_text())
    files = {name: original / name for name in fields.pop("files")}
    del files["fusion.onnx"]
    with pytest.raises(BundleInvalidError, match=r"fusion\.onnx"):
        write_bundle(tmp_path / "bad", fields, files)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["fusion.onnx", "self_test.jpg", "README.md"])
def test_one_changed_byte_is_found(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleInvalidError, match=f"{name} was altered"):
        load_bundle(copy)


def test_truncated_and_missing_files_are_found(copy: Path) -> None:
    data = (copy / "fusion.onnx").read_bytes()
    (copy / "fusion.onnx").write_bytes(data[:-1])
    with pytest.raises(BundleInvalidError, match="altered"):
        load_bundle(copy)
    (copy / "fusion.onnx").unlink()
    with pytest.raises(BundleInvalidError, match="missing"):
        load_bundle(copy)


def test_unlisted_files_are_refused_but_engines_are_not(copy: Path) -> None:
    (copy / "engines").mkdir()
    load_bundle(copy)
    (copy / "extra.bin").write_bytes(b"x")
    with pytest.raises(BundleInvalidError, match=r"extra\.bin"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"schema": "giqa.bundle/99"}, "schema"),
        ({"surprise": 1}, "surprise"),
        ({"graphs": {"global_branch": "global_branch.onnx"}}, "graphs"),
        ({"profiles": {"fast": {"max_views": 1}}}, "profiles"),
        ({"graphs": {"global_branch": "../../etc/passwd"}}, "graphs"),
        ({"version": "latest"}, "version"),
        ({"tensors": {"global_side": -1}}, "tensors"),
    ],
)
def test_manifest_is_strict(copy: Path, changes: dict[str, object], where: str) -> None:
    edit(copy, **changes)
    with pytest.raises(BundleInvalidError, match=where):
        load_bundle(copy)


def test_manifest_that_is_not_json(copy: Path) -> None:
    (copy / "manifest.json").write_text("{")
    with pytest.raises(BundleInvalidError, match="manifest"):
        load_bundle(copy)


def test_unknown_bundle_names_the_known_ones() -> None:
    with pytest.raises(BundleInvalidError, match="giqa-s"):
        load_bundle("no-such-bundle")
