"""Text that is written token by token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_checkpoint import VOCABULARY

from asap_export.bundle import Bundle
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.parity.processor_reader import ProcessorReader
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.prompt import BundleReader
from asap_export.runtime.streaming import TextStream


@pytest.fixture(scope="module")
def reference(random_checkpoint) -> ProcessorReader:
    return ProcessorReader(random_checkpoint, open_checkpoint(random_checkpoint).spec)


@pytest.fixture(scope="module")
def reader(pruned_bundle) -> BundleReader:
    bundle = Bundle.open(pruned_bundle)
    return BundleReader(bundle, OnnxRuntimeSession(bundle.graph_path("preprocess"), "cpu", 1))


def streamed(reader: BundleReader, token_ids: list[int]) -> tuple[list[str], str]:
    stream = TextStream(reader.text)
    pieces = []
    for token in token_ids:
        stream.put(token)
        pieces.append(stream.piece())
    pieces.append(stream.rest())
    return [piece for piece in pieces if piece], stream.text()


@given(st.lists(st.integers(0, VOCABULARY - 1), max_size=30))
def test_pieces_add_up_to_the_text_that_transformers_decodes(
    reader: BundleReader, reference: ProcessorReader, token_ids: list[int]
) -> None:
    pieces, text = streamed(reader, token_ids)
    assert "".join(pieces) == text == reference.text(token_ids).lstrip()


@pytest.mark.parametrize("text", ["Über Wörter", "漢字 and 仮名", "a smile 🙂 here", "naïve café"])
def test_no_piece_splits_a_character(reader: BundleReader, reference: ProcessorReader, text: str) -> None:
    token_ids = reference.tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces, whole = streamed(reader, token_ids)
    assert whole == text
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_that_never_ends_comes_with_the_rest(
    reader: BundleReader, reference: ProcessorReader
) -> None:
    token_ids = reference.tokenizer("x漢", add_special_tokens=False)["input_ids"][:-1]
    pieces, whole = streamed(reader, token_ids)
    assert pieces == ["x"] or whole == "x\ufffd"
    assert whole.startswith("x")
    assert whole.endswith("\ufffd")


def test_no_piece_has_the_space_in_front(reader: BundleReader, reference: ProcessorReader) -> None:
    token_ids = reference.tokenizer(" the sea", add_special_tokens=False)["input_ids"]
    pieces, text = streamed(reader, token_ids)
    assert "".join(pieces) == text == "the sea"
