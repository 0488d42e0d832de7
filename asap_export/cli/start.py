"""Where ``asap-export`` starts: interruptions are noted before anything that takes time is imported."""

import sys
from io import TextIOWrapper

from asap_export.cli.interruption import ignore_interruptions, interrupted_status, note_interruptions

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit."""
    note_interruptions()
    for stream in (sys.stdout, sys.stderr):  # what a locale has no character for is escaped
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        from asap_export.cli.app import run  # the commands: a moment to import

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = interrupted_status()
    ignore_interruptions()
    sys.exit(status)
