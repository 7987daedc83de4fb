"""Hydra looks for plugins in this package only; the sweeper itself is :mod:`vaelab.commands.search`."""

from vaelab.commands.search import OptunaSearch

__all__ = ["OptunaSearch"]
