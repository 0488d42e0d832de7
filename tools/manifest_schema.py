"""Writes the published JSON Schema of a bundle's manifest from its definition in Python."""

from pathlib import Path

import asap_export.bundle.manifest as definition


def main() -> None:
    Path(definition.__file__).with_name("manifest.schema.json").write_text(definition.schema_text())


if __name__ == "__main__":
    main()
