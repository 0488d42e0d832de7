"""What transformers loads from a checkpoint: the processor, and the whole model for the PyTorch reference."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.utils import logging

from asap_export.checkpoint.checkpoint import Checkpoint
from asap_export.checkpoint.fields import FILES, check_fields
from asap_export.checkpoint.foreign_code import refuse_foreign_code
from asap_export.checkpoint.json_file import one_line, read_object
from asap_export.errors import UserError
from asap_export.model.anyres import TileGeometry, packing
from asap_export.spec import ModelSpec

__all__ = ["TORCH_DTYPES", "check_processor", "load_model", "load_processor", "unsaid_settings"]

TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_processor(folder: Path, spec: ModelSpec) -> ProcessorMixin:
    """Tokenizer, image processor and chat template from the files in ``folder``; never from the network.

    What old files do not say of the vision tower comes from ``spec``, the model's.

    Raises UserError where files are missing, belong to another model, or ask for code of their own.
    """
    _check_files(folder)
    refuse_foreign_code(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of many kinds, by which setting is wrong
        _check_tokenizer(folder / "tokenizer.json")
        raise UserError(
            f"expected the processor's files in {folder}, found: {one_line(error)}; download them again"
        ) from error
    if not isinstance(processor, LlavaNextProcessor | LlavaProcessor):
        found = type(processor).__name__
        raise UserError(f"expected a LlavaNextProcessor or LlavaProcessor in {folder}, found {found}")
    if processor.patch_size is None:
        processor.patch_size = spec.patch_size
    if processor.vision_feature_select_strategy is None:
        processor.vision_feature_select_strategy = "full" if spec.class_token else "default"
    if processor.chat_template is None:  # it may be among the tokenizer's settings alone
        processor.chat_template = getattr(processor.tokenizer, "chat_template", None)
    return processor


def _check_files(folder: Path) -> None:
    """Raise UserError where a file of a processor is none of its kind."""
    for name in FILES:
        with suppress(FileNotFoundError):  # transformers knows which of them it can do without
            check_fields(folder / name, read_object(folder / name))


def _check_tokenizer(file: Path) -> None:
    """Raise UserError where it is this file that cannot be loaded."""
    if file.is_file():
        try:
            Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises nothing more narrow
            raise UserError(
                f"expected a tokenizer in {file}, found: {one_line(error)}; download it again"
            ) from error


def unsaid_settings(folder: Path) -> list[str]:
    """Settings of the vision tower that a processor needs and whose file in ``folder`` does not have them."""
    try:
        settings = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # transformers takes an older form, without the file
        settings = {}
    return [name for name in ("patch_size", "vision_feature_select_strategy") if name not in settings]


def check_processor(folder: Path, spec: ModelSpec) -> ProcessorMixin:
    """The processor in ``folder``. Raises UserError where it makes other tiles or token counts than ``spec`` has.

    Old checkpoints lack the settings that counts depend on, and a count that is off by one would only show
    in the first answer.
    """
    processor, side = load_processor(folder, spec), spec.tile_size
    image = Image.new("RGB", (2 * side, side))
    try:
        inputs = processor(images=[image], text=[processor.image_token])
    except Exception as error:  # of many kinds, by which setting is missing
        raise UserError(
            f"expected a processor in {folder} that takes an image, found: {one_line(error)}; mend its files"
        ) from error
    expected = packing([(side, 2 * side)], TileGeometry.of(spec)).visual_tokens[0]
    found = inputs["input_ids"][0].count(spec.image_token_id)
    height, width = np.asarray(inputs["pixel_values"][0]).shape[-2:]
    if (found, height, width) != (expected, side, side):
        raise UserError(
            f"expected {expected} image tokens for {2 * side} x {side} pixels in tiles of {side} x {side} by "
            f"config.json, found {found} in tiles of {width} x {height} by the processor's files in {folder}; "
            "compare image_token, patch_size, num_additional_image_tokens, vision_feature_select_strategy, sizes"
        )
    return processor


def load_model(checkpoint: Checkpoint, dtype: str, layers: int | None = None) -> PreTrainedModel:
    """The model with its weights as "fp32", "fp16" or "bf16" on the CPU, in eval mode.

    ``layers``: only so many decoder layers, the first; the others' weights are not read.
    """
    config = deepcopy(checkpoint.config)
    text = config.text_config
    if layers is not None:
        text.num_hidden_layers = layers
        if getattr(text, "layer_types", None) is not None:
            text.layer_types = text.layer_types[:layers]
    with _quietly():
        model = AutoModelForImageTextToText.from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=TORCH_DTYPES[dtype],
            local_files_only=True,
            trust_remote_code=False,
        )
    return model.eval()


@contextmanager
def _quietly() -> Iterator[None]:
    """No progress bar, and no list of the layers that were left out on purpose."""
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
