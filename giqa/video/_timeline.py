"""Where frames stand in a video, told from packets alone: nothing needs to be decoded for it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_JUMP_S = Fraction(1, 10)
"""Timestamps that fall back by more than this begin anew; by less, they are untidy."""

_GAP_S = 10
"""Timestamps that jump on by more than this begin anew, where clocks run by themselves: broadcasts
have no frame that long, but files glued together have other clocks."""

_FREE = ("mpegts", "mpeg", "vob")
"""Containers (FFmpeg's names) whose clock may have any value."""

_HELD = 64 * 2**20
"""Most bytes of packets held back while looking for the last keyframe before the start."""


class Clock:
    """Makes timestamps go on where they jump, as in files that were glued together.

    Args:
        time_base: seconds of one tick.
        container: FFmpeg's name of the file format.
    """

    def __init__(self, time_base: Fraction, container: str = "") -> None:
        self._jump = _JUMP_S / time_base
        self._gap = _GAP_S / time_base if container in _FREE else None
        self._offset = 0
        self._last: int | None = None
        self._step = 1
        self.jumped = False

    def set(self, packet: Any) -> None:
        """Move a packet's timestamps onto the continued time; call it on each, in file order."""
        stamp = packet.dts
        if stamp is not None:
            if self._last is not None:
                ahead = stamp + self._offset - self._last
                if ahead < -self._jump or (self._gap is not None and ahead > self._gap):
                    self._offset = self._last + self._step - stamp
                    self.jumped = True
            self._last = stamp + self._offset
            self._step = packet.duration or 1
        if self._offset:
            packet.pts = None if packet.pts is None else packet.pts + self._offset
            packet.dts = None if packet.dts is None else packet.dts + self._offset


@dataclass(frozen=True)
class Bookmark:
    """A keyframe at which reading can begin, with what is known there of all that comes before.

    Attributes:
        pts: its time as the container has it, in ticks.
        dts: its time of decoding; None where the container has none.
        size: its packet's size in bytes.
        packets: how many of the stream's packets come before it in the file.
        rank: how many frames are shown before it.
        origin: time of the video's first frame, in ticks.
    """

    pts: int
    dts: int | None
    size: int
    packets: int
    rank: int
    origin: int


class Ranks:
    """Numbers frames in order of presentation: a frame's index is how many packets come before.

    Packets come in another order than frames, but a decoder gives a frame only when it has had
    all that are shown earlier. So what waits here is as much as the decoder reorders.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, bool]] = []
        self._passed = 0

    def begin(self, rank: int) -> None:
        """Begin where `rank` frames were shown before."""
        self._passed = rank

    @property
    def listed(self) -> list[tuple[int, bool]]:
        """Times of all frames that were noted and not passed, and whether each is a keyframe."""
        return sorted(self._waiting)

    def add(self, pts: int, key: bool) -> None:
        """Note a packet that will be shown at `pts`."""
        heapq.heappush(self._waiting, (pts, key))

    def before(self, pts: int | None) -> list[tuple[int, int, bool]]:
        """Pass all that is shown before `pts` (None: all) and was not asked for.

        Returns:
            Index, pts and whether it is a keyframe, of each.
        """
        passed = []
        while self._waiting and (pts is None or self._waiting[0][0] < pts):
            passed.append((self._passed, *heapq.heappop(self._waiting)))
            self._passed += 1
        return passed

    def number(self, pts: int) -> tuple[int, int]:
        """Index and time of the frame that the decoder gives for `pts`; call `before` first."""
        number = self._passed
        self._passed += 1
        if self._waiting and self._waiting[0][0] <= pts:
            heapq.heappop(self._waiting)
        return number, pts

    @property
    def waiting(self) -> int:
        """How many frames are to come."""
        return len(self._waiting)


class Order(Ranks):
    """Numbers frames as they come, where packets' times are not those of their own frames.

    AVI and bare streams have no times of presentation, and some MP4 files have those of decoding in
    their place. Decoders give frames in order of presentation all the same: the n-th has the n-th
    smallest time.

    Args:
        step: ticks from one frame to the next, for times that are there twice.
    """

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step
        self._last: int | None = None

    def before(self, pts: int | None) -> list[tuple[int, int, bool]]:
        """Nothing is told to be missing: the next frame has the next time."""
        return []

    def number(self, pts: int) -> tuple[int, int]:
        """Index and time of the next frame."""
        number = self._passed
        self._passed += 1
        found = heapq.heappop(self._waiting)[0] if self._waiting else pts
        if self._last is not None and found <= self._last:
            found = self._last + self._step
        self._last = found
        return number, found


class Stamps:
    """Gives packets without a time one: that of decoding, or one by the rate.

    Args:
        step: ticks from one frame to the next.
        decoding: take that of decoding even where there is another, which was guessed.
    """

    def __init__(self, step: int, *, decoding: bool) -> None:
        self._step = max(step, 1)
        self._decoding = decoding
        self._last: int | None = None

    def begin(self, packets: list[Any]) -> None:
        """Count back to the first packets from the first one that has a time."""
        known = ((i, self._stamp(p)) for i, p in enumerate(packets))
        at, stamp = next(((i, s) for i, s in known if s is not None), (0, 0))
        self._last = stamp - (at + 1) * self._step

    def set(self, packet: Any) -> None:
        """Fill in a packet's time; call it on each, in file order."""
        stamp = self._stamp(packet)
        if stamp is None:
            stamp = (self._last or 0) + self._step
        self._last = packet.pts = stamp

    def _stamp(self, packet: Any) -> int | None:
        both: tuple[int | None, int | None] = (packet.pts, packet.dts)
        first, other = reversed(both) if self._decoding else both
        return other if first is None else first


def by_order(packets: list[Any], container: str, *, reorders: bool) -> bool:
    """Whether packets' times are not those of their own frames (see `Order`).

    Args:
        packets: the first ones.
        container: FFmpeg's name of the file format.
        reorders: whether the decoder gives frames in another order than packets come in.
    """
    times = [packet.pts for packet in packets]
    # Program streams tell few times; FFmpeg's guesses at the others meet.
    unsure = None in times or len(set(times)) < len(times) or container == "avi"
    return reorders and (unsure or all(p.pts == p.dts for p in packets))


def hidden(codec: str, packet: Any) -> bool:
    """Whether a packet of VP8 or VP9 holds only frames that are not shown.

    Args:
        codec: FFmpeg's name of the decoder.
        packet: a packet with bytes.
    """
    if codec in ("vp8", "libvpx"):
        return not memoryview(packet)[0] & 0x10
    if codec in ("vp9", "libvpx-vp9"):
        return not any(map(_vp9_shown, _vp9_frames(bytes(packet))))
    return False


def _vp9_frames(data: bytes) -> list[bytes]:
    """The frames of a packet: one, or those of a superframe (VP9 specification, annex B)."""
    last = data[-1]
    if last & 0xE0 == 0xC0:
        count, width = (last & 7) + 1, (last >> 3 & 3) + 1
        size = 2 + count * width
        if len(data) > size and data[-size] == last:
            index = data[1 - size : -1]
            found, at = [], 0
            for i in range(count):
                length = int.from_bytes(index[i * width : (i + 1) * width], "little")
                found.append(data[at : at + length])
                at += length
            return found
    return [data]


def _vp9_shown(frame: bytes) -> bool:
    if not frame:
        return False
    bits = frame[0]
    if bits >> 6 != 2:
        return True  # no VP9 header: let the decoder say so
    at = 2 if bits & 0x30 == 0x30 else 3  # profile 3 has a reserved bit
    existing = bits >> at & 1
    return bool(existing or bits >> at - 2 & 1)


def from_keyframe(
    packets: Iterator[Any], start: int, passed: Callable[[int], object]
) -> Iterator[Any]:
    """Leave out the packets before the last keyframe that is shown at `start` or earlier.

    The file is read from its beginning, but nothing is decoded: seeking goes by tables that are
    missing or wrong in some files, and would leave frames without their index.

    Args:
        packets: in file order.
        start: a pts.
        passed: is told the pts of each keyframe before which nothing will be decoded.

    Yields:
        The packets to decode.
    """
    held: list[Any] = []
    size = 0
    for packet in packets:
        if packet.is_keyframe and packet.pts is not None and packet.pts <= start:
            held, size = [packet], packet.size
            passed(packet.pts)
            continue
        held.append(packet)
        size += packet.size
        if size > _HELD or (packet.dts is not None and packet.dts > start):
            break
    yield from held
    yield from packets
