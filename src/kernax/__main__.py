"""``python -m kernax``."""

from .cli import run

run()
