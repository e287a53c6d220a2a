"""How long a client waits, and when it asks again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from giqa import checks
from giqa.errors import GiqaError, OverloadedError, ServerUnavailableError

GRACE_S = 3.0
"""How much longer than its deadline a request may live in the server, and a client's close waits.
Old servers (2.51) can crash when a request under way is cancelled, as their gRPC frontend uses the
call's state after it was freed: it is left to end by itself. A client that is killed can still
bring one down; `giqa serve` has it back in about 8 s, and clients ask again."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """When a request is sent again: if the server was not there or its queue full.

    Attributes:
        attempts: most times that a request is sent.
        base_s: longest pause before the second time in seconds; doubles each time. The pause is
            drawn evenly between zero and that, so that clients do not come back together.
        max_s: longest pause of all.
    """

    attempts: int = 8
    base_s: float = 0.1
    max_s: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        checks.whole("attempts", self.attempts)
        checks.number("base_s", self.base_s, 0)
        checks.number("max_s", self.max_s, 0)

    def pause(self, attempt: int, error: GiqaError) -> float | None:
        """Seconds to wait after a failure; None if it must not be sent again.

        Args:
            attempt: how many times it was sent.
            error: how it failed.
        """
        if attempt >= self.attempts:
            return None
        if not isinstance(error, (ServerUnavailableError, OverloadedError)):
            return None
        longest = self.base_s * 2 ** min(attempt - 1, 60)
        return random.uniform(0, min(self.max_s, longest))
