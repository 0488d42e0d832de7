"""A hub id on the command line, against a hub that stands on this machine."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed_command import COMMAND, ENVIRONMENT, listing, refused, run
from short_checkpoint import write_short_checkpoint
from stand_in_hub import Hub, Repository, serving

NAME, GATED, PUBLIC = "someone/short", "someone/gated", "llava-hf/llama3-llava-next-8b-hf"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = write_short_checkpoint(tmp_path / "on the hub")
    repositories = {name: [Repository(folder)] for name in (NAME, PUBLIC)}
    repositories[GATED] = [Repository(folder, refusal="GatedRepo")]
    with serving(Hub(repositories)) as hub:
        yield hub


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.mark.long
def test_an_export_from_the_hub_is_pinned_and_takes_its_preset_s_limits(hub: Hub, work: Path) -> None:
    environment = hub.environment(work / "home")
    options = ("--model", PUBLIC, "--revision", "main", "--dense", "--max-batch", "1")
    done = run(*options, folder=work, environment=environment)
    assert done.stderr.startswith(f"Download {PUBLIC}: ")
    bundle = work / "llama3-llava-next-8b-hf.bundle"
    limits = "max batch 1, max images 2, max text 1,312, max new tokens 1,024"
    assert limits in run("inspect", bundle).stdout
    source = json.loads((bundle / "manifest.json").read_text())["source"]
    (exported,) = hub.repositories[PUBLIC]
    assert (source["id"], source["revision"]) == (PUBLIC, exported.commit)

    hub.repositories[PUBLIC] = [Repository(exported.folder, commit=40 * "d")]  # main is another commit now
    said = refused("verify", bundle, environment=hub.environment(work / "empty home"))
    assert f"expected {PUBLIC} at {exported.commit} on the Hugging Face hub, found no such" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["someone/shrot"],
            "found neither; check the name, and if it is private, log in with `hf auth login`",
        ),
        ([GATED], "found a gated repository; accept its terms on http://127.0.0.1"),
        (
            [NAME, "--revision", "v7"],
            "found no such branch, tag or commit; choose another --revision from http",
        ),
    ],
    ids=["no such repository", "gated", "no such revision"],
)
def test_what_the_hub_refuses(hub: Hub, work: Path, arguments: list[str], said: str) -> None:
    assert said in refused("flops", *arguments, environment=hub.environment(work / "home"))


def test_a_hub_that_fails_a_hub_that_is_not_there_and_no_hub_at_all(hub: Hub, work: Path) -> None:
    environment = hub.environment(work / "home")
    hub.status = 503
    assert "found HTTP status 503; try again later" in refused("flops", NAME, environment=environment)
    hub.status = 401
    assert "found HTTP status 401; the token is not valid" in refused("flops", NAME, environment=environment)
    nowhere = environment | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert "check the network and run the command again" in refused("flops", NAME, environment=nowhere)
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    assert "HF_HUB_OFFLINE is set" in refused("flops", NAME, environment=offline)


def test_costs_need_the_configuration_alone(hub: Hub, work: Path) -> None:
    environment = hub.environment(work / "home")
    assert run("flops", NAME, environment=environment).stdout.startswith(f"{NAME}, 3 layers")
    assert hub.downloads() == ["config.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--revision", "main"], "expected --revision with a hub id only, found the built-in demo"),
        (["flops", "--revision", "main"], "expected --revision with a hub id only, found the built-in demo"),
        (
            ["flops", "folder", "--revision", "main"],
            "expected --revision with a hub id only, found the local folder",
        ),
        (["flops", "llava-1.5-7b", "--revision", "main"], "expected a checkpoint folder or a hub id"),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, list) else "",
)
def test_a_revision_that_would_do_nothing_is_refused(work: Path, arguments: list[str], said: str) -> None:
    (work / "folder").mkdir()
    assert said in refused(*arguments, folder=work)


def test_ctrl_c_ends_a_download_at_once(hub: Hub, work: Path) -> None:
    hub.endless, hub.claimed_sizes = True, {"model.safetensors": 10**9}
    process = subprocess.Popen(
        [COMMAND, "--model", NAME, "--output", "out"],
        cwd=work,
        env=ENVIRONMENT | hub.environment(work / "home"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "model.safetensors" not in hub.downloads():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=20)
    assert (process.returncode, out, errors) == (130, "", "interrupted\n")
    assert not [name for name in listing(work) if "out" in name or name.endswith(".incomplete")]
