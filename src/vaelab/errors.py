"""The error that a user can cause, and mend."""


class UserError(Exception):
    """Something to be told in one line: what is wrong, where, and what to type instead. Shown without a traceback."""
