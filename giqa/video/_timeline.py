"""Where frames stand in a video, told from packets alone: nothing needs to be decoded for it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

_JUMP_S = Fraction(1, 10)
"""Timestamps that fall back by more than this begin anew; by less, they are untidy."""

_HELD = 64 * 2**20
"""Most bytes of packets held back while looking for the last keyframe before the start."""


class Clock:
    """Makes timestamps go on where they jump back, as in files that were glued together.

    Args:
        time_base: seconds of one tick.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._jump = _JUMP_S / time_base
        self._offset = 0
        self._last: int | None = None
        self._step = 1
        self.jumped = False

    def set(self, packet: Any) -> None:
        """Move a packet's timestamps onto the continued time; call it on each, in file order."""
        stamp = packet.dts
        if stamp is not None:
            if self._last is not None and stamp + self._offset < self._last - self._jump:
                self._offset = self._last + self._step - stamp
                self.jumped = True
            self._last = stamp + self._offset
            self._step = packet.duration or 1
        if self._offset:
            packet.pts = None if packet.pts is None else packet.pts + self._offset
            packet.dts = None if packet.dts is None else packet.dts + self._offset


class Ranks:
    """Numbers frames in order of presentation: a frame's index is how many packets come before.

    Packets come in another order than frames, but a decoder gives a frame only when it has had
    all that are shown earlier. So what waits here is as much as the decoder reorders.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, bool]] = []
        self._passed = 0

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

    def number(self, pts: int) -> int:
        """Index of the frame shown at `pts`; call `before` first."""
        number = self._passed
        if self._waiting and self._waiting[0][0] == pts:
            heapq.heappop(self._waiting)
            self._passed += 1
        return number


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
