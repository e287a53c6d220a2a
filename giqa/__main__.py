"""`python -m giqa`."""

from giqa.cli import run

run()
