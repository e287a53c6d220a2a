"""Odd clips, each standing for a kind, all of the same pictures: what each must give."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

from tests.clips import pan, write
from tests.oracle import COLOURS, MATRICES, coded, signal_of
from tests.oracle import write as lossless
from tests.photos import scene

COUNT, WIDTH, HEIGHT, RATE, GOP = 24, 320, 192, 25, 6
PICTURES = list(pan(COUNT, WIDTH, HEIGHT, of=scene(WIDTH + 2 * COUNT, HEIGHT + COUNT)))
Picture = npt.NDArray[np.uint8]
Packets = Callable[[av.Packet], object]
Maker = Callable[[Path], Path]


def base(folder: Path) -> Path:
    """H.264 with frames in another order than they are shown in; once per folder."""
    path = folder / "base.mp4"
    if not path.exists():
        write(path, PICTURES, tune="psnr", bf="3", crf="10", gop=GOP)
    return path


def remuxed(source: Path, target: Path, change: Packets = id, **options: str) -> Path:
    """The same packets in another container, each changed on its way."""
    with av.open(str(source)) as a, av.open(str(target), "w", options=options) as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        for packet in a.demux(video=0):
            if packet.size:
                change(packet)
                packet.stream = stream
                b.mux(packet)
    return target


def untimed(folder: Path, suffix: str) -> Path:
    """The same packets where they have no times of showing, or those of decoding."""
    bare = remuxed(base(folder), folder / "odd.h264")
    if suffix == "h264":
        return bare
    numbers = itertools.count()

    def by_dts(packet: av.Packet) -> None:
        packet.time_base, packet.duration = Fraction(1, RATE), 1
        packet.pts = packet.dts = next(numbers)

    source = base(folder) if suffix == "mp4" else bare
    return remuxed(source, folder / f"odd.{suffix}", by_dts)


def moved(folder: Path, seconds: float, suffix: str = "ts") -> Path:
    """The clip with another clock."""

    def by(packet: av.Packet) -> None:
        for name in ("pts", "dts"):
            setattr(packet, name, getattr(packet, name) + round(seconds / packet.time_base))

    options = {"avoid_negative_ts": "disabled"} if seconds < 0 else {}
    return remuxed(base(folder), folder / f"moved{seconds}.{suffix}", by, **options)


def joined(folder: Path, *parts: Path) -> Path:
    """Transport streams one behind the other."""
    (path := folder / "joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def coded_by(folder: Path, suffix: str, codec: str, **options: object) -> Path:
    """The pictures by another encoder."""
    return write(folder / f"{codec}.{suffix}", PICTURES, codec=codec, gop=GOP, **options)


def mjpeg(folder: Path, suffix: str = "avi") -> Path:
    """The pictures as JPEGs."""
    return coded_by(folder, suffix, "mjpeg", pixels="yuvj420p", qmin="2", qmax="2")


def vp9(folder: Path) -> Path:
    """The pictures as VP9, with frames that are not shown."""
    options = {"lag-in-frames": "16", "auto-alt-ref": "1", "crf": "10", "cpu-used": "5"}
    return coded_by(folder, "webm", "libvpx-vp9", **options)


def av1(folder: Path) -> Path:
    """The pictures as AV1."""
    return coded_by(folder, "mkv", "libsvtav1", preset="12", crf="12")


def mpeg2(folder: Path, **options: str) -> Path:
    """The pictures as MPEG-2."""
    return coded_by(folder, "ts", "mpeg2video", bit_rate=20_000_000, **options)


def fragments(folder: Path) -> Path:
    """MP4 without an index."""
    flags = "frag_keyframe+empty_moov+default_base_moof"
    return remuxed(base(folder), folder / "frag.mp4", movflags=flags)


def index_first(folder: Path) -> Path:
    """MP4 with its index before the pictures."""
    return remuxed(base(folder), folder / "fast.mp4", movflags="faststart")


def mpeg4(folder: Path) -> Path:
    """The pictures as MPEG-4 with frames in another order."""
    return coded_by(folder, "avi", "mpeg4", bf="2", qmin="1", qmax="2")


def prores(folder: Path) -> Path:
    """The pictures as ProRes."""
    return coded_by(folder, "mov", "prores_ks", pixels="yuv422p10le", profile="3")


def cut(path: Path, share: float = 0.6) -> Path:
    """That share of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def without_start(path: Path) -> Path:
    """A transport stream from behind its first keyframe on."""
    with av.open(str(path)) as container:
        fourth = [p.pos for p in container.demux(video=0) if p.size][3]
    data = path.read_bytes()
    path.write_bytes(data[: 188 * 2] + data[fourth // 188 * 188 :])
    return path


def long_packet(path: Path, back: int) -> Path:
    """A packet near the end claims more than there is."""
    with av.open(str(path)) as container:
        place = [p.pos for p in container.demux(video=0) if p.size][-back]
    data = bytearray(path.read_bytes())
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    return path


def hit(path: Path, times: int = 12, seed: int = 3) -> Path:
    """Some bytes are others, in what is behind the first pictures."""
    draw, data = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(times):
        at = draw.randrange(len(data) * 2 // 5, len(data) * 9 // 10)
        data[at : at + 20] = draw.randbytes(20)
    path.write_bytes(data)
    return path


def in_colours(folder: Path, colour: str, bits: int = 10) -> Path:
    """One picture, lossless, in colours that are told."""
    matrix, primaries, transfer, _ = COLOURS[colour]
    planes = coded(signal_of(PICTURES[0] / 255, colour), matrix, (1, 1), bits, False)
    tags = (MATRICES[matrix][0], primaries, transfer, 1)
    return lossless(folder / "colours.mkv", planes, f"yuv444p{bits}le", tags)


def transparent(folder: Path, suffix: str, codec: str, pixels: str, **options: str) -> Path:
    """The pictures, their left half transparent."""
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:, : WIDTH // 2] = 0
    with av.open(str(folder / f"alpha.{suffix}"), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        for picture in PICTURES[:4]:
            frame = av.VideoFrame.from_ndarray(np.dstack([picture, alpha]), "rgba")
            container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode())
    return folder / f"alpha.{suffix}"


def over_white(picture: Picture) -> Picture:
    """What a transparent picture shows."""
    shown = picture.copy()
    shown[:, : WIDTH // 2] = 255
    return shown


@dataclass(frozen=True)
class Clip:
    """What an odd clip must give.

    Attributes:
        of: makes the whole clip in an empty folder; its frames, as FFmpeg alone shows them, are
            what the odd one's show. None: the pictures themselves.
        make: makes the odd one; None: it is the whole one.
        frames: how many good frames at least and at most.
        notes: what the video must say.
        may: what it may say, too.
        status: `ok` or `partial`; None: either, with a note or a row that tells of what is not
            there.
        within: points that a frame's score is from that of its picture as PNG, at most.
        first: the picture that the first good frame shows.
        sure: how many frames, from the first on, must be right.
        shown: what is made of a picture before it is shown; None: nothing.
    """

    of: Maker | None
    make: Maker | None = None
    frames: tuple[int, int] = (COUNT, COUNT)
    notes: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    status: str | None = "ok"
    within: float = 2
    first: int = 0
    sure: int = 2 * COUNT
    shown: Callable[[Picture], Picture] | None = None

    def file(self, folder: Path) -> Path:
        """The odd one."""
        make = self.make or self.of
        assert make is not None
        return make(folder)


def decoded(path: Path) -> list[Picture]:
    """All frames by FFmpeg's own decoder, by its conversion of most care."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    careful = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    return [frame.to_ndarray(format="rgb24", interpolation=careful) for frame in frames]


def _notes(*names: str) -> frozenset[str]:
    return frozenset(names)


def _hit(of: Maker, make: Maker | None = None) -> Clip:
    """Some of its frames are wrong or missing, and it says so; not all that a decoder tells of."""
    may = _notes("ends_early", "timestamps_jumped", "damaged")
    count = (GOP, COUNT)
    return Clip(of, lambda f: hit((make or of)(f)), count, may=may, status=None, sure=GOP)


def _cut(of: Maker, make: Maker | None = None) -> Clip:
    """Its end is missing."""
    said, may = _notes("ends_early"), _notes("damaged")  # a part of the last frame
    return Clip(of, lambda f: cut((make or of)(f)), (6, COUNT - 4), said, may, status=None)


def _alpha(suffix: str, codec: str, pixels: str, **options: str) -> Clip:
    def make(folder: Path) -> Path:
        return transparent(folder, suffix, codec, pixels, **options)

    said = _notes("alpha_flattened")
    return Clip(None, make, (4, 4), said, shown=over_white, within=3 if "vp9" in codec else 1)


def _colour(colour: str, *said: str, bits: int = 10) -> Clip:
    return Clip(None, lambda f: in_colours(f, colour, bits), (1, 1), _notes(*said), within=1)


def _long_packet(back: int) -> Clip:
    count = (COUNT - 1, COUNT - 1)
    return Clip(base, lambda f: long_packet(base(f), back), count, status="partial")


def _glued(first: float, second: float) -> Clip:
    def make(folder: Path) -> Path:
        return joined(folder, moved(folder, first), moved(folder, second))

    return Clip(base, make, (2 * COUNT, 2 * COUNT), _notes("timestamps_jumped"))


CLIPS: dict[str, Clip] = {
    "as it is": Clip(base),
    "H.264 in AVI": Clip(base, lambda f: untimed(f, "avi")),
    "H.264 without times in MP4": Clip(base, lambda f: untimed(f, "mp4")),
    "H.264 without a container": Clip(base, lambda f: untimed(f, "h264")),
    "MPEG-4 in AVI": Clip(mpeg4),
    "times below zero": Clip(base, lambda f: moved(f, -0.4, "mkv")),
    "VP9 with hidden frames": Clip(vp9),
    "AV1": Clip(av1),
    "JPEGs in AVI": Clip(mjpeg),
    "ProRes": Clip(prores),
    "MPEG-2": Clip(mpeg2),
    "an interlaced flag on whole pictures": Clip(mpeg2, lambda f: mpeg2(f, flags="+ildct+ilme")),
    "HDR10": _colour("BT.2020, PQ", "hdr_mapped"),
    "HLG": _colour("BT.2020, HLG", "hdr_mapped"),
    "BT.2020, SDR": _colour("BT.2020, SDR"),
    "BT.601": _colour("BT.601"),
    "12 bits of PQ": _colour("BT.2020, PQ", "hdr_mapped", bits=12),
    "transparent VP9": _alpha("webm", "libvpx-vp9", "yuva420p", crf="4", **{"auto-alt-ref": "0"}),
    "transparent ProRes": _alpha("mov", "prores_ks", "yuva444p10le", profile="4444"),
    "transparent QuickTime animation": _alpha("mov", "qtrle", "argb"),
    "transparent APNG": _alpha("apng", "apng", "rgba"),
    "a packet too long, the last": _long_packet(1),
    "a packet too long, the last but one": _long_packet(2),
    "MP4 in fragments, cut": _cut(base, fragments),
    "MP4 with its index first, cut": _cut(base, index_first),
    "WebM, cut": _cut(vp9),
    "AVI, cut": _cut(mjpeg),
    "a stream that begins late": Clip(
        base,
        lambda f: without_start(moved(f, 0)),
        (COUNT - GOP, COUNT - GOP),
        _notes("starts_late"),
        status=None,
        first=GOP,
    ),
    "a clock that falls back": _glued(3600, 0),
    "a clock that jumps on": _glued(0, 3600),
    "another codec in mid-stream": Clip(
        mpeg2,
        lambda f: joined(f, mpeg2(f), moved(f, 0)),
        (COUNT - 1, COUNT),
        _notes("codec_changed", "damaged"),
        may=_notes("timestamps_jumped"),
        status="partial",
    ),
    "bytes changed, MP4": _hit(base, index_first),
    "bytes changed, TS": _hit(base, lambda f: moved(f, 0)),
    "bytes changed, AV1": _hit(av1),
    "bytes changed, MPEG-2": _hit(mpeg2),
    "bytes changed, ProRes": _hit(prores),
}
"""By name; `tests/e2e/test_cases.py` reads each."""
