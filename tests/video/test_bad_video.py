"""Whatever a file is, it gives its rows or a coded error, and the next one is not affected."""

import os
import struct
from pathlib import Path

import av
import pytest

from giqa.errors import GiqaError
from giqa.video import Sampling, VideoLimits, VideoResult, read_frames, score_video
from tests.brightness import Brightness
from tests.clips import pan, sound, write


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clips")
    write(made / "late.mp4", pan(40), crf="10")  # its index is at the end
    write(made / "early.mkv", pan(40), crf="10")
    write(made / "intra.mov", pan(20), codec="mjpeg", pixels="yuvj420p")
    return made


def score(path: Path, **options: object) -> VideoResult:
    return score_video(path, Brightness(), **options)


def code(path: Path, **options: object) -> str:
    found = score(path, **options)
    assert found.error is not None
    assert str(path) in str(found.error)
    assert found.error.remedy
    assert (found.status, found.frames, found.pooled) == ("error", (), None)
    return found.error.code


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video, but long enough to be looked at\n" * 99)
    os.mkfifo(tmp_path / "fifo.mp4")
    assert code(tmp_path / "empty.mp4") == "empty"
    assert code(tmp_path / "text.mp4") == "unsupported_format"
    assert code(tmp_path / "fifo.mp4") == "unreadable"
    assert code(tmp_path) == "unreadable"
    assert code(tmp_path / "none.mp4") == "not_found"
    assert code(sound(tmp_path / "sound.m4a")) == "no_frames"


def test_permission_denied(tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes((clips / "late.mp4").read_bytes())
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything

        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(os, "open", refuse)
    assert code(path) == "permission_denied"


def test_an_mp4_without_its_index_is_truncated(tmp_path: Path, clips: Path) -> None:
    whole = (clips / "late.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    assert code(tmp_path / "half.mp4") == "truncated"


def test_a_truncated_file_keeps_the_frames_that_are_there(tmp_path: Path, clips: Path) -> None:
    path = write(tmp_path / "fast.mp4", pan(40), crf="10")
    first = tmp_path / "first.mp4"  # the same with its index in front
    with (
        av.open(str(path)) as source,
        av.open(str(first), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    whole = first.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    found = score(cut)
    assert (found.status, found.error and found.error.code) == ("partial", "truncated")
    expected = score(first).frames
    assert 10 < len(found.frames) < 40
    intact = found.frames[:-2]  # the cut goes through the last
    assert intact == expected[: len(intact)]


def test_a_damaged_packet_costs_its_own_frame(tmp_path: Path, clips: Path) -> None:
    expected = score(clips / "intra.mov").frames
    data = bytearray((clips / "intra.mov").read_bytes())
    with av.open(str(clips / "intra.mov")) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    at, size = places[7]
    data[at : at + size] = bytes(size)
    path = tmp_path / "damaged.mov"
    path.write_bytes(data)
    found = score(path)
    assert found.status == "partial"
    assert found.error is None
    assert [row.frame for row in found.frames] == list(range(20))
    assert [row.error.code for row in found.frames if row.error] == ["corrupt"]
    assert found.frames[7].error is not None
    assert found.frames[:7] + found.frames[8:] == expected[:7] + expected[8:]


def test_bytes_that_are_wrong_anywhere_never_crash(tmp_path: Path, clips: Path) -> None:
    for name, step in (("late.mp4", 1711), ("early.mkv", 1733)):
        whole = (clips / name).read_bytes()
        for at in range(step, len(whole), max(len(whole) // 6, step)):
            data = bytearray(whole)
            data[at : at + 200] = os.urandom(len(data[at : at + 200]))
            path = tmp_path / name
            path.write_bytes(data)
            found = score(path, scenes=False)
            assert found.frames or found.error


def test_a_duration_that_is_a_lie_is_not_believed(tmp_path: Path, clips: Path) -> None:
    data = bytearray((clips / "early.mkv").read_bytes())
    at = data.index(b"\x44\x89\x88") + 3  # Duration, a float64 of milliseconds
    data[at : at + 8] = struct.pack(">d", 36e6)
    path = tmp_path / "endless.mkv"
    path.write_bytes(data)
    found = score(path)
    assert found.info is not None
    assert found.info.duration_s == 36_000
    assert (found.status, len(found.frames), found.notes) == ("ok", 40, ("ends_early",))
    assert found.worst_window is not None
    assert found.worst_window.end_s <= 1.7


def test_ranges_without_frames(clips: Path) -> None:
    assert code(clips / "late.mp4", sampling=Sampling(start_s=100)) == "no_frames"
    assert code(clips / "late.mp4", sampling=Sampling(start_s=0.001, end_s=0.002)) == "no_frames"


def test_limits_hold(clips: Path) -> None:
    small = VideoLimits(max_pixels=1000)
    assert code(clips / "late.mp4", limits=small) == "too_many_pixels"
    found = score(clips / "late.mp4", limits=VideoLimits(max_frames=10))
    assert (found.status, len(found.frames)) == ("partial", 10)
    assert found.error is not None
    assert found.error.code == "too_many_frames"


def test_a_size_over_the_limit_in_mid_stream_is_not_decoded(tmp_path: Path) -> None:
    small = write(tmp_path / "a.ts", pan(10), codec="mpeg2video").read_bytes()
    large = write(tmp_path / "b.ts", pan(10, 640, 480), codec="mpeg2video").read_bytes()
    both = tmp_path / "both.ts"
    both.write_bytes(small + large)
    found = score(both, limits=VideoLimits(max_pixels=20_000))
    scored = [row.frame for row in found.frames if row.error is None]
    assert scored == list(range(len(scored)))
    assert 9 <= len(scored) <= 10  # the decoder may have held one back
    assert found.status == "partial"


def test_an_unknown_codec_is_named(tmp_path: Path, clips: Path) -> None:
    data = (clips / "late.mp4").read_bytes()
    assert data.count(b"avc1") >= 1
    path = tmp_path / "odd.mp4"
    path.write_bytes(data.replace(b"avc1", b"zzz9"))
    assert code(path) == "unsupported_codec"


def test_playlists_open_no_other_file(tmp_path: Path, clips: Path) -> None:
    path = tmp_path / "list.m3u8"
    target = clips / "early.mkv"
    path.write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{target}\n#EXTINF:1,\nhttp://192.0.2.1/x.ts\n")
    with pytest.raises(GiqaError), read_frames(path) as frames:
        next(frames)
