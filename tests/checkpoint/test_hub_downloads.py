"""Downloads from a hub on this machine: what is asked for, what is told, and what comes after a break."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from stand_in_hub import Hub, Repository, serving
from tiny_checkpoints import tiny_model

from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.checkpoint.hub import download_small, download_weights
from asap_export.errors import UserError
from asap_export.exporter import ExportRequest, plan_export
from asap_export.progress import Progress
from asap_export.pruning.config import Budget, PruningConfig

NAME = "someone/tiny"


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one checkpoint of several shards, and beside them what no export needs."""
    (folder / "pytorch_model.bin").write_bytes(b"the same weights again")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    with serving(Hub({NAME: [Repository(folder)]})) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def commit_of(hub: Hub) -> str:
    return hub.repositories[NAME][0].commit


def shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.safetensors"))


def test_only_what_is_needed_is_downloaded_and_only_once(hub: Hub, folder: Path) -> None:
    checkpoint = open_checkpoint(NAME)
    assert checkpoint.revision == commit_of(hub)
    small = {"config.json", "generation_config.json", "model.safetensors.index.json"}
    assert set(hub.downloads()[: len(small)]) == small
    assert hub.downloads()[len(small) :] == shards(folder)
    hub.asked.clear()
    assert open_checkpoint(NAME, commit_of(hub)) == checkpoint
    assert hub.asked == []


def test_the_bytes_of_the_weights_are_told(hub: Hub, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[Progress] = []
    open_checkpoint(NAME, progress=told.append)
    assert {stand.stage for stand in told} == {"Download someone/tiny"}
    fractions = [stand.fraction for stand in told]
    assert (
        fractions == sorted(fractions) and fractions[-1] == 1.0 and len(set(fractions)) == len(shards(folder))
    )
    total = sum((folder / name).stat().st_size for name in shards(folder))
    assert told[-1].detail == f"{total / 1000:.1f} kB of {total / 1000:.1f} kB"
    assert capfd.readouterr() == ("", "")


def test_branches_tags_and_commits(hub: Hub, tmp_path: Path) -> None:
    tagged = tmp_path / "tagged"
    tiny_model("qwen2").save_pretrained(tagged)
    hub.repositories[NAME].append(Repository(tagged, commit=40 * "b", names=("v1", "refs/pr/1")))
    for revision in ("v1", 40 * "b"):
        checkpoint = open_checkpoint(NAME, revision)
        assert (checkpoint.spec.text_model_type, checkpoint.revision) == ("qwen2", 40 * "b")
    assert open_checkpoint(NAME, "main").revision == open_checkpoint(NAME).revision == commit_of(hub)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    content = bytes(range(256)) * 100_000  # two of the pieces that the hub client reads, and a half
    (large / "model.safetensors").write_bytes(content)
    hub.repositories["someone/large"] = [Repository(large)]
    hub.cut_after["model.safetensors"] = 24_000_000
    folder = download_small("someone/large", ["*.json"], None)
    told: list[Progress] = []
    download_weights("someone/large", ["model.safetensors"], folder.name, folder, told.append)
    assert (folder / "model.safetensors").read_bytes() == content
    ranges = [resumed for method, _, resumed in hub.asked if method == "GET" and resumed]
    assert ranges == [f"bytes={2 * constants.DOWNLOAD_CHUNK_SIZE}-"]
    assert told[-1].fraction == 1.0


def test_a_second_call_goes_on_with_the_files_that_are_missing(hub: Hub, folder: Path) -> None:
    *_, last = shards(folder)
    hub.broken.add(last)
    with pytest.raises(
        UserError, match=r"expected someone/tiny at c0ffee.* found HTTP status 500; try again"
    ):
        open_checkpoint(NAME)
    hub.broken.clear()
    hub.asked.clear()
    open_checkpoint(NAME)
    assert hub.downloads() == [last]


def test_no_space_is_said_before_the_first_byte(hub: Hub, folder: Path, tmp_path: Path) -> None:
    hub.claimed_sizes[shards(folder)[0]] = 10**16
    with pytest.raises(
        UserError, match=r"disk full: needed 10.0 PB for the weights of someone/tiny, free .*HF_HOME"
    ):
        open_checkpoint(NAME)
    assert not any(name.endswith(".safetensors") for name in hub.downloads())


def test_a_repository_without_safetensors(hub: Hub, folder: Path) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    with pytest.raises(
        UserError, match=r"weights model.safetensors in someone/tiny at c0ffee.*save_pretrained"
    ):
        open_checkpoint(NAME)


def test_without_network_the_cache_serves(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert open_checkpoint(NAME) == open_checkpoint(NAME, "main") == checkpoint
    assert hub.asked == []
    with pytest.raises(
        UserError, match=r"all files of someone/tiny at v2 in .*cache, found neither; unset it"
    ):
        open_checkpoint(NAME, "v2")


def test_weights_that_are_missing_from_the_cache_offline(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download_small(NAME, ["*.json"], None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        open_checkpoint(NAME)


def test_a_request_that_cannot_be_met_downloads_no_weights(hub: Hub, tmp_path: Path) -> None:
    too_many = ExportRequest(
        NAME, output=tmp_path / "out", budget=Budget(keep=10**6), pruning=PruningConfig(prune_after=1)
    )
    with pytest.raises(UserError, match="keep of at most"):
        plan_export(too_many)
    assert "config.json" in hub.downloads()
    assert not [name for name in hub.downloads() if name.endswith(".safetensors")]
