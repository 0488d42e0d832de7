from pathlib import Path

import pytest
from tiny_checkpoints import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of several shards with an index."""
    tiny_model().save_pretrained(tmp_path / "tiny", max_shard_size="8KB")
    return tmp_path / "tiny"
