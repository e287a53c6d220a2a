"""Odd clips, each standing for a kind: each frame once, in order, with a note where it is due."""

import errno
import io
import itertools
import random
from contextlib import ExitStack
from pathlib import Path

import av
import numpy as np
import pytest

from giqa.errors import GiqaError, UnsupportedCodecError
from giqa.video import Frame, Sampling, read_frames, score_video
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


def test_a_program_stream_that_is_cut_anywhere_has_frames_in_order(tmp_path: Path) -> None:
    """In some of these FFmpeg meets no header at first, and has ticks for a rate."""
    scene = photo(220, 126, seed=27, noise=8)
    path = write(tmp_path / "a.mpg", pan(30, of=scene), gop=12, bf="3", tune="psnr", preset="fast")
    data, seen = path.read_bytes(), 0
    for at in range(len(data) // 10, len(data) * 7 // 10, len(data) // 100):
        path.write_bytes(data[at:])
        try:
            frames, _, error = read(path)
        except UnsupportedCodecError:  # nothing says which it is
            continue
        assert in_order(frames), at
        assert error is None
        assert frames[0].info.fps in (None, 25)
        seen += 1
    assert seen > 30


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


def test_a_range_of_what_has_no_times_is_that_of_the_whole(base: Path) -> None:
    path = untimed(base.parent, "avi")
    whole, _, _ = read(path)
    with read_frames(path, Sampling(start_s=0.79)) as reader:
        part = list(reader)
    wanted = [frame for frame in whole if frame.pts_s >= 0.79]
    assert [frame.index for frame in part] == [frame.index for frame in wanted]
    assert same(part, wanted)
