"""What an export says when it is done."""

from pathlib import Path

import pytest
from bundle_cases import write_bundle

from asap_export.cli.summary import print_summary
from asap_export.graph.write import Written


def test_a_template_that_stays_whole_is_mentioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_bundle(tmp_path / "out")
    print_summary(bundle, {}, Written())
    assert "prompts" not in capsys.readouterr().out
    print_summary(bundle, {}, Written(), "writes the date")
    said = " ".join(capsys.readouterr().out.split())
    assert "prompts programs without Python write them whole: the chat template writes the date" in said


def test_passes_that_are_left_out_are_mentioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_bundle(tmp_path / "out")
    print_summary(bundle, {}, Written())
    assert "CPU" not in capsys.readouterr().out
    print_summary(bundle, {}, Written(), passes_refused="without fused-attention: heads of 20")
    assert "CPU the decoder goes without fused-attention: heads of 20" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_tokenizer_that_cpp_refuses_is_mentioned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_bundle(tmp_path / "out")
    print_summary(bundle, {}, Written())
    assert "the C++ runtime" not in capsys.readouterr().out
    print_summary(bundle, {}, Written(), tokenizer_refused="expected BPE as model, found Unigram")
    said = " ".join(capsys.readouterr().out.split())
    assert "tokenizer the C++ runtime takes token ids only: expected BPE as model, found Unigram" in said
