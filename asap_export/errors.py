"""The one exception of the project whose text is written for the person at the keyboard."""

import re

__all__ = ["UserError"]

# An option, and no part of a path or of a name; asap-export's own commands are said as they are typed.
_COMMAND = r"(?P<command>asap-export(?: [a-z]+)?(?: --[a-z-]+)+)"
_OPTION = re.compile(_COMMAND + r"|(?<![\w/.-])--(?P<no>no-(?!repeat))?(?P<name>[a-z][a-z0-9-]*)(?![\w/])")


class UserError(Exception):
    """A mistake or a missing piece that the user can mend.

    ``message`` is one line: what was expected, what was found, what to do. It names options as the command line
    has them (``--keep-ratio``), which prints it without a traceback and exits with status 2. A program reads
    ``str(error)``, where they are Python's arguments (``keep_ratio``).
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return _OPTION.sub(_argument, self.message)


def _argument(option: re.Match[str]) -> str:
    if option["command"]:
        return option["command"]
    name = option["name"].replace("-", "_")
    return f"{name}=False" if option["no"] else name
