"""A video's packets on a time that goes on, and what they tell of its frames without decoding."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice
from typing import Any

from giqa.errors import GiqaError
from giqa.video._stream import VideoStream
from giqa.video._timeline import (
    Bookmark,
    Clock,
    Order,
    Ranks,
    Stamps,
    by_order,
    from_keyframe,
    hidden,
)

_FIRST = 32
"""Packets among which the first frame is looked for: more than any codec reorders."""


class Packets:
    """The packets of a stream, read once; frames are counted on their way.

    Args:
        stream: the stream.
        mark: the keyframe that it stands at; None: its beginning.

    Attributes:
        ranks: the frames that were noted.
        step: ticks from one frame to the next.
        origin: time of the first frame in ticks, known with the first packet.
        jumped: whether timestamps began anew.
        torn: whether a packet is damaged.
        late: whether the file begins with no keyframe.
    """

    def __init__(self, stream: VideoStream, mark: Bookmark | None = None) -> None:
        self._stream, self._mark = stream, mark
        self._clock = Clock(stream.time_base, stream.container.format.name)
        self.step = round(1 / stream.rate / stream.time_base)
        self.ranks = Ranks()
        self.origin = 0
        self.torn = False
        self.late = False

    @property
    def jumped(self) -> bool:
        """Whether timestamps began anew."""
        return self._clock.jumped

    def read(self, start_s: float | None) -> Iterator[Any]:
        """The packets that have to be decoded for what is shown from a time on.

        Args:
            start_s: the time in seconds; None: the beginning.

        Raises:
            GiqaError: see `VideoStream.packets`.
        """
        packets = self._timed() if self._mark is None else self._resumed(self._mark)
        first = next(packets, None)  # now the origin is known
        if first is None:
            return iter(())
        packets = chain([first], packets)
        if not start_s or isinstance(self.ranks, Order):
            return packets
        start = int(Fraction(start_s) / self._stream.time_base)
        return from_keyframe(packets, self.origin + start, self.ranks.before)

    def index(self) -> tuple[list[tuple[Fraction, bool]], dict[Fraction, Bookmark]]:
        """Read all packets, and decode none.

        Returns:
            Time of each frame in seconds and whether it is a keyframe, in order; and the keyframes
            at which reading can begin, by their time: those behind which nothing earlier is shown,
            in containers whose times can be trusted.

        Raises:
            GiqaError: the file cannot be read to its end.
        """
        keys: list[tuple[int, int | None, int, int]] = []
        latest: int | None = None
        for count, packet in enumerate(self._timed()):
            if packet.is_keyframe and (latest is None or packet.pts > latest):
                keys.append((packet.pts, packet.dts, packet.size, count))
            latest = packet.pts if latest is None else max(latest, packet.pts)
        frames = self.ranks.listed
        ranks = {pts: rank for rank, (pts, _) in enumerate(frames)}
        marks: dict[Fraction, Bookmark] = {}
        if not self.jumped and not isinstance(self.ranks, Order):
            for pts, dts, size, count in keys:
                if pts in ranks:
                    mark = Bookmark(pts, dts, size, count, ranks[pts], self.origin)
                    marks[self.seconds(pts)] = mark
        return [(self.seconds(pts), key) for pts, key in frames], marks

    def seconds(self, pts: int) -> Fraction:
        """A time in ticks as seconds since the first frame."""
        return (pts - self.origin) * self._stream.time_base

    def _timed(self) -> Iterator[Any]:
        """The packets from the beginning."""
        context, container = self._stream.video.codec_context, self._stream.container.format.name

        def shown(packet: Any) -> bool:
            return not packet.is_discard and not hidden(context.name, packet)

        packets = self._clocked()
        first: list[Any] = []
        ended: list[GiqaError] = []
        try:
            first += islice(packets, _FIRST)
        except GiqaError as e:  # what was read before it is good
            ended.append(e)
        # Where FFmpeg met no header of the stream, it does not know.
        reorders = bool(context.has_b_frames or not context.width)
        ordered = by_order([p for p in first if shown(p)], container, reorders=reorders)
        if ordered:
            self.ranks = Order(self.step)
        stamps = Stamps(self.step, decoding=ordered)
        stamps.begin(first)
        for packet in first:
            stamps.set(packet)
        seen = [packet for packet in first if shown(packet)]
        self.origin = min((packet.pts for packet in seen), default=0)
        self.late = bool(first) and not first[0].is_keyframe
        for i, packet in enumerate(chain(first, packets)):
            if i >= len(first):
                stamps.set(packet)
            if shown(packet):
                self.ranks.add(packet.pts, packet.is_keyframe)
            yield packet
        if ended:
            raise ended[0]

    def _resumed(self, mark: Bookmark) -> Iterator[Any]:
        """The packets from a keyframe on, as `_timed` gives them, but for what is shown before."""
        name = self._stream.video.codec_context.name
        stamps = Stamps(self.step, decoding=False)
        self.origin = mark.origin
        self.ranks.begin(mark.rank)
        for i, packet in enumerate(self._clocked()):
            if not i:
                stamps.begin([packet])
            stamps.set(packet)
            if packet.pts >= mark.pts:
                if not packet.is_discard and not hidden(name, packet):
                    self.ranks.add(packet.pts, packet.is_keyframe)
                yield packet

    def _clocked(self) -> Iterator[Any]:
        for packet in self._stream.packets():
            self.torn |= packet.is_corrupt
            self._clock.set(packet)
            yield packet
