"""The commands of `python -m trilith` and `trilith-py`."""

from trilith.cli.commands import main

__all__ = ["main"]
