"""An error names options as its reader writes them: on the command line, or in Python."""

import pytest

from asap_export.errors import UserError


@pytest.mark.parametrize(
    ("on_the_command_line", "in_python"),
    [
        ("expected --keep-ratio in (0, 1], found 2", "expected keep_ratio in (0, 1], found 2"),
        (
            "give one of --keep, --keep-ratio and --budget; lower --max-text.",
            "give one of keep, keep_ratio and budget; lower max_text.",
        ),
        ("(--no-check-memory tries all the same)", "(check_memory=False tries all the same)"),
        # What is typed as it is, and what is no option.
        (
            "make one with asap-export --output; pass --overwrite",
            "make one with asap-export --output; pass overwrite",
        ),
        (
            "asap-export flops --list names those; change --model",
            "asap-export flops --list names those; change model",
        ),
        (
            'pip install "asap-export[gpu]" or use --provider cpu',
            'pip install "asap-export[gpu]" or use provider cpu',
        ),
        ("expected --model_args bundle=FOLDER", "expected --model_args bundle=FOLDER"),
        ("found /pictures/--keep.png", "found /pictures/--keep.png"),
        ("found a--b and models--llava-hf--x", "found a--b and models--llava-hf--x"),
    ],
)
def test_options_are_arguments_in_python(on_the_command_line: str, in_python: str) -> None:
    error = UserError(on_the_command_line)
    assert (error.message, str(error)) == (on_the_command_line, in_python)
