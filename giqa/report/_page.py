"""Pages: templates to one HTML file that needs nothing else, written whole or not at all.

There are no scripts: charts are drawn when the page is made, maps are switched by checkboxes, and
the page's content security policy forbids everything but its own style and pictures.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Self

from giqa import __version__, files
from giqa.contract import BANDS, Band, band
from giqa.extras import importing
from giqa.report._charts import ceiling, strips
from giqa.report._colours import COLOURS, css
from giqa.results import printable

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> Any:
    """The templates; everything put into them is escaped.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    with importing("jinja2", "report"):
        import jinja2
    made = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "points": points,
        "clock": clock,
        "ceiling": ceiling,
        "printable": printable,
        "grouped": grouped,
        "bit_rate": bit_rate,
        "signed": signed,
    }
    made.globals |= {
        "bands": [name for _, name in BANDS],
        "band_of": _band_of,
        "colours": {name: css(colour) for name, colour in COLOURS.items()},
        "strips": strips(),
        "version": __version__,
    }
    return made


class Page(ABC):
    """A page that is written when it is closed, as a context manager at the end.

    An interruption, too, shows what was done; an error before anything was leaves an old page.
    """

    @property
    @abstractmethod
    def begun(self) -> bool:
        """There is something to show."""

    @abstractmethod
    def close(self) -> None:
        """Write the file."""

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close."""
        if kind is None or self.begun:
            self.close()


def check() -> None:
    """Find out whether pages can be made, before the work is done that they are about.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    environment()


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template in and write it.

    Args:
        path: the file.
        template: a name in `templates/`.
        values: what the template shows.

    Raises:
        MissingExtraError: jinja2 is not installed.
        StorageFullError: no space is left; the old file, if any, is untouched.
        UnwritableError: the file cannot be written.
    """
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = environment().get_template(template).render(made=made, **values)
    files.write(path, text.encode("utf-8", "backslashreplace"))


def points(score: float | None) -> str:
    """A score as people read it, `57.4`; a dash if there is none."""
    return "\N{EN DASH}" if score is None or math.isnan(score) else f"{score:.1f}"


def grouped(count: int) -> str:
    """A count with its thousands apart, `12,345`."""
    return f"{count:,}"


def bit_rate(bits: float | None) -> str:
    """A bit rate as people read it, `1.20 Mbit/s`; a dash if there is none."""
    if bits is None:
        return "\N{EN DASH}"
    return f"{bits / 1e6:.2f} Mbit/s" if bits >= 1e6 else f"{bits / 1e3:.0f} kbit/s"


def signed(points: float) -> str:
    """A difference as people read it, with its sign."""
    text = f"{points:+.1f}"
    return "0.0" if text[1:] == "0.0" else text.replace("-", "\N{MINUS SIGN}")


def clock(seconds: float) -> str:
    """A time code, `1:02:03.45`; fractions only where there are any."""
    sign = "-" if seconds < 0 else ""
    hundredths = round(abs(seconds) * 100)
    whole, part = divmod(hundredths, 100)
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    text = f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
    return f"{sign}{text}.{part:02}".rstrip("0") if part else f"{sign}{text}"


def _band_of(score: float | None) -> Band | str:
    return "" if score is None or math.isnan(score) else band(score)
