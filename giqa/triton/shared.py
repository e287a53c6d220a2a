"""System shared memory: inputs go to a server on the same machine without being sent."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Mapping
from multiprocessing.shared_memory import SharedMemory

from giqa.triton.wire import Place, Tensor

_PAGE = 1 << 20
_numbers = itertools.count()


class Region:
    """A piece of shared memory that the server has mapped.

    Its name is removed as soon as the server has mapped it: nothing is left behind, however this
    process ends.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = -(-size // _PAGE) * _PAGE
        self.name = f"giqa-{os.getpid()}-{next(_numbers)}"
        self.registered = False
        self._memory = SharedMemory(create=True, size=self.size)

    @property
    def key(self) -> str:
        """What the server opens."""
        return f"/{self._memory.name}"

    def set_registered(self) -> None:
        """The server has mapped it: remove its name."""
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
        """Free it."""
        if not self.registered:
            self._memory.unlink()
        self._memory.close()


class Regions:
    """Regions used again and again; safe to use from several threads."""

    def __init__(self) -> None:
        self._free: list[Region] = []
        self._all: set[Region] = set()
        self._lock = threading.Lock()

    def take(self, tensors: Mapping[str, Tensor]) -> Region:
        """A region that the tensors fit into; a new one is not registered yet."""
        size = sum(len(tensor.data) for tensor in tensors.values())
        with self._lock:
            for i, region in enumerate(self._free):
                if region.size >= size:
                    return self._free.pop(i)
            region = Region(size)
            self._all.add(region)
            return region

    def give(self, region: Region) -> None:
        """Put a region back."""
        with self._lock:
            self._free.append(region)

    def drop(self, region: Region) -> None:
        """Forget a region that the server does not know any more."""
        with self._lock:
            self._all.discard(region)
        region.close()

    def drain(self) -> list[Region]:
        """Take all regions out, to unregister and close them."""
        with self._lock:
            found = list(self._all)
            self._all.clear()
            self._free.clear()
            return found
