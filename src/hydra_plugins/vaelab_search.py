"""The sweeper of :mod:`vaelab.commands.search`, as a plugin: Hydra looks for plugins only in this package."""

from vaelab.commands.search import OptunaSearch

__all__ = ["OptunaSearch"]
