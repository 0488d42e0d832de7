"""The one exception of the project whose text is written for the person at the keyboard."""

__all__ = ["UserError"]


class UserError(Exception):
    """A mistake or a missing piece that the user can mend.

    The message is one line: what was expected, what was found, what to do. The command line prints it
    without a traceback and exits with status 2; a program that embeds the package may catch it.
    """
