"""Python and C++ on the same bundle: the same tokens kept, and the same answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installed_command import IMAGES
from PIL import Image

import asap_export
from asap_export.runtime.request import Answer
from asap_export.spec import QUANTIZATIONS
from cpp.programs import answers, needs_programs

pytestmark = needs_programs

MAT, SIGN, THINGS, TOWER = (IMAGES / f"{name}.png" for name in ("mat", "sign", "things", "tower"))


@dataclass(frozen=True)
class Asked:
    """One turn."""

    prompt: str
    images: Sequence[Path] = ()


CONVERSATIONS = {
    "one image": [Asked("What is on the mat?", [MAT])],
    "no image": [Asked("Say something.")],
    "two images": [Asked("What is different?", [SIGN, THINGS])],
    "marks in the text": [Asked("First <image> and then <image>, which is taller?", [TOWER, MAT])],
    "three turns": [
        Asked("What is on the mat?", [MAT]),
        Asked("And what does this say, in one word?", [SIGN]),
        Asked("Are you sure?"),
    ],
    "many languages": [Asked("Что это? これは何ですか？ ما هذا؟ 🐈‍⬛ Was ist das?", [THINGS])],
}


def from_python(bundle: Path, turns: Sequence[Asked], **options: Any) -> list[Answer]:
    chat = asap_export.load(bundle, provider="cpu", threads=1).chat()
    return [chat.ask(turn.images, turn.prompt, **options) for turn in turns]


def from_cpp(bundle: Path, turns: Sequence[Asked], *options: str) -> list[dict[str, object]]:
    first, *later = turns
    images = [argument for image in first.images for argument in ("--image", str(image))]
    lines = [line for turn in later for line in (*(f"/image {image}" for image in turn.images), turn.prompt)]
    common = (bundle, *images, "--prompt", first.prompt, "--threads", "1", "--provider", "cpu", *options)
    return answers(*common, "--chat", text="".join(f"{line}\n" for line in lines))


def assert_same(bundle: Path, turns: Sequence[Asked]) -> None:
    python = from_python(bundle, turns, max_new_tokens=8)
    cpp = from_cpp(bundle, turns, "--max-new-tokens", "8")
    assert len(python) == len(cpp)
    for expected, found in zip(python, cpp, strict=True):
        assert found["kept_index"] == list(expected.kept_index)
        assert found["token_ids"] == list(expected.token_ids)
        assert found["text"] == expected.text
        for name in ("visual_tokens", "kept_visual_tokens", "stopped_by"):
            assert found[name] == getattr(expected, name)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_conversations(fp16_bundle: Path, conversation: str) -> None:
    assert_same(fp16_bundle, CONVERSATIONS[conversation])


WAYS: dict[str, dict[str, float | str]] = {
    "a penalty": {"repetition_penalty": 1.3},
    "no token twice": {"no_repeat_ngram_size": 1},
    "no pair twice": {"no_repeat_ngram_size": 2, "min_new_tokens": 30},
    "drawn": {"temperature": 1.5, "seed": 7},
    "drawn from some": {"temperature": 2.0, "top_k": 40, "top_p": 0.95, "min_p": 0.01, "seed": 2**33 + 1},
    "up to a letter": {"stop": "a"},
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_choose_tokens(pruned_bundle: Path, way: str) -> None:
    """Drawn tokens too: the runtimes have the same random numbers."""
    options = [
        word for name, value in WAYS[way].items() for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    turns = CONVERSATIONS["three turns"]
    python = from_python(pruned_bundle, turns, max_new_tokens=40, **WAYS[way])
    cpp = from_cpp(pruned_bundle, turns, "--max-new-tokens", "40", *options)
    for expected, found in zip(python, cpp, strict=True):
        assert found["token_ids"] == list(expected.token_ids)
        assert (found["text"], found["stopped_by"]) == (expected.text, expected.stopped_by)


@pytest.mark.parametrize("name", ["pruned_bundle", "dense_bundle", "untrimmed_bundle", "llava_1_5_bundle"])
def test_bundles_of_every_kind(request: pytest.FixtureRequest, name: str) -> None:
    assert_same(request.getfixturevalue(name), CONVERSATIONS["three turns"])


def test_a_bundle_of_8_bit_weights(random_checkpoint: Path, tmp_path: Path) -> None:
    from asap_export.exporter import ExportRequest, export

    int8 = QUANTIZATIONS["int8"]
    export(ExportRequest(str(random_checkpoint), output=tmp_path / "int8", quantization=int8))
    assert_same(tmp_path / "int8", CONVERSATIONS["three turns"])


def test_the_demo_answers_rightly_from_cpp_too(demo_bundle: Path) -> None:
    [answer] = answers(demo_bundle, "--image", THINGS, "--prompt", "What number is in the red box?")
    assert answer["text"] == "2"
    assert_same(demo_bundle, [Asked("What color is the heart?", [THINGS])])


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (500, 7), (64, 64), (336, 336), (333, 500), (1200, 300)])
def test_images_of_many_sizes(
    demo_bundle: Path, tmp_path: Path, size: tuple[int, int], drawn: Callable[[tuple[int, int]], Image.Image]
) -> None:
    drawn(size).save(tmp_path / "image.png")
    assert_same(demo_bundle, [Asked("How many shapes are there?", [tmp_path / "image.png"])])


@pytest.fixture
def drawn() -> Callable[[tuple[int, int]], Image.Image]:
    """Pictures with structure at every scale: sums of waves and a little noise, the same ones in every run."""

    def picture(size: tuple[int, int]) -> Image.Image:
        random = np.random.default_rng(size)
        y, x = np.mgrid[: size[1], : size[0]]
        waves = [np.sin(x / (3 + 9 * c) + c) + np.cos(y / (5 + 7 * c)) for c in range(3)]
        pixels = np.stack(waves, axis=-1) * 50 + 128 + random.normal(0, 5, (size[1], size[0], 3))
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    return picture
