"""What a user can ask wrong: Python and C++ refuse it with the same line, status 2 and nothing on stdout."""

import io
import json
import os
import resource
import shutil
import struct
import subprocess
import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_bundles import rewrite_manifest
from installed_command import COMMAND, ENVIRONMENT, IMAGES
from PIL import Image

import asap_export
from asap_export.runtime.model import Model
from cpp.programs import INFER, infer, needs_programs
from cpp.refusals import cpp_line, python_line

pytestmark = needs_programs

MAT = IMAGES / "mat.png"


@dataclass(frozen=True)
class Asked:
    """One request; ``options`` by the names of Python's arguments."""

    prompt: str = "What is on the mat?"
    images: tuple[Path, ...] = ()
    template: bool = True
    options: dict[str, Any] = field(default_factory=dict)


def asked(prompt: str = "What is on the mat?", *images: Path, template: bool = True, **options: Any) -> Asked:
    return Asked(prompt, images, template, options)


@cache
def opened(bundle: Path) -> Model:
    return asap_export.load(bundle, provider="cpu", threads=1)


def from_cpp(bundle: Path, request: Asked) -> str:
    arguments = ["--prompt", request.prompt, "--provider", "cpu", "--threads", "1"]
    for image in request.images:
        arguments += ["--image", str(image)]
    for name, value in request.options.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    return cpp_line(bundle, *arguments, *([] if request.template else ["--no-template"]))


def assert_refused(bundle: Path, request: Asked) -> str:
    def ask() -> None:
        opened(bundle).generate(request.images, request.prompt, template=request.template, **request.options)

    line = python_line(ask)
    assert from_cpp(bundle, request) == line
    return line


REQUESTS = {
    "more marks than images": asked("<image> and <image>", MAT),
    "marks without images": asked("what is <image>?"),
    "a prompt of its own without marks": asked("what is it?", MAT, template=False),
    "an image last": asked("what is it? <image>", MAT, template=False),
    "no tokens to keep": asked(keep=0),
    "a negative number to keep": asked(keep=-3),
    "nothing of them": asked(keep_ratio=0),
    "more than all of them": asked(keep_ratio=1.25),
    "not a number of them": asked(keep_ratio=float("nan")),
    "an average below one": asked(budget=0.5),
    "an average that is no number": asked(budget=float("nan")),
    "an average below what the first layers take": asked("What?", MAT, budget=2),
    "two budgets": asked("What?", MAT, keep=4, budget=90),
    "a temperature below zero": asked(temperature=-0.5),
    "an infinite temperature": asked(temperature=float("inf")),
    "no probability": asked(top_p=0),
    "more than certainty": asked(top_p=1.5),
    "fewer than no tokens to draw from": asked(top_k=-1),
    "tokens likelier than the likeliest": asked(min_p=1.5),
    "a penalty of nothing": asked(repetition_penalty=0),
    "fewer than no tokens in a row": asked(no_repeat_ngram_size=-2),
    "fewer than no tokens at least": asked(min_new_tokens=-1),
    "a stop string of nothing": asked(stop=""),
    "a negative seed": asked(seed=-1),
    "no tokens": asked(max_new_tokens=0),
    "a negative number of tokens": asked(max_new_tokens=-7),
    "more tokens than positions": asked("What?", MAT, max_new_tokens=5000),
    "more tokens than numbers": asked(max_new_tokens=2**63 - 1),
    "a prompt longer than the positions": asked("how many? " * 3000),
    "no file": asked("What?", Path("/nowhere/cat.png")),
    "no file, with lines in its name": asked("What?", Path("/nowhere/cat\n  and dog.png")),
    "a folder": asked("What?", IMAGES),
    "bytes that are no text": asked(os.fsdecode(b"What is \xff?"), MAT),
    "an option before an image": asked("What?", Path("/nowhere/cat.png"), top_p=2),
    "marks before an image": asked("<image><image>", Path("/nowhere/cat.png")),
}


@pytest.mark.parametrize("mistake", REQUESTS)
def test_a_request_that_cannot_be_answered(pruned_bundle: Path, mistake: str) -> None:
    assert_refused(pruned_bundle, REQUESTS[mistake])


@pytest.mark.parametrize("url", ["https://example.com/a//cat.png", "data:image/png;base64,iVBORw0KGgo="])
def test_a_url_in_the_place_of_a_file(pruned_bundle: Path, url: str) -> None:
    line = python_line(lambda: opened(pruned_bundle).generate([url], "What?"))
    assert line == f"error: expected an image file, found the URL {url}; download it first\n"
    assert cpp_line(pruned_bundle, "--prompt", "What?", "--provider", "cpu", "--image", url) == line


@pytest.mark.parametrize("program", [INFER, COMMAND])
def test_a_full_disk_behind_standard_output(pruned_bundle: Path, program: Path) -> None:
    command = [program, *(["run"] if program == COMMAND else []), pruned_bundle]
    command += ["--prompt", "What?", "--provider", "cpu"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert done.returncode == 2
    assert done.stderr.endswith("found: No space left on device; free space or write elsewhere\n")
    assert "Traceback" not in done.stderr


def test_a_budget_for_a_dense_bundle(dense_bundle: Path) -> None:
    assert_refused(dense_bundle, asked("What?", MAT, keep=3))


@pytest.mark.parametrize("marks", ["", "<image><image>"])
def test_a_template_that_drops_or_doubles_images(pruned_bundle: Path, tmp_path: Path, marks: str) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(pruned_bundle, bundle)
    document = json.loads((bundle / "manifest.json").read_text())
    document["prompt"]["template"]["first"]["image"] = marks
    (bundle / "manifest.json").write_text(json.dumps(document))
    line = assert_refused(bundle, asked("What?", MAT))
    assert f"one <image> mark per image, found {marks.count('<image>')} for 1 image; put marks into" in line


def test_a_word_without_an_embedding(pruned_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(pruned_bundle, bundle)
    tokenizer = json.loads((bundle / "tokenizer.json").read_text())
    word = {"id": 1024, "content": "<beyond>", "single_word": False, "lstrip": False, "rstrip": False}
    tokenizer["added_tokens"].append(word | {"normalized": False, "special": False})
    (bundle / "tokenizer.json").write_text(json.dumps(tokenizer))
    rewrite_manifest(bundle, "tokenizer.json")
    line = assert_refused(bundle, asked("What is <beyond>?"))
    assert line == "error: expected token ids from 0 to 1023, found 1024; use the bundle's own tokenizer\n"


def saved(picture: Image.Image, form: str) -> bytes:
    content = io.BytesIO()
    picture.save(content, form)
    return content.getvalue()


def header_of_a_bomb(width: int, height: int) -> bytes:
    """The start of a black and white PNG: all that is needed to know its size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND"]
    framed = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
FILES = {
    "text.png": b"no picture",
    "empty.png": b"",
    "bomb.png": header_of_a_bomb(50_000, 50_000),
}
CUT = {f"half.{form}": saved(NOISE, form)[:2000] for form in ("png", "jpeg", "webp")}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_picture(pruned_bundle: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    assert_refused(pruned_bundle, asked("What?", tmp_path / name))


@pytest.mark.parametrize("name", CUT)
def test_a_picture_cut_in_half(pruned_bundle: Path, tmp_path: Path, name: str) -> None:
    """What a decoder says of damage is its own; the rest of the line is not."""
    (tmp_path / name).write_bytes(CUT[name])
    request = asked("What?", tmp_path / name)
    here = python_line(lambda: opened(pruned_bundle).generate(request.images, request.prompt))
    there = from_cpp(pruned_bundle, request)
    for line in (here, there):
        assert line.startswith(f"error: expected a readable image in {tmp_path / name}, found: ")
        assert line.endswith("; give another\n")


def test_a_picture_so_thin_that_no_memory_would_do(
    llava_1_5_bundle: Path, pruned_bundle: Path, tmp_path: Path
) -> None:
    Image.new("L", (65_000, 1)).save(tmp_path / "line.png")
    line = assert_refused(llava_1_5_bundle, asked("What?", tmp_path / "line.png"))
    assert "found 65000 x 1; scale it down or crop it" in line
    Image.new("1", (1, 2_000_000)).save(tmp_path / "thinner.png")
    assert_refused(pruned_bundle, asked("What?", tmp_path / "thinner.png"))


def test_turns_beyond_the_positions(pruned_bundle: Path, tmp_path: Path) -> None:
    """The error of a later turn ends a script; what earlier turns answered stays on stdout."""
    long = "and how many? " * 800
    chat = opened(pruned_bundle).chat()
    answers = [chat.ask(MAT, "What?", max_new_tokens=4)]
    line = python_line(lambda: [chat.ask((), long, max_new_tokens=4) for _ in range(5)])
    assert " before, " in line
    arguments = (pruned_bundle, "--image", MAT, "--prompt", "What?", "--max-new-tokens", "4", "--chat")
    done = infer(*arguments, "--provider", "cpu", text=f"{long}\n" * 5, status=2)
    assert done.stderr.splitlines(keepends=True)[-1] == line
    assert done.stdout.startswith(answers[0].text)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there(pruned_bundle: Path, provider: str) -> None:
    """Where it is said how to get it, each runtime has a way of its own."""
    arguments: dict[str, Any] = {"provider": provider}
    line = python_line(lambda: asap_export.load(pruned_bundle, **arguments))
    found = cpp_line(pruned_bundle, "--prompt", "x", "--provider", provider)
    assert found.partition(";")[0] == line.partition(";")[0]


def test_no_threads(pruned_bundle: Path) -> None:
    line = python_line(lambda: asap_export.load(pruned_bundle, provider="cpu", threads=0))
    assert cpp_line(pruned_bundle, "--prompt", "x", "--threads", "0", "--provider", "cpu") == line


# Memory.


def limited(bundle: Path, megabytes: int) -> subprocess.CompletedProcess[str]:
    """A request of ``asap-infer`` in a limited address space."""
    size = megabytes << 20
    return subprocess.run(
        [INFER, bundle, "--image", MAT, "--prompt", "What?", "--max-new-tokens", "2", "--provider", "cpu"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.skipif(
    INFER.exists() and b"__asan_init" in INFER.read_bytes(),
    reason="AddressSanitizer sets terabytes of address space aside, so none can be limited",
)
def test_too_little_memory_is_said_and_never_a_crash(pruned_bundle: Path) -> None:
    size = 70  # megabytes, enough for the program itself
    while (done := limited(pruned_bundle, size)).returncode:
        assert done.returncode == 2 and done.stdout == "", f"{size}: {done}"
        said = done.stderr.splitlines()
        if said[0].startswith("note: there is too little memory for these weights as float32"):
            said = said[1:]
        assert len(said) == 1 and said[0].startswith("error: expected "), f"{size}: {done}"
        assert "memory" in said[0] and "bad_alloc" not in said[0]
        size = size * 21 // 20
    assert size > 200
