"""The one kind of error that a user is meant to read."""

from __future__ import annotations


class LongspanError(Exception):
    """A problem the user can act on.

    The message is one or two plain sentences: what is wrong and what to do. The command line prints it
    without a traceback and exits with `exit_code`.
    """

    exit_code = 1


class UsageError(LongspanError):
    """The command line or the arguments of a call are wrong."""

    exit_code = 2


class MissingExtra(LongspanError):
    """A feature needs packages that are not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an extra: install it with `pip install 'longspan[{extra}]'`.")
