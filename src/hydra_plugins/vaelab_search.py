"""The sweeper of :mod:`vaelab.commands.search` as a plugin of Hydra."""

from vaelab.commands import search


class OptunaSearch(search.OptunaSearch):
    """The same class in this package, because Hydra accepts no plugin from another one."""
