"""Odd clips, each standing for a kind: each frame once, in order, with a note where it is due."""

import errno
import io
import itertools
import random
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from giqa.errors import GiqaError
from giqa.video import Frame, Sampling, read_frames, score_video
from giqa.video._colour import Converter, is_combed
from giqa.video._containers import is_torn
from giqa.video._timeline import hidden
from tests import odd_clips
from tests.clips import pan, write
from tests.odd_clips import COUNT, long_packet, remuxed, untimed
from tests.photos import photo
from tests.video.conftest import Brightness


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return odd_clips.base(tmp_path_factory.mktemp("base"))


def read(path: Path) -> tuple[list[Frame], list[str], GiqaError | None]:
    frames: list[Frame] = []
    with read_frames(path) as reader:
        try:
            frames += reader
        except GiqaError as e:
            return frames, reader.notes, e
    return frames, reader.notes, None


@pytest.mark.parametrize("seed", range(8))
def test_videos_that_are_read_at_once_do_not_mix(base: Path, seed: int) -> None:
    alone = [(f.index, f.pts_s) for f in read(base)[0]]
    draw = random.Random(seed)
    with ExitStack() as stack:
        readers = [iter(stack.enter_context(read_frames(base))) for _ in range(3)]
        found: list[list[tuple[int, float]]] = [[] for _ in readers]
        for which in draw.choices(range(3), weights=(3, 2, 1), k=400):
            for frame in itertools.islice(readers[which], draw.randrange(1, 9)):
                found[which].append((frame.index, frame.pts_s))
        for reader, frames in zip(readers, found, strict=True):
            frames += [(f.index, f.pts_s) for f in reader]
    assert found == [alone] * 3


def read_code(path: Path) -> GiqaError | None:
    try:
        read(path)
    except GiqaError as e:
        return e
    return None


def good(frames: list[Frame]) -> list[Frame]:
    return [frame for frame in frames if frame.error is None]


def in_order(frames: list[Frame]) -> bool:
    pairs = list(itertools.pairwise(frames))
    return all(a.index < b.index and a.pts_s < b.pts_s for a, b in pairs)


def same(a: list[Frame], b: list[Frame]) -> bool:
    return all(np.array_equal(x.image, y.image) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("suffix", ["avi", "mp4", "h264"])
def test_frames_come_in_order_where_packets_have_no_times_of_showing(
    base: Path, suffix: str
) -> None:
    frames, notes, error = read(untimed(base.parent, suffix))
    assert (len(frames), notes, error) == (COUNT, [], None)
    assert [frame.index for frame in frames] == list(range(COUNT))
    assert np.diff([frame.pts_s for frame in frames]) == pytest.approx(
        [0.04] * (COUNT - 1), abs=0.021
    )
    assert same(frames, read(base)[0])


@pytest.mark.parametrize("back", [1, 2])
def test_an_error_near_the_end_costs_its_own_frame(tmp_path: Path, base: Path, back: int) -> None:
    (path := tmp_path / "bad.mp4").write_bytes(base.read_bytes())
    frames, _, _ = read(long_packet(path, back))
    assert (len(frames), len(good(frames))) == (COUNT, COUNT - 1)
    assert in_order(frames)
    assert same(good(frames)[: COUNT - 6], read(base)[0][: COUNT - 6])


def test_damaged_av1_is_decoded_as_far_as_it_can_be(tmp_path: Path) -> None:
    options = {"preset": "12", "svtav1-params": "keyint=10"}
    path = write(tmp_path / "a.mkv", pan(40), codec="libsvtav1", gop=10, **options)
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    at, size = packets[12]
    data[at + 8 : at + size] = bytes(255 - i % 256 for i in range(size - 8))
    path.write_bytes(data)
    frames, _, _ = read(path)
    assert in_order(frames)
    assert len(good(frames)) >= 25


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "ts"), ("mpeg2video", "ts")])
def test_what_a_decoder_made_up_is_said(tmp_path: Path, codec: str, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", pan(40, 320, 192), codec=codec, bit_rate=2_000_000)
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 3, len(data) - 200, len(data) // 6):
        data[at : at + 60] = bytes(range(60))
    path.write_bytes(data)
    found = score_video(path, Brightness(), scenes=False)
    assert found.status == "partial"
    assert "damaged" in found.notes
    assert any(row.damaged and row.score is not None for row in found.frames)
    assert not all(row.damaged for row in found.frames)
    flagged = next(row for row in found.frames if row.damaged)
    assert flagged.to_json()["damaged"] is True


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
@pytest.mark.parametrize("missing", [True, False])
def test_a_hole_in_matroska_is_told(tmp_path: Path, suffix: str, missing: bool) -> None:
    codec = "libvpx" if suffix == "webm" else "mjpeg"
    pixels = "yuv420p" if suffix == "webm" else "yuvj420p"
    path = write(tmp_path / f"a.{suffix}", pan(40), codec=codec, pixels=pixels)
    assert score_video(path, Brightness(), scenes=False).notes == ()
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()
    start, end = places[15] - 20, places[18] + 20
    hole = b"" if missing else bytes(end - start)
    path.write_bytes(data[:start] + hole + data[end:])
    found = score_video(path, Brightness(), scenes=False)
    assert found.status == "partial" or "ends_early" in found.notes
    assert "damaged" in found.notes
    assert len(found.frames) < 40


def test_a_matroska_file_that_is_cut_anywhere_is_not_torn(tmp_path: Path, base: Path) -> None:
    data = remuxed(base, tmp_path / "a.mkv").read_bytes()
    for size in range(1, len(data), 7):
        assert not is_torn(io.BytesIO(data[:size]), size)


@pytest.mark.parametrize("step", [2, 6])
@pytest.mark.parametrize("woven", [True, False])
def test_pictures_of_two_moments_are_told_from_others(
    tmp_path: Path, step: int, woven: bool
) -> None:
    """As FFmpeg's idet says it, which looks at several: interlaced or progressive."""
    scene = photo(640, 288, noise=2)
    moments = [np.ascontiguousarray(scene[:, i * step : i * step + 320]) for i in range(24)]
    pictures = moments[::2]
    if woven:
        for even, odd in zip(pictures, moments[1::2], strict=True):
            even[1::2] = odd[1::2]
    options = {"codec": "mpeg2video", "bit_rate": 20_000_000, "flags": "+ildct+ilme"}
    path = write(tmp_path / "a.mkv", pictures, **options)
    with av.open(str(path)) as container:
        assert {is_combed(frame) for frame in container.decode(video=0)} == {woven}
    said = "deinterlaced" in read(path)[1]
    assert said == woven
    if shutil.which("ffmpeg"):
        show = ["-vf", "idet,metadata=print:file=-", "-f", "null", "-"]
        command = ["ffmpeg", "-nostdin", "-v", "quiet", "-i", str(path), *show]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert ("multiple.current_frame=tff" in told) == woven


def test_what_lies_behind_something_unreadable_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mpg", pan(30), gop=10, bf="3", tune="psnr", preset="fast")
    data = path.read_bytes()
    found = []
    for share in range(20, 60, 5):  # some of these begin with what FFmpeg cannot read
        path.write_bytes(data[len(data) * share // 100 :])
        frames, notes, error = read(path)
        assert in_order(frames)
        assert "starts_late" in notes
        found.append((len(good(frames)), error))
    assert all(count >= 7 and error is None for count, error in found), found


def test_an_error_of_the_disk_is_told_from_damage(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg has the same words for both; a place that makes no sense is damage."""
    path = remuxed(base, tmp_path / "a.nut")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert len(good(read(path)[0])) > 8

    def gone(self: object, size: int = -1) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("giqa.video._containers.Part.read", gone)
    error = read_code(path)
    assert error is not None
    assert error.code == "unreadable"


def test_hidden_frames_of_vp9_are_told_by_their_headers() -> None:
    """By the specification: marker, profile, show_existing_frame, frame_type, show_frame."""
    shown, not_shown, again = 0b1000_0110, 0b1000_0100, 0b1000_1000
    of_profile_3 = 0b1011_0011, 0b1011_0010
    for first, expected in (
        *((shown, False), (not_shown, True), (again, False)),
        *zip(of_profile_3, (False, True), strict=True),
    ):
        assert hidden("vp9", av.Packet(bytes([first, 1, 2, 3]))) is expected
    for second, expected in ((shown, False), (not_shown, True)):
        marker = 0b1100_0001  # two frames, sizes of one byte
        data = bytes([not_shown, 9, 9, second, 9, marker, 3, 2, marker])
        assert hidden("vp9", av.Packet(data)) is expected


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    picture = np.dstack([next(pan(1)), np.full((96, 160), 255, np.uint8)])
    picture[:, :80, 3] = 0
    picture[:, 80:100, 3] = 128
    white = Image.new("RGBA", (160, 96), "white")
    expected = np.asarray(Image.alpha_composite(white, Image.fromarray(picture)).convert("RGB"))
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("qtrle", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "argb"
        frame = av.VideoFrame.from_ndarray(picture, "rgba").reformat(format="argb")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames, notes, _ = read(path)
    assert notes == ["alpha_flattened"]
    assert np.abs(frames[0].image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("pixels", ["gray", "gray10le", "gray16be"])
def test_grey_has_the_range_that_is_said(pixels: str) -> None:
    """As AV1 and H.265 of 4:0:0 are decoded; FFmpeg takes all grey for full range."""
    frame = av.VideoFrame(64, 16, pixels)
    bits = frame.format.components[0].bits
    dtype = "u1" if bits == 8 else ">u2" if pixels.endswith("be") else "<u2"
    plane = frame.planes[0]
    rows = np.zeros((16, plane.line_size // np.dtype(dtype).itemsize), dtype)
    rows[:, :64] = levels = np.linspace(16, 235, 64).round() * (1 << bits - 8)
    plane.update(rows.tobytes())
    for said, expected in (
        (1, (levels / (1 << bits - 8) - 16) * 255 / 219),
        (2, levels * 255 / ((1 << bits) - 1)),
    ):
        frame.color_range = said
        assert np.abs(Converter().image(frame)[8] - expected[:, None]).max() <= 1


def test_vp9_with_transparency_is_laid_over_white(tmp_path: Path) -> None:
    picture = av.VideoFrame(160, 96, "yuva420p")
    for plane, level in zip(picture.planes, (81, 90, 240, 0), strict=True):
        plane.update(bytes([level]) * plane.buffer_size)
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuva420p"
        for packet in itertools.chain(stream.encode(picture), stream.encode()):
            container.mux(packet)
    (frame,), notes, _ = read(tmp_path / "a.webm")
    assert notes == ["alpha_flattened"]
    assert frame.image.min() >= 254


def test_progressive_pictures_that_are_flagged_interlaced_stay(tmp_path: Path) -> None:
    options = {"codec": "mpeg2video", "bit_rate": 8_000_000}
    path = write(tmp_path / "fake.mkv", pan(10, 320, 192), flags="+ildct+ilme", **options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    frames, notes, _ = read(path)
    assert notes == []
    flat = read(write(tmp_path / "true.mkv", pan(10, 320, 192), **options))[0]
    for a, b in zip(frames, flat, strict=True):
        assert np.abs(a.image.astype(int) - b.image).mean() < 3


def test_a_range_of_what_has_no_times_is_that_of_the_whole(base: Path) -> None:
    path = untimed(base.parent, "avi")
    whole, _, _ = read(path)
    with read_frames(path, Sampling(start_s=0.79)) as reader:
        part = list(reader)
    wanted = [frame for frame in whole if frame.pts_s >= 0.79]
    assert [frame.index for frame in part] == [frame.index for frame in wanted]
    assert same(part, wanted)


_TO_709 = np.array(  # BT.2087: linear BT.2020 to linear BT.709
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)


def _light(code: np.ndarray, transfer: int) -> np.ndarray:
    """Display light, 1 being 203 cd/m2, as BT.2100 says."""
    if transfer == 16:
        root = code ** (1 / 78.84375)
        ratio = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        return 10000 / 203 * ratio ** (1 / 0.1593017578125)
    if transfer == 18:
        high = (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
        scene = np.where(code <= 0.5, code**2 / 3, high)
        luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
        return 1000 / 203 * scene * luminance[:, None] ** 0.2
    return code**2.4


@pytest.mark.parametrize("transfer", [14, 16, 18])
@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv444p10le"])
def test_colours_of_hdr_and_wide_gamuts_are_those_of_the_standard(
    transfer: int, pixels: str
) -> None:
    steps = np.linspace(0.05, 0.95, 7)
    code = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    luma = code @ np.array([0.2627, 0.6780, 0.0593])
    codes = np.round(
        [
            64 + 876 * luma,
            512 + 896 * (code[:, 2] - luma) / 1.8814,
            512 + 896 * (code[:, 0] - luma) / 1.4746,
        ]
    ).astype(np.uint16)
    frame = av.VideoFrame(16 * len(code), 16, pixels)
    for plane, values in zip(frame.planes, codes, strict=True):
        rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        rows[:, : plane.width] = np.repeat(values, plane.width // len(code))
        plane.update(rows.tobytes())
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, 9, 9, 1
    found = Converter().image(frame)[8, 8::16]
    # What was coded in 10 bits is what light is computed of.
    luma = (codes[0] - 64.0) / 876
    red, blue = luma + 1.4746 * (codes[2] - 512.0) / 896, luma + 1.8814 * (codes[1] - 512.0) / 896
    green = (luma - 0.2627 * red - 0.0593 * blue) / 0.6780
    coded = np.clip(np.stack([red, green, blue], 1), 0, 1)
    light = np.clip(_light(coded, transfer) @ _TO_709.T, 0, 1)
    if transfer == 14:
        expected = light ** (1 / 2.4)
    else:
        expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    difference = np.abs(found - 255 * expected)
    assert difference.max() < 3
    assert difference.mean() < 0.3
