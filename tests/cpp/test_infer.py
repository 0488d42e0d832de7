"""``asap-infer`` as a user meets it: its options, and what it says to wrong ones."""

from pathlib import Path

import pytest

from cpp.programs import OPENVINO_BACKEND, answers, infer, needs_programs

pytestmark = needs_programs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "expected a bundle, found none; see asap-infer --help"),
        ("out", "expected --prompt TEXT, found none; give one, or --chat for a conversation"),
        ("out --prompt", "expected a value after --prompt, found none"),
        ("out other --prompt a", "expected one bundle, found out and other; give one of them"),
        ("out --propmt a", "expected an option that asap-infer knows, found --propmt; see asap-infer --help"),
        ("-x", "expected an option that asap-infer knows, found -x; see asap-infer --help"),
        ("out --prompt a --threads 1.5", "expected a whole number after --threads, found 1.5"),
        ("out --prompt a --seed -1", "expected --seed of 0 or more, found -1"),
        ("out --prompt a --top-p much", "expected a number after --top-p, found much"),
        (
            "out --prompt a --provider gpu",
            "expected auto, cpu, openvino, cuda or tensorrt after --provider, found gpu",
        ),
        ("out --prompt a --precision fp8", "expected auto, f32 or bf16 after --precision, found fp8"),
        ("out --prompt a --repeat 0", "expected --repeat of at least 1, found 0"),
        ("out --chat --repeat 2", "expected --repeat or --chat, found both; leave one of them out"),
        (
            "out --prompt=a",
            "expected a bundle folder at out, found nothing; make one with asap-export --output",
        ),
    ],
)
def test_wrong_options_get_one_line(tmp_path: Path, arguments: str, said: str) -> None:
    refused = infer(*arguments.split(), status=2, folder=tmp_path)
    assert (refused.stdout, refused.stderr) == ("", f"error: {said}\n")


def test_help_is_no_error() -> None:
    assert infer("--help").stdout.startswith("usage: asap-infer BUNDLE")


def test_answers_repeat_alike(fp16_bundle: Path) -> None:
    [several] = answers(fp16_bundle, "--prompt", "Say something.", "--repeat", "2", "--max-new-tokens=3")
    assert len(several) == 2 and several[0]["token_ids"] == several[1]["token_ids"]


@pytest.mark.skipif(OPENVINO_BACKEND.exists(), reason="this build has OpenVINO's backend")
def test_a_build_without_openvino_says_so(fp16_bundle: Path) -> None:
    refused = infer(fp16_bundle, "--prompt", "What?", "--provider", "openvino", status=2)
    assert refused.stderr == (
        "error: expected asap_runtime built with OpenVINO, found it built without; use --provider cpu, or build "
        "it where CMake finds OpenVINO\n"
    )


def test_a_wrong_turn_ends_a_script(fp16_bundle: Path) -> None:
    done = infer(fp16_bundle, "--chat", text="/image nowhere.png\nWhat is this?\n", status=2)
    assert done.stderr == "error: expected an image file at nowhere.png, found nothing; check the path\n"


def test_an_unknown_command_is_no_question(fp16_bundle: Path) -> None:
    done = infer(fp16_bundle, "--chat", text="/help\n/imag cat.png\n", status=2)
    unknown = "error: expected a question or a command, found /imag; /help lists the commands\n"
    assert (
        done.stdout == ""
        and done.stderr.startswith("A line is a question.")
        and done.stderr.endswith(unknown)
    )
