"""Commands for NVIDIA's own tool, ready to be pasted."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_cases import example_engine, write_bundle

from asap_export.bundle import Bundle, Profile, ShapeRange
from asap_export.report import trtexec_commands


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    opened = write_bundle(tmp_path / "a bundle")
    context = Profile(
        "context",
        {"inputs_embeds": ShapeRange((1, 1, 256), (1, 600, 256), (2, 2000, 256))},
        {"kept_length": ShapeRange((1,), (100,), (2000,))},
    )
    engine = example_engine("1.7")
    engine = replace(engine, profiles=(context, *engine.profiles))
    return replace(opened, manifest=replace(opened.manifest, engines=(engine,)))


def test_each_profile_is_timed_at_the_shapes_that_it_is_planned_for(bundle: Bundle) -> None:
    commands = dict(trtexec_commands(bundle))
    file = "engines/decoder.tensorrt_rtx.engine"
    assert list(commands) == [f"{file}, context", f"{file}, generation"]
    assert shlex.split(commands[f"{file}, context"]) == [
        "tensorrt_rtx",
        f"--loadEngine={bundle.path / file}",
        "--useProfile=0",
        "--shapes=inputs_embeds:1x600x256,kept_length:100",
    ]
    assert "--useProfile=1" in commands[f"{file}, generation"]


def test_tensorrts_tool_is_trtexec(bundle: Bundle) -> None:
    (engine,) = bundle.manifest.engines
    manifest = replace(bundle.manifest, engines=(replace(engine, flavor="tensorrt"),))
    assert all(
        line.startswith("trtexec ") for _, line in trtexec_commands(replace(bundle, manifest=manifest))
    )
