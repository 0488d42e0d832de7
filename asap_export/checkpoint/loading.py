"""What transformers loads from a checkpoint: the processor, and the whole model for the PyTorch reference."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoProcessor, LlavaNextForConditionalGeneration, LlavaNextProcessor
from transformers.utils import logging

from asap_export.checkpoint.checkpoint import Checkpoint
from asap_export.errors import UserError

__all__ = ["TORCH_DTYPES", "load_model", "load_processor"]

TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_processor(folder: Path) -> LlavaNextProcessor:
    """Tokenizer, image processor and chat template from the files in ``folder``; never from the network.

    Raises UserError where files are missing or belong to another model.
    """
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"expected the processor's files in {folder}, found: {reason}") from error
    if not isinstance(processor, LlavaNextProcessor):
        raise UserError(f"expected a LlavaNextProcessor in {folder}, found {type(processor).__name__}")
    if processor.patch_size is None or processor.vision_feature_select_strategy is None:
        raise UserError(
            f"expected patch_size and vision_feature_select_strategy in {folder / 'processor_config.json'}, "
            "found none; copy them from config.json"
        )
    return processor


def load_model(checkpoint: Checkpoint, dtype: str) -> LlavaNextForConditionalGeneration:
    """The model with its weights as "fp32", "fp16" or "bf16" on the CPU, in eval mode."""
    with _no_progress_bar():
        model = LlavaNextForConditionalGeneration.from_pretrained(
            checkpoint.folder, dtype=TORCH_DTYPES[dtype], local_files_only=True
        )
    return model.eval()


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
