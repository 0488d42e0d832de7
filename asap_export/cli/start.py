"""Where ``asap-export`` starts: interruptions are noted before anything that takes time is imported."""

import sys

from asap_export.cli.interruption import ignore_interruptions, interrupted_status, note_interruptions

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit."""
    note_interruptions()
    try:
        from asap_export.cli.app import run  # the commands: a moment to import

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = interrupted_status()
    ignore_interruptions()
    sys.exit(status)
