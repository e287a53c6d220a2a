"""Stills as a viewer shows them: turned, cropped, in colours of their own; and broken ones."""

import io
import itertools
import struct
import time

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from giqa.bundle import load_bundle
from giqa.decode import Decoder, probe
from giqa.decode._pillow import decode_picture
from giqa.errors import GiqaError
from giqa.types import Item
from tests.heif import heic
from tests.jxl_files import JXL, PATCHES
from tests.makers import save
from tests.odd_images import GREY, RGB, WIDE, jpeg, pq, tiff, with_property

TURNS = list(itertools.product(range(4), (None, 0, 1)))
"""Quarter turns counterclockwise (irot), then a mirror (imir): 0 top and bottom, 1 the sides."""


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(load_bundle().manifest)


def shown(data: bytes) -> np.ndarray:
    found = probe(data)
    picture = np.asarray(decode_picture(data, found))
    assert picture.shape[1::-1] == found.upright_size
    return picture.astype(int)


def properties(turn: int, mirror: int | None) -> list[bytes]:
    parts = [struct.pack(">I4sB", 9, b"irot", turn)] if turn else []
    return parts + ([] if mirror is None else [struct.pack(">I4sB", 9, b"imir", mirror)])


def turned(picture: np.ndarray, turn: int, mirror: int | None) -> np.ndarray:
    found = np.rot90(picture, turn)
    return found if mirror is None else np.flip(found, mirror)


def clap(left: int, top: int) -> bytes:
    """The picture within a frame of 224x176, at a place."""
    return struct.pack(">I4s4I", 40, b"clap", 192, 1, 144, 1) + struct.pack(
        ">iIiI", 2 * (left - 16), 2, 2 * (top - 16), 2
    )


def framed(left: int, top: int) -> np.ndarray:
    frame = np.zeros((176, 224, 3), np.uint8)
    frame[top : top + 144, left : left + 192] = RGB
    return frame


@pytest.mark.parametrize(("turn", "mirror"), TURNS)
def test_avif_is_turned_and_mirrored(turn: int, mirror: int | None) -> None:
    data = save(Image.fromarray(RGB), "AVIF", quality=100, subsampling="4:4:4")
    for one in properties(turn, mirror):
        data = with_property(data, one)
    assert np.abs(shown(data) - turned(RGB, turn, mirror)).mean() < 1.2


@pytest.mark.parametrize(("turn", "mirror"), TURNS)
def test_heic_is_turned_and_mirrored(turn: int, mirror: int | None) -> None:
    pytest.importorskip("pi_heif")
    data = heic(RGB / 255, extra=b"".join(properties(turn, mirror)))
    assert np.abs(shown(data) - turned(RGB, turn, mirror)).mean() < 1.2


@pytest.mark.parametrize("place", [(16, 16), (20, 10), (0, 32)])
@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("hdr", [False, True])
def test_crops_come_before_turns(place: tuple[int, int], turn: int, hdr: bool) -> None:
    frame, expected = framed(*place), np.rot90(RGB, turn)
    if hdr:
        values = np.round(pq(frame) * 1023).astype(np.uint16)
        options = {"bitspersample": 10, "primaries": 9, "transfer": 16, "matrix": 0}
        avif = imagecodecs.avif_encode(values, level=98, speed=8, pixelformat="444", **options)
    else:
        avif = save(Image.fromarray(frame), "AVIF", quality=100, subsampling="4:4:4")
    for one in (clap(*place), *properties(turn, None)):
        avif = with_property(avif, one)
    assert np.abs(shown(avif) - expected).mean() < 1.2


@pytest.mark.parametrize("place", [(16, 16), (20, 10)])
def test_heic_is_cropped_and_then_turned(place: tuple[int, int]) -> None:
    pytest.importorskip("pi_heif")
    extra = clap(*place) + properties(1, None)[0]
    assert np.abs(shown(heic(framed(*place) / 255, extra=extra)) - np.rot90(RGB, 1)).mean() < 1.2


def test_heic_of_hdr_is_mapped() -> None:
    pytest.importorskip("pi_heif")
    patches = np.kron(PATCHES, np.ones((4, 4, 1), np.uint8))  # little for x265 to lose
    data = heic(pq(patches), bits=10, signal=(9, 16))
    assert "hdr_mapped" in probe(data).notes
    difference = np.abs(shown(data) - patches)[16::32, 16::32]
    assert difference.mean() < 1
    assert difference.max() < 12  # a dark channel of a pure colour, in 10 bits of Y'CbCr
    assert np.abs(shown(heic(RGB / 255, bits=10)) - RGB).mean() < 1.2


@pytest.mark.parametrize(
    ("name", "note", "worst"),
    [
        ("PQ", "hdr_mapped", 1),
        ("P3", "icc_converted", 1),
        ("linear", "icc_converted", 1),
        ("profile, lossy", "icc_converted", 14),
    ],
)
def test_jxl_has_the_colours_that_its_header_tells(name: str, note: str, worst: int) -> None:
    found = shown(JXL[name])
    assert note in probe(JXL[name]).notes
    assert np.abs(found - PATCHES)[4::8, 4::8].max() <= worst


def test_a_profile_of_jxl_that_is_not_applied_is_told() -> None:
    assert "icc_ignored" in probe(JXL["profile"]).notes


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_jxl_says_whether_it_is_grey_and_transparent(mode: str) -> None:
    picture = Image.fromarray(RGB).convert(mode)
    if "A" in mode:
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    data = imagecodecs.jpegxl_encode(np.asarray(picture), lossless=True)
    found = probe(data)
    assert (found.mode, found.has_alpha) == (mode, "A" in mode)
    assert ("alpha_flattened" in found.notes) == ("A" in mode)
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    assert np.abs(shown(data) - np.asarray(flat)).max() <= 1


@pytest.mark.parametrize("at", range(2, 8))
def test_a_jxl_that_ends_within_its_header_is_truncated(at: int) -> None:
    with pytest.raises(GiqaError) as caught:
        probe(JXL["PQ"][JXL["PQ"].index(b"\xff\x0a") :][:at])
    assert caught.value.code == "truncated"


def test_of_a_picture_with_a_gain_map_the_base_is_scored(decoder: Decoder) -> None:
    """Ultra HDR: an SDR picture, and behind it one by which HDR displays brighten it."""
    base, gain = jpeg(), save(Image.fromarray(GREY).resize((48, 36)), "JPEG")
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"/>'
    entry = struct.pack(">IIIHH", 0, len(gain), len(base), 0, 0)
    mpf = (
        b"MPF\0MM\0*"
        + struct.pack(">IH", 8, 1)
        + struct.pack(">HHII", 0xB002, 7, 16, 26)
        + bytes(4)
    )
    segments = b""
    for mark, payload in ((b"\xff\xe1", xmp), (b"\xff\xe2", mpf + entry)):
        segments += mark + struct.pack(">H", len(payload) + 2) + payload
    data = base[:2] + segments + base[2:] + gain
    found, plain = decoder([Item("a", data=data), Item("b", data=base)], "fast")
    assert found.views is not None
    assert plain.views is not None
    assert np.array_equal(found.views.local_view, plain.views.local_view)
    assert found.probe is not None
    assert plain.probe is not None
    assert found.probe.notes == plain.probe.notes


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("strips", [1, 9])
def test_faxes_are_read(compression: str, strips: int) -> None:
    page = Image.fromarray(GREY).convert("1")
    data = save(page, "TIFF", compression=compression, strip_size=192 * 144 // 8 // strips)
    assert np.array_equal(shown(data)[..., 0], np.asarray(page) * 255)


@pytest.mark.parametrize("values", [RGB, WIDE, GREY, (RGB / 255).astype(np.float32)])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 10}, {"tile": (64, 80)}])
@pytest.mark.parametrize("predictor", [False, True])
def test_lzw_is_read(values: np.ndarray, layout: dict, predictor: bool) -> None:
    kind = "minisblack" if values is GREY else "rgb"
    data = tiff(values, photometric=kind, compression="lzw", predictor=predictor, **layout)
    assert np.abs(shown(data) - (GREY[..., None] if values is GREY else RGB)).max() <= 1


@pytest.mark.parametrize("planar", [RGB, WIDE])
def test_lzw_in_planes_is_read(planar: np.ndarray) -> None:
    options = {"photometric": "rgb", "planarconfig": "separate", "rowsperstrip": 50}
    data = tiff(np.moveaxis(planar, 2, 0), compression="lzw", **options)
    assert np.abs(shown(data) - RGB).max() <= 1


def test_damaged_lzw_costs_itself_alone() -> None:
    """A code that stands for nothing yet, behind one that clears the table."""
    data = bytearray(tiff(WIDE, compression="lzw", photometric="rgb"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        at = file.pages[0].dataoffsets[0]
    data[at : at + 3] = (256 << 15 | 300 << 6).to_bytes(3, "big")
    with pytest.raises(GiqaError) as caught:
        shown(bytes(data))
    assert caught.value.code == "corrupt"


def test_many_strips_cost_no_more_than_few() -> None:
    """It took a second for each 900 of them."""
    values = np.tile(RGB[:, :16], (100, 1, 1))
    data = tiff(values, compression="lzw", photometric="rgb", rowsperstrip=1)
    begun = time.process_time()
    assert np.array_equal(shown(data), values)
    assert time.process_time() - begun < 5


def test_strips_that_are_not_there_are_black() -> None:
    data = bytearray(tiff(RGB, compression="lzw", photometric="rgb", rowsperstrip=36))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        at = page.tags[279].valueoffset
        form = "<H" if int(page.tags[279].dtype) == 3 else "<I"
    struct.pack_into(form, data, at + struct.calcsize(form), 0)
    expected = RGB.copy()
    expected[36:72] = 0
    assert np.array_equal(shown(bytes(data)), expected)


def test_tiles_are_not_much_larger_than_the_picture() -> None:
    data = bytearray(tiff(RGB, compression="lzw", photometric="rgb", tile=(64, 80)))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = file.pages[0].tags
        places = [(tags[code].valueoffset, int(tags[code].dtype)) for code in (322, 323)]
    for at, kind in places:
        struct.pack_into("<H" if kind == 3 else "<I", data, at, 65520)
    with pytest.raises(GiqaError) as caught:
        probe(bytes(data))
    assert caught.value.code == "corrupt"


@pytest.mark.parametrize("compression", ["tiff_lzw", "group4"])
def test_libtiff_writes_nothing_to_the_terminal(
    compression: str, decoder: Decoder, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = Image.fromarray(GREY)
    picture = picture.convert("1") if compression == "group4" else picture
    whole = save(picture, "TIFF", compression=compression)
    rng = np.random.default_rng(0)
    items = []
    for _ in range(40):
        data = bytearray(whole)
        for at in rng.integers(200, len(data) - 400, 4):
            data[at : at + 4] = b"\xff" * 4
        items.append(Item("x", data=bytes(data)))
    codes = {one.error and one.error.code for one in decoder(items, "fast")}
    assert codes <= {None, "corrupt"}
    assert capfd.readouterr().err == ""


def test_a_jpeg_in_a_tiff_may_not_be_larger_than_the_tiff() -> None:
    data = bytearray(save(Image.fromarray(RGB), "TIFF", compression="jpeg"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    with pytest.raises(GiqaError) as caught:
        probe(bytes(data))
    assert caught.value.code == "corrupt"


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"II*\0\x08\0\0\0IIII", "Phase One"),
        (b"II\x1a\0\0\0HEAPCCDR", "CRW"),
        (b"YUV4MPEG2 W64 H64", "video"),
        (b"\0\0\0\0G" + bytes(191) + b"G", "video"),
        (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "video"),
    ],
)
def test_formats_that_are_not_read_are_named(head: bytes, word: str) -> None:
    with pytest.raises(GiqaError) as caught:
        probe(head + bytes(300))
    assert caught.value.code == "unsupported_format"
    assert word in caught.value.message
