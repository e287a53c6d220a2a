"""What is wrong with labels."""

from __future__ import annotations

from giqa.errors import UsageError


class TableError(UsageError, ValueError):
    """A table of labels cannot be used; nothing of it was.

    It is a `ValueError`, too, as callers expect of a function that is given wrong values.
    """

    default_remedy = "correct the table"
