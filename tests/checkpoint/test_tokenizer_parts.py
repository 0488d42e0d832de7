"""Which tokenizers the C++ runtime is said to refuse; the C++ tests hold it to that."""

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from asap_export.checkpoint.sources import DEMO
from asap_export.checkpoint.tokenizer_parts import SPLIT_PATTERNS, refused_by_cpp


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(models.BPE({"a": 0}, []))


def test_the_demos_tokenizer_is_known() -> None:
    assert refused_by_cpp((DEMO / "tokenizer.json").read_text()) is None


def test_a_component_is_named_with_its_place(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    assert refused_by_cpp(tokenizer.to_str()) == (
        "expected NFC, Prepend, Replace or Sequence as normalizer.normalizers[1], found Lowercase"
    )


def test_another_model_is_refused() -> None:
    said = refused_by_cpp(Tokenizer(models.WordPiece({"a": 0}, unk_token="a")).to_str())
    assert said == "expected BPE as model, found WordPiece"


def test_what_may_come_once_is_refused_a_second_time(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.ByteLevel()] * 2)
    said = refused_by_cpp(tokenizer.to_str())
    assert said == "expected one ByteLevel as pre_tokenizer.pretokenizers[1], found a second"


@pytest.mark.parametrize(
    ("pattern", "known"),
    [(SPLIT_PATTERNS["Qwen2"], True), (SPLIT_PATTERNS["Qwen2"] + "|.", False), (r"\p{L}+", False)],
)
def test_patterns_are_known_as_a_whole(tokenizer: Tokenizer, pattern: str, known: bool) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    said = None if known else "expected the pattern of GPT-2, Llama 3 or Qwen2 as pre_tokenizer.pattern.Regex"
    assert refused_by_cpp(tokenizer.to_str()) == (said and f"{said}, found another")
