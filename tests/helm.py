"""Helm in a process of its own: its library is Go's, whose threads and signals crashed a test run.

python -m tests.helm render|lint CHART < values.json
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


class HelmError(Exception):
    """What Helm had to say."""


def render(chart: Path, values: dict[str, Any]) -> dict[str, str]:
    """Template files by name, for the release `scores` in `imaging`; values by their schema."""
    found: dict[str, str] = json.loads(_run("render", chart, values))
    return found


def lint(chart: Path, values: dict[str, Any]) -> str:
    """What Helm's linter finds."""
    return _run("lint", chart, values)


def _run(what: str, chart: Path, values: dict[str, Any]) -> str:
    command = [sys.executable, "-m", "tests.helm", what, str(chart)]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        command, input=json.dumps(values), capture_output=True, text=True, cwd=root, timeout=120
    )
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


def _main(what: str, chart: str) -> None:
    import helm_python

    values = json.load(sys.stdin)
    if what == "lint":
        print(helm_python.lint(Path(chart), values))
        return
    with helm_python.Chart.load(Path(chart)) as loaded:
        try:
            loaded.validate_schema(values)
            files = loaded.render(values, name="scores", namespace="imaging")
        except helm_python.HelmError as e:
            sys.exit(str(e))
    print(json.dumps(dict(files)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
