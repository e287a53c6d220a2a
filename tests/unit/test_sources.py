"""Whatever holds a picture becomes one item; what does not becomes an item with an error."""

import array
import io
import mmap
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from PIL import Image, ImageCms

from giqa import inputs
from giqa.decode import decode_picture, probe
from giqa.errors import all_errors
from giqa.sources import is_one, items
from giqa.types import Item, Limits
from tests.photos import photo

PIXELS = photo(40, 30)
GREY = PIXELS[..., 0]


def encoded(kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def one(source: Any, limits: Limits | None = None) -> Item:
    (item,) = items(source, limits or Limits())
    assert is_one(source)
    return item


def shown(source: Any) -> np.ndarray:
    """The pixels that a decoder sees."""
    item = one(source)
    if item.error is not None:
        raise item.error
    data = inputs.read(item, inputs.limits_of(item, Limits()))
    return np.asarray(decode_picture(data, probe(data)))


RGB: dict[str, Callable[[], Any]] = {
    "uint8": lambda: PIXELS,
    "not contiguous": lambda: np.repeat(PIXELS, 2, 1)[:, ::2],
    "read-only": lambda: np.frombuffer(PIXELS.tobytes(), np.uint8).reshape(PIXELS.shape),
    "uint16": lambda: PIXELS.astype(np.uint16) * 257,
    "big-endian": lambda: (PIXELS.astype(np.uint16) * 257).astype(">u2"),
    "float16": lambda: (PIXELS / 255).astype(np.float16),
    "float32": lambda: (PIXELS / 255).astype(np.float32),
    "float64": lambda: PIXELS / 255,
    "float, rounding": lambda: PIXELS / 255 + np.where(PIXELS > 127, 1, -1) * 1e-6,
    "tensor": lambda: torch.from_numpy(PIXELS),
    "tensor, CHW": lambda: torch.from_numpy(PIXELS).permute(2, 0, 1),
    "tensor, float": lambda: torch.from_numpy(PIXELS).permute(2, 0, 1) / 255,
    "tensor, gradient": lambda: (torch.from_numpy(PIXELS) / 255).requires_grad_(),
    "PIL": lambda: Image.fromarray(PIXELS),
    "PIL, file": lambda: Image.open(io.BytesIO(encoded())),
    "bytes": encoded,
    "bytearray": lambda: bytearray(encoded()),
    "memoryview": lambda: memoryview(encoded()),
    "array.array": lambda: array.array("B", encoded()),
    "file": lambda: io.BytesIO(encoded()),
    "item": lambda: Item("x", data=encoded()),
}


@pytest.mark.parametrize("make", RGB.values(), ids=RGB)
def test_one_picture_in_every_shape(make: Callable[[], Any]) -> None:
    assert np.abs(shown(make()).astype(int) - PIXELS).max() == 0


def test_bfloat16_has_fewer_levels() -> None:
    coarse = (torch.from_numpy(PIXELS) / 255).bfloat16()
    assert np.abs(shown(coarse).astype(int) - PIXELS).max() <= 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: GREY,
        lambda: GREY[..., None],
        lambda: GREY / 255,
        lambda: torch.from_numpy(GREY.copy())[None],
        lambda: Image.fromarray(GREY),
        lambda: Image.fromarray(GREY.astype(np.int32) * 257),
        lambda: Image.fromarray(GREY.astype(np.float32)),
        lambda: Image.fromarray(GREY.astype(np.uint16) * 257),
        lambda: Image.fromarray(GREY).convert("P"),
    ],
)
def test_grey(make: Callable[[], Any]) -> None:
    found = shown(make()).astype(int)
    assert np.abs(found - GREY[..., None]).max() <= 1


@pytest.mark.parametrize("form", ["array", "PIL", "file"])
def test_transparency_lies_over_white(form: str) -> None:
    alpha = np.full((*GREY.shape, 1), 128, np.uint8)
    alpha[:, :10] = 0
    rgba = np.concatenate([PIXELS, alpha], 2)
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    source = {"array": rgba, "PIL": Image.fromarray(rgba), "file": buffer}[form]
    buffer.seek(0)
    expected = np.rint(255 - (255 - PIXELS.astype(float)) * alpha / 255)
    assert np.abs(shown(source) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "HSV", "RGBX", "RGBa"])
def test_every_mode_of_pil_shows_what_pil_shows(mode: str) -> None:
    picture = Image.fromarray(PIXELS)
    picture = picture.convert("RGBA").convert("RGBa") if mode == "RGBa" else picture.convert(mode)
    expected = np.asarray(picture.convert("RGBA").convert("RGB")).astype(int)
    if mode in ("LA", "P"):
        expected = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(shown(picture).astype(int) - expected).max() <= 1


def test_a_pil_image_is_what_its_file_is() -> None:
    """Orientation and profile are the file's; a palette's transparency, too."""
    turned = Image.Exif()
    turned[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for options in ({"exif": turned}, {"icc_profile": profile}, {"exif": turned, "quality": 60}):
        data = encoded("JPEG", **options)
        assert np.array_equal(shown(Image.open(io.BytesIO(data))), shown(data))


def test_what_is_taken_over_is_not_touched_later() -> None:
    """A loop that fills one array again and again, or closes its files."""
    frame = np.zeros((20, 20, 3), np.uint8)

    def frames() -> Any:
        for value in (10, 200):
            frame[:] = value
            yield frame
        with io.BytesIO(encoded()) as file:
            yield file

    first, second, third = list(items(frames(), Limits()))
    levels = [np.asarray(decode_picture(i.data, probe(i.data))).mean() for i in (first, second)]  # type: ignore[arg-type]
    assert levels == [10, 200]
    assert third.data == encoded()


class Odd:
    """An array that does not want to be one."""

    shape = (10, 10, 3)
    dtype = np.dtype(np.uint8)

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise TypeError("Implicit conversion is not allowed")


class Gone:
    """A proxy of nothing, as web frameworks have them: no attribute can be asked for."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("working outside of a request")


def of_closed() -> Image.Image:
    with io.BytesIO(encoded()) as file:
        return Image.open(file)


def after_with() -> Image.Image:
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        Image.fromarray(PIXELS).save(file.name)
        with Image.open(file.name) as picture:
            return picture


def cut() -> Image.Image:
    data = encoded("JPEG")
    return Image.open(io.BytesIO(data[:-100]))


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "None": (lambda: None, "unsupported_format"),
    "int": (lambda: 7, "unsupported_format"),
    "object": (object, "unsupported_format"),
    "class": (lambda: Image.Image, "unsupported_format"),
    "no bytes": (lambda: b"", "empty"),
    "no pixels": (lambda: np.zeros((0, 4, 3), np.uint8), "empty"),
    "vector": (lambda: np.zeros(9, np.uint8), "shape_mismatch"),
    "scalar": (lambda: np.float32(0.5), "shape_mismatch"),
    "tensor of one": (lambda: torch.zeros(5), "shape_mismatch"),
    "CHW": (lambda: np.zeros((3, 20, 21), np.uint8), "shape_mismatch"),
    "two channels": (lambda: np.zeros((20, 20, 2), np.uint8), "shape_mismatch"),
    "batch": (lambda: np.zeros((2, 20, 20, 3), np.uint8), "shape_mismatch"),
    "int64": (lambda: PIXELS.astype(np.int64), "shape_mismatch"),
    "bool": (lambda: PIXELS > 9, "shape_mismatch"),
    "complex": (lambda: PIXELS.astype(complex), "shape_mismatch"),
    "floats to 255": (lambda: PIXELS.astype(np.float32), "shape_mismatch"),
    "floats below 0": (lambda: PIXELS / 255 - 0.5, "shape_mismatch"),
    "NaN": (lambda: np.full((9, 9), np.nan), "shape_mismatch"),
    "inf": (lambda: np.full((9, 9), np.inf), "shape_mismatch"),
    "text file": (lambda: io.StringIO("x"), "unreadable"),
    "closed file": (lambda: (f := io.BytesIO(b"x"), f.close())[0], "unreadable"),
    "closed PIL": (lambda: (p := Image.open(io.BytesIO(encoded())), p.close())[0], "unreadable"),
    "closed loaded PIL": (lambda: (p := Image.new("RGB", (9, 9)), p.close())[0], "unreadable"),
    "PIL of a closed file": (of_closed, "unreadable"),
    "PIL after with": (after_with, "unreadable"),
    "what raises when looked at": (Gone, "unreadable"),
    "cut PIL": (cut, "corrupt"),
    "odd array": (Odd, "unreadable"),
    "meta tensor": (lambda: torch.zeros(9, 9, 3, device="meta"), "unreadable"),
    "item of nothing": (lambda: Item("x"), "unreadable"),
}


@pytest.mark.parametrize(("make", "code"), BAD.values(), ids=BAD)
def test_what_cannot_be_scored_carries_its_code(make: Callable[[], Any], code: str) -> None:
    (alone,) = items(make(), Limits())
    (item,) = items([make()], Limits())
    error = item.error
    assert type(alone.error) is type(error)
    if error is None:  # found when its turn comes
        with pytest.raises(all_errors()[code]) as caught:
            probe(inputs.read(item))
        error = caught.value
    assert error.code == code
    assert item.name
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", [name for name, (make, _) in BAD.items() if make is not object])
def test_neighbours_of_the_bad_are_unharmed(name: str) -> None:
    first, _, last = items([PIXELS, BAD[name][0](), encoded()], Limits())
    assert (first.error, last.error) == (None, None)


def test_limits_hold_before_pixels_are_copied() -> None:
    limits = Limits(max_pixels=100)
    for source in (PIXELS, torch.from_numpy(PIXELS), Image.fromarray(PIXELS)):
        error = one(source, limits).error
        assert error is not None
        assert error.code == "too_many_pixels"
    small = Limits(max_bytes=50)
    item = one(io.BytesIO(encoded()), small)
    with pytest.raises(all_errors()["too_many_bytes"]):
        inputs.read(item, small)
    # Pixels are no file: the limit on bytes is not theirs.
    item = one(PIXELS, small)
    assert len(inputs.read(item, inputs.limits_of(item, small))) > 50


def test_columns_of_paths_are_many(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg"]
    for column in (names, tuple(names), np.array(names), np.array(names, object)):
        assert [i.name for i in items(column, Limits())] == names
    assert [i.name for i in items(pandas.Series(names), Limits())] == names
    assert [i.name for i in items(iter(names), Limits())] == names
    assert [i.name for i in items(dict.fromkeys(names, 1), Limits())] == names
    assert [i.name for i in items([], Limits())] == []
    assert one("a.jpg").path == Path("a.jpg")
    assert one(tmp_path / "a.jpg").name == str(tmp_path / "a.jpg")
    assert one(f"file://{tmp_path}/a%20b.jpg").path == tmp_path / "a b.jpg"


def test_a_mapped_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert np.array_equal(shown(mapped), PIXELS)
    with path.open("rb") as file:
        assert one(file).name == str(path)


def test_urls_are_read_with_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://giqa/a.png", "wb") as file:
        file.write(encoded())
    assert np.array_equal(shown("memory://giqa/a.png"), PIXELS)
    with pytest.raises(all_errors()["not_found"]):
        shown("memory://giqa/none.png")
    with pytest.raises(all_errors()["too_many_bytes"]):
        inputs.read(one("memory://giqa/a.png"), Limits(max_bytes=20))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/a.png", "nosuchscheme://a/b.png"):
        with pytest.raises(all_errors()["unreadable"]):
            shown(url)
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(all_errors()["missing_extra"], match="pip install fsspec"):
        shown("memory://giqa/a.png")
