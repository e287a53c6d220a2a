"""The README as package indices show it, where a link into the repository would lead nowhere.

A metadata hook of hatchling, see `pyproject.toml`; it may import nothing of ours.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^)\s]*)\)")


def standing_alone(text: str) -> str:
    """Take from the README what only a checkout can show.

    Args:
        text: the README.

    Returns:
        The same without the repository's pictures; links into it are plain text.
    """

    def plain(found: re.Match[str]) -> str:
        mark, label, target = found.groups()
        return found[0] if "://" in target else "" if mark else label

    return re.sub(r"\n{3,}", "\n\n", _LINK.sub(plain, text))


class LongDescription(MetadataHookInterface):
    """Gives the wheel's metadata the README."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `readme`, which `pyproject.toml` declares dynamic."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": standing_alone(text),
        }
