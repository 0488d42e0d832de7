"""A checkpoint's config.json and generation_config.json, as transformers reads them."""

from pathlib import Path

from transformers import GenerationConfig, LlavaConfig, LlavaNextConfig, PreTrainedConfig

from asap_export.checkpoint.fields import check_fields
from asap_export.checkpoint.json_file import one_line, read_object
from asap_export.checkpoint.sizes import ARCHITECTURES, check_config, read_json
from asap_export.errors import UserError

__all__ = ["generation_config", "read_config"]

_CLASSES: dict[str, type[PreTrainedConfig]] = {"llava": LlavaConfig, "llava_next": LlavaNextConfig}


def read_config(file: Path) -> PreTrainedConfig:
    """A LLaVA-NeXT or LLaVA-1.5 checkpoint's config.json.

    Raises UserError where the file is missing or damaged and where the model is none that can be exported.
    """
    raw = read_json(file)
    model_type = raw["model_type"]
    try:
        config = _CLASSES[model_type].from_dict(raw)
    except Exception as error:  # whichever field is wrong, transformers' classes raise errors of many kinds
        raise UserError(
            f"expected {file} to describe a {ARCHITECTURES[model_type]}, found: {one_line(error)}"
        ) from error
    check_config(file, config)
    return config


def generation_config(folder: Path, config: PreTrainedConfig) -> GenerationConfig:
    """The folder's generation_config.json; where it has none, what transformers makes of the config.

    Raises UserError where the file is damaged.
    """
    file = folder / "generation_config.json"
    if not file.is_file():
        return GenerationConfig.from_model_config(config)
    check_fields(file, read_object(file))
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of many kinds, by which setting is wrong
        raise UserError(
            f"expected generation settings in {file}, found: {one_line(error)}; mend or remove it"
        ) from error
