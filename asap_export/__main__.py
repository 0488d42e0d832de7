"""``python -m asap_export``, the same as the installed command ``asap-export``."""

from asap_export.cli.start import main

main()
