"""System shared memory: inputs go to a server on the same machine without being sent."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Mapping
from multiprocessing.shared_memory import SharedMemory

from giqa.errors import StorageFullError
from giqa.kserve import Place, Tensor

_PAGE = 1 << 20
_FOLDER = "/dev/shm"


class Region:
    """A piece of shared memory that the server has mapped.

    Its name is removed as soon as the server has mapped it: nothing is left behind, however this
    process ends.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = -(-size // _PAGE) * _PAGE
        # A server keeps the regions of clients that died; process numbers come again.
        self.name = f"giqa-{uuid.uuid4().hex}"
        _check_room(self.size)
        self.registered = False
        self._memory = SharedMemory(create=True, size=self.size)

    @property
    def key(self) -> str:
        """What the server opens."""
        return f"/{self._memory.name}"

    def set_registered(self) -> None:
        """The server has mapped it: remove its name, so that a killed client leaves no file."""
        self.registered = True
        self._memory.unlink()

    def fill(self, tensors: Mapping[str, Tensor]) -> dict[str, Place]:
        """Copy inputs into the region.

        Returns:
            Where each lies.
        """
        places, start = {}, 0
        assert self._memory.buf is not None
        for name, tensor in tensors.items():
            size = len(tensor.data)
            self._memory.buf[start : start + size] = bytes(tensor.data)
            places[name] = Place(self.name, start, size)
            start += size
        return places

    def close(self) -> None:
        """Free it; a second time does nothing."""
        if self._memory.buf is None:
            return
        if not self.registered:
            self._memory.unlink()
        self._memory.close()


class Regions:
    """Regions used again and again; safe to use from several threads."""

    def __init__(self) -> None:
        self._free: list[Region] = []
        self._all: set[Region] = set()
        self._doubtful: set[Region] = set()
        self._lock = threading.Lock()

    def take(self, tensors: Mapping[str, Tensor]) -> tuple[Region, Region | None]:
        """Find room for tensors.

        Returns:
            A region that they fit into, not registered yet if it is new, and the smaller one that
            it replaces, to be unregistered and closed: there are never more than are in use at
            the same time.

        Raises:
            StorageFullError: there is not enough shared memory.
        """
        size = sum(len(tensor.data) for tensor in tensors.values())
        with self._lock:
            self._free.sort(key=lambda region: (region not in self._doubtful, region.size))
            for i, region in enumerate(self._free):
                if region.size >= size and region not in self._doubtful:
                    return self._free.pop(i), None
            replaced = self._free.pop(0) if self._free else None
            if replaced is not None:
                self._all.discard(replaced)
                self._doubtful.discard(replaced)
            region = Region(size)
            self._all.add(region)
            return region, replaced

    def forget(self, unknown: Region) -> list[Region]:
        """Take out one that the server does not know any more, and all that are not in use.

        What is in use is replaced when it has come back: an answer from before the server's
        restart may arrive after this.

        Returns:
            Them, to be unregistered (one may be newer than the server's restart) and closed.
        """
        with self._lock:
            gone, self._free = [unknown, *self._free], []
            self._all.difference_update(gone)
            # Each would cost an image an attempt when it comes back.
            self._doubtful = set(self._all)
            return gone

    def give(self, region: Region) -> None:
        """Put a region back."""
        with self._lock:
            self._free.append(region)

    def drop(self, region: Region) -> None:
        """Forget a region that the server does not know any more."""
        with self._lock:
            self._all.discard(region)
            self._doubtful.discard(region)
        region.close()

    def drain(self) -> list[Region]:
        """Take all regions out, to unregister and close them."""
        with self._lock:
            found = list(self._all)
            self._all.clear()
            self._free.clear()
            self._doubtful.clear()
            return found


def _check_room(size: int) -> None:
    """Writing into memory that is not there would end the process with SIGBUS."""
    free = os.statvfs(_FOLDER)
    if free.f_bavail * free.f_frsize < size:
        raise StorageFullError(
            f"{size} bytes of shared memory are not to be had",
            item=_FOLDER,
            remedy="give it more (docker run --shm-size), or do without",
        )
