"""`python -m giqa`."""

from giqa.cli import main

main()
