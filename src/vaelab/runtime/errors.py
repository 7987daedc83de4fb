"""Errors that a user can cause and correct."""

from itertools import pairwise, takewhile


class UserError(Exception):
    """An error in one line: what is wrong, where, and what to type instead. It is shown without a traceback."""


class NotApplicable(UserError):  # noqa: N818  (not every model and data set has every metric and every plot)
    """The reason why a metric, a plot or a section of a report does not apply to this model or data set.

    It is an error if the user asked for exactly this part, and a remark otherwise.
    """


def first_line(error: BaseException) -> str:
    """The message of an error in one line: its first line, and each next line while the line before ends in a colon."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    announced = takewhile(lambda pair: pair[0].endswith(":"), pairwise(lines))
    return " ".join([lines[0], *(line for _, line in announced)])


def raised_in(error: BaseException) -> str:
    """The module whose code has raised an error: a kind that stays when a library changes its words."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "" if frame is None else str(frame.tb_frame.f_globals.get("__name__", ""))
