"""The tokenizer in one file, as programs without Python get it."""

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import AutoProcessor, ByT5Tokenizer

from asap_export.checkpoint.tokenizer import tokenizer_json
from asap_export.errors import UserError


@pytest.fixture
def processor(random_checkpoint):
    return AutoProcessor.from_pretrained(random_checkpoint, local_files_only=True)


def test_it_gives_the_tokenizers_ids_and_texts(processor) -> None:
    tokenizer = Tokenizer.from_str(tokenizer_json(processor, "here"))
    for text in ("Was ist da? <image><image></s>", "   ", "a\n\nb 猫"):
        ids = processor.tokenizer(text)["input_ids"]
        assert tokenizer.encode(text).ids == ids
        assert tokenizer.decode(ids) == processor.tokenizer.decode(ids, skip_special_tokens=True)


def test_truncation_and_padding_are_left_out(processor) -> None:
    processor.tokenizer.backend_tokenizer.enable_truncation(4)
    processor.tokenizer.backend_tokenizer.enable_padding(length=9)
    tokenizer = Tokenizer.from_str(tokenizer_json(processor, "here"))
    assert tokenizer.truncation is None and tokenizer.padding is None


def test_a_tokenizer_without_such_a_form_is_refused(processor) -> None:
    slow = SimpleNamespace(tokenizer=ByT5Tokenizer(), image_token="<image>")
    with pytest.raises(UserError, match=r"can be written as tokenizer.json, found a ByT5Tokenizer; give"):
        tokenizer_json(slow, "here")


def test_a_form_that_gives_other_ids_is_refused(processor, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(processor.tokenizer)
    lower = normalizers.Lowercase()
    original = kind.__call__

    def in_lower_case(self, text, **options):
        return original(self, lower.normalize_str(text), **options)

    monkeypatch.setattr(kind, "__call__", in_lower_case)
    with pytest.raises(UserError, match=r"to give the ids of the tokenizer in here, found others for"):
        tokenizer_json(processor, "here")
