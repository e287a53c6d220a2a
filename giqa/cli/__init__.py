"""The command line: `giqa score`, `video`, `batch`, `serve`, `bundle`, `doctor`.

Exit codes: 0 all done; 1 failure; 2 usage; 3 some items failed (their rows are written);
4 `--fail-below` breached (also when items failed); 5 server unreachable; 130 interrupted (what
was done is written).
"""

from __future__ import annotations

import logging
import sys
from typing import NoReturn

import click

from giqa import __version__
from giqa.cli._batch import batch
from giqa.cli._bundle import bundle
from giqa.cli._common import FAILURE, ITEMS_FAILED, UNREACHABLE, Exit, errors_to_exit_codes, leave
from giqa.cli._doctor import doctor
from giqa.cli._options import server_of, server_options
from giqa.cli._score import score
from giqa.cli._serve import serve
from giqa.cli._video import video

__all__ = [
    "FAILURE",
    "ITEMS_FAILED",
    "UNREACHABLE",
    "Exit",
    "errors_to_exit_codes",
    "group",
    "main",
    "run",
    "server_of",
    "server_options",
]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="giqa")
def group() -> None:
    """Perceptual quality of images without a reference: 0 (bad) .. 100 (excellent)."""


group.add_command(score)
group.add_command(video)
group.add_command(batch)
group.add_command(serve)
group.add_command(bundle)
group.add_command(doctor)


def main() -> None:
    """Run the command line that is in `sys.argv`."""
    with errors_to_exit_codes():
        group(prog_name="giqa", standalone_mode=False)


def run() -> NoReturn:
    """Entry point of the `giqa` command: `main`, and the process ends.

    What libraries warn of is theirs to log (`py.warnings`), unless warnings were asked for.
    """
    if not sys.warnoptions:
        logging.captureWarnings(True)
    try:
        main()
    except SystemExit as e:
        leave(e.code)
    leave(None)
