"""The checkpoint's tokenizer in one file, ``tokenizer.json``, that programs without Python can read."""

from typing import Any

from tokenizers import Tokenizer
from transformers import ProcessorMixin

from asap_export.errors import UserError

__all__ = ["chat_template", "tokenizer_json"]

# What tokenizers are told apart by: spaces at either end and in runs, line ends, digits, scripts, special tokens.
_SAMPLES = (
    "",
    "What is on the mat?",
    "  two spaces,\ttab\n\n and lines \r\n",
    'In 2026: 1,234,567.89 (about 50%) it\'s "quoted" naïve façade',
    "Что на коврике? 垫子上有什么？ マットの上に何がある？ चटाई पर क्या है? ماذا يوجد على الحصيرة؟",
    "👩‍👩‍👧 ﬁ Å A\u030a \u00a0\u3000 \ue000",
    "def f(x):\n    return x ** 2  # <b>&amp;</b>",
)


def chat_template(processor: ProcessorMixin) -> str | None:
    """The chat template that a loaded processor uses, in Jinja; of several the default one. None without one."""
    found: str | dict[str, str] | None = processor.chat_template
    return found.get("default") if isinstance(found, dict) else found


def tokenizer_json(processor: ProcessorMixin, place: str) -> str:
    """The text of ``tokenizer.json``: what the loaded tokenizer computes, without truncation or padding.

    Raises UserError where it has no such form or its form computes something else; ``place`` is where its files
    are.
    """
    tokenizer: Any = processor.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise UserError(
            f"expected a tokenizer in {place} that can be written as tokenizer.json, found a "
            f"{type(tokenizer).__name__}; give a checkpoint with a fast tokenizer"
        )
    plain = Tokenizer.from_str(backend.to_str())
    plain.no_truncation()
    plain.no_padding()
    special = [str(token) for token in tokenizer.all_special_tokens]
    samples = (*_SAMPLES, *(f"{token}\nand {token}{token} " for token in (processor.image_token, *special)))
    for sample in samples:
        for adds in (True, False):
            expected = tokenizer(sample, add_special_tokens=adds)["input_ids"]
            if plain.encode(sample, add_special_tokens=adds).ids != expected:
                raise UserError(
                    f"expected tokenizer.json to give the ids of the tokenizer in {place}, found others for "
                    f"{sample!r}; please report this checkpoint"
                )
    written: str = plain.to_str()
    return written
