"""Who may come in: named tokens with limits, read again when their file changes."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from giqa.errors import OverloadedError, ServerRefusedError, UsageError

_LOOK_S = 1.0
_WORD = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,512}$")]
_NAME = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
ANYONE = "anyone"


class _Entry(BaseModel):
    """A client in a file of tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token: _WORD
    in_flight: int = Field(0, ge=0)
    per_minute: float = Field(0, ge=0, allow_inf_nan=False)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: dict[_NAME, _Entry] = Field(min_length=1)


class Client:
    """Someone who was let in, and what is under way for them.

    Attributes:
        name: for logs and metrics.
        in_flight: most requests under way; 0: no limit.
        per_minute: most requests a minute, the first of them at once; 0: no limit.
    """

    def __init__(self, name: str, in_flight: int = 0, per_minute: float = 0.0) -> None:
        self.name, self.in_flight, self.per_minute = name, in_flight, per_minute
        self._under_way = 0
        self._left, self._since = self._most, time.monotonic()

    @property
    def _most(self) -> float:
        """Most requests at once by their rate: one, where it is slower than one a minute."""
        return max(1.0, self.per_minute)

    def begin(self) -> None:
        """Count a request that begins.

        Raises:
            OverloadedError: there are too many of this client.
        """
        if self.in_flight and self._under_way >= self.in_flight:
            raise OverloadedError(f"{self.name} has {self._under_way} requests under way")
        if self.per_minute:
            now = time.monotonic()
            more = (now - self._since) * self.per_minute / 60
            self._left, self._since = min(self._most, self._left + more), now
            if self._left < 1:
                raise OverloadedError(f"{self.name} may ask {self.per_minute:g} times a minute")
            self._left -= 1
        self._under_way += 1

    def end(self) -> None:
        """Count a request that ended."""
        self._under_way -= 1

    def change(self, to: Client) -> None:
        """Take another's limits; what is under way, and what was asked, stays counted."""
        if to.per_minute and not self.per_minute:
            self._left, self._since = to._left, to._since
        self.in_flight, self.per_minute = to.in_flight, to.per_minute
        self._left = min(self._most, self._left)


class Tokens:
    """The clients of a server.

    A file holds one word, or is TOML with a table for each client::

        [tokens.team-a]
        token = "..."
        in_flight = 16     # most requests under way
        per_minute = 600   # most requests a minute

    Args:
        file: the file; None: anyone may come in.
        say: takes lines on a file that changed.

    Raises:
        UsageError: the file is neither, or cannot be read.
    """

    def __init__(self, file: Path | None, say: Callable[[str], None] = lambda line: None) -> None:
        self._file, self._say = file, say
        self._clients: dict[bytes, Client] = {}
        self._anyone = Client(ANYONE)
        self._seen: tuple[int, int, int] | None = None
        self._looked = time.monotonic()
        if file is not None:
            self._clients, self._seen = self._read(file)

    def find(self, shown: Iterable[str]) -> Client:
        """Let a client in.

        Args:
            shown: what it shows; one right token among them is enough.

        Raises:
            ServerRefusedError: none of it is a token.
        """
        if self._file is None:
            return self._anyone
        self._look(self._file)
        found = None
        for word in shown:
            digest = _digest(word)
            for known, client in self._clients.items():
                if hmac.compare_digest(known, digest):
                    found = client
        if found is None:
            raise ServerRefusedError("no token, or a wrong one")
        return found

    def _look(self, file: Path) -> None:
        """Read the file again if it changed; what cannot be used changes nothing."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        try:
            if _stamp(file) == self._seen:
                return
            clients, self._seen = self._read(file)
        except (UsageError, OSError) as e:
            self._say(f"tokens stay as they are: {e}")
            return
        before = {client.name: client for client in self._clients.values()}
        for digest, client in clients.items():
            if (known := before.get(client.name)) is not None:
                known.change(client)
                clients[digest] = known  # requests under way end there
        self._clients = clients
        self._say(f"tokens of {', '.join(sorted(c.name for c in clients.values()))} read again")

    def _read(self, file: Path) -> tuple[dict[bytes, Client], tuple[int, int, int]]:
        try:
            stamp = _stamp(file)
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as e:
            raise UsageError(f"cannot be read: {e}", item=str(file), remedy="") from e
        word = text.isascii() and text.isprintable() and " " not in text
        if text and word and not text.startswith("["):
            return {_digest(text): Client("client")}, stamp
        try:
            found = _File.model_validate(tomllib.loads(text))
        except (tomllib.TOMLDecodeError, ValidationError) as e:
            # Not the text of the error: it may hold a token.
            raise UsageError(
                f"is neither one word nor TOML with tables [tokens.NAME] ({type(e).__name__})",
                item=str(file),
                remedy="see SECURITY.md",
            ) from None
        clients = {
            _digest(entry.token): Client(name, entry.in_flight, entry.per_minute)
            for name, entry in found.tokens.items()
        }
        if len(clients) != len(found.tokens):
            raise UsageError("two clients have the same token", item=str(file), remedy="")
        return clients, stamp


def _digest(word: str) -> bytes:
    return hashlib.sha256(word.encode("utf-8", "surrogateescape")).digest()


def _stamp(file: Path) -> tuple[int, int, int]:
    found = os.stat(file)
    return found.st_mtime_ns, found.st_size, found.st_ino
