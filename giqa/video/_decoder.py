"""Packets to pictures, and what a decoder with several threads loses at damage."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from giqa import forks

_HELD = 64 * 2**20
"""Most bytes of packets that are kept to be decoded again."""


class _Number(int):
    """A packet's number, as an object of its own.

    PyAV finds what was given to a packet by its address. Small integers have one address in the
    whole process: of two videos read at once, each would take the other's away.
    """


class PictureDecoder:
    """Decodes with several threads until damage is met, from there on with one.

    With several threads, FFmpeg decodes frames beside each other: after an error, and at the end of
    the stream, it drops pictures that were ready, and libdav1d gives none any more. So the packets
    since the last keyframes are kept; where something is missing, a decoder with one thread decodes
    them again, and gives what is there. What is damaged is rare: its speed matters less.

    Args:
        context: the stream's decoder, not yet open.
        again: opens the file anew and gives its decoder.
        keyframes: decode keyframes alone.
    """

    def __init__(self, context: Any, again: Callable[[], Any], *, keyframes: bool = False) -> None:
        from av.error import EOFError, FFmpegError

        self._end, self._failed = EOFError, FFmpegError
        self._ended = EOFError, FFmpegError, ValueError
        self._again, self._keyframes = again, keyframes
        self._context = forks.keep(self)._prepared(context)
        self._careful, self._stuck = False, False
        self._groups: deque[list[Any]] = deque()
        self._bytes = 0
        self._number = 0
        self._given: set[int] = set()

    def _prepared(self, context: Any) -> Any:
        context.copy_opaque = True  # a picture tells of which packet it is
        if self._keyframes:
            context.skip_frame = "NONKEY"
        return context

    def __call__(self, packet: Any) -> Iterator[Any]:
        """Decode a packet, or with None what the decoder still holds.

        Yields:
            Pictures in order of presentation; None for each packet that cannot be decoded.
        """
        if packet is not None:
            packet.opaque = _Number(self._number)
            self._number += 1
            self._keep(packet)
        found = self._decode(packet)
        lost = found is None or (packet is None and self._missing(found))
        if lost and not self._careful and self._whole:
            self._careful = True
            self.close()
            self._context = self._prepared(self._again())
            kept = [one for group in self._groups for one in group]
            self._groups.clear()
            for one in kept:
                yield from self._new(self._decode(one))
            if packet is None:
                yield from self._new(self._decode(None))
            return
        yield from self._new(found)
        if not self._careful:
            self._forget()

    def close(self) -> None:
        """Let its threads end their work; call it before the decoder is freed.

        FFmpeg's threads give packets' numbers back to Python. Freeing a decoder holds Python's lock
        and waits for its threads: with work left, both would wait for ever.
        """
        with suppress(*self._ended):
            while self._context.is_open and self._context.decode(None):
                pass

    @property
    def _whole(self) -> bool:
        """Whether decoding can begin at the first packet that is kept."""
        first = self._groups[0][0] if self._groups else None
        return first is not None and (first.is_keyframe or first.opaque == 0)

    def _decode(self, packet: Any) -> list[Any] | None:
        try:
            if self._stuck and packet is not None and packet.is_keyframe:
                self._context.flush_buffers()
                self._stuck = False
            return list(self._context.decode(packet))
        except self._end:
            return []
        except self._failed:
            # It may refuse all that follows, even what can be decoded.
            self._stuck = self._careful and self._context.name == "libdav1d"
            return None

    def _new(self, found: list[Any] | None) -> Iterator[Any]:
        """What was not given yet."""
        if found is None:
            yield None
            return
        for picture in found:
            if picture.opaque not in self._given:
                if not self._careful and picture.opaque is not None:
                    self._given.add(picture.opaque)
                yield picture

    def _missing(self, found: list[Any]) -> bool:
        told = self._given | {p.opaque for p in found}
        return any(one.opaque not in told for group in self._groups for one in group)

    def _keep(self, packet: Any) -> None:
        if self._careful:
            return
        if packet.is_keyframe or not self._groups:
            self._groups.append([])
        self._groups[-1].append(packet)
        self._bytes += packet.size
        if self._bytes > _HELD:
            self._drop()

    def _forget(self) -> None:
        """Drop what is before the last keyframe whose successor has been given, too.

        One keyframe more than the pictures need that come next: leading ones need the last but one.
        """
        while len(self._groups) > 2 and self._groups[2][0].opaque in self._given:
            self._drop()

    def _drop(self) -> None:
        for packet in self._groups.popleft():
            self._bytes -= packet.size
            self._given.discard(packet.opaque)
