"""What lies behind a gateway: servers with their bundles, and how much they are given at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from giqa.bundle import load_bundle
from giqa.client import AsyncTritonScorer
from giqa.errors import EngineMismatchError, GiqaError, OverloadedError, ServerUnavailableError
from giqa.kserve import BUNDLE_DIGEST, SERVICE, Connection, messages
from giqa.serving._gateway_checks import Checks
from giqa.serving._gateway_options import Backend, GatewayOptions


class Room:
    """Lets so many bytes through at the same time; who does not fit waits in turn."""

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    async def enter(self, size: int, patience_s: float) -> None:
        """Wait for room; one that is larger than all of it goes alone.

        Raises:
            OverloadedError: there was none in time.
        """
        try:
            async with asyncio.timeout(patience_s), self._turn:
                while self._used and self._used + size > self._most:
                    self._freed.clear()
                    await self._freed.wait()
                self._used += size
        except TimeoutError:
            raise OverloadedError("too many bytes are under way") from None

    def leave(self, size: int) -> None:
        """Give the room back."""
        self._used -= size
        self._freed.set()


def not_yet(error: GiqaError) -> GiqaError:
    """An ensemble of ours that is not there is about to be loaded: who waits gets an answer."""
    if isinstance(error, EngineMismatchError) and "unknown model" in error.message:
        return ServerUnavailableError("is being loaded", item=error.item)
    return error


class Upstream:
    """The channel to a backend and what is known of its bundle."""

    def __init__(self, backend: Backend, options: GatewayOptions) -> None:
        self.backend = backend
        self.bundle = load_bundle(backend.bundle)
        self.connection = Connection(host=backend.target)
        self.channel = self.connection.channel(aio=True)
        self.checks = Checks(
            self.bundle.manifest,
            options.device,
            options.max_batch,
            options.limits,
            shared_memory=options.client_shared_memory,
        )
        self.infer = self.method("ModelInfer")
        # Appended to an answer: whose it is.
        marked = messages().ModelInferResponse()
        marked.parameters[BUNDLE_DIGEST].string_param = self.bundle.digest
        self.mark: bytes = marked.SerializeToString()
        self.under_way = 0
        self._scorer: AsyncTritonScorer | None = None
        self._limits = options.limits
        self._opening = asyncio.Lock()

    def method(self, name: str) -> Any:
        """A method that takes and gives bytes as they are."""
        return self.channel.unary_unary(f"/{SERVICE}/{name}")

    async def scorer(self) -> AsyncTritonScorer:
        """Whoever asks for one image, row and all; connected when first asked."""
        async with self._opening:
            if self._scorer is None:
                found = AsyncTritonScorer(
                    self.connection,
                    bundle=self.bundle,
                    in_flight=64,
                    deadline_s=60,
                    limits=self._limits,
                )
                await found.open()
                self._scorer = found
            return self._scorer

    async def finish(self) -> None:
        """Close when nothing is under way any more."""
        while self.under_way:
            await asyncio.sleep(0.1)
        await self.close()

    async def close(self) -> None:
        if self._scorer is not None:
            await self._scorer.close()
        await self.channel.close()
