"""`python -m edgefetal`."""

from edgefetal.cli import app

app()
