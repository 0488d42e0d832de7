"""From the names in a checkpoint's files to the parameter names of transformers' current model classes.

Old checkpoints say ``language_model.model.layers...``, the current classes
``model.language_model.layers...``. The rules that bridge them are transformers' own.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from asap_export.checkpoint.json_file import one_line
from asap_export.checkpoint.shards import TensorPlace, same_bytes
from asap_export.checkpoint.unread import stays_behind
from asap_export.errors import UserError

__all__ = ["by_parameter_name", "empty_model", "listed"]


def empty_model(config: PreTrainedConfig, file: Path) -> PreTrainedModel:
    """The model on the meta device: names, shapes, no memory.

    Raises UserError where the config, from ``file``, describes none that can be made.
    """
    try:
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(config)
    except Exception as error:  # of many kinds, by which setting is wrong
        raise UserError(
            f"expected {file} to describe a model, found that transformers cannot make it: "
            f"{type(error).__name__}: {one_line(error)}; mend it there"
        ) from error


_FLOATS = ("fp64", "fp32", "fp16", "bf16")


def by_parameter_name(
    places: Iterable[TensorPlace], model: PreTrainedModel, origin: str
) -> tuple[dict[str, TensorPlace], list[str]]:
    """Every parameter of ``model`` with its stored tensor, tied ones included, in the order of the model, but for
    those that nothing reads and that are not stored; and the names of stored tensors that are none of them, which
    transformers passes over too.

    Raises UserError that names what is missing, of another shape or kind, or tied and yet different; ``origin`` is
    said in it.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    # Constants that older versions stored and current ones compute.
    computed = {name.rpartition(".")[2] for name, _ in model.named_buffers()}
    found: dict[str, TensorPlace] = {}
    unknown = []
    rename = _Renaming(model, wanted)
    for place in places:
        name = rename(place.name)
        if name in wanted:
            found[name] = place
        elif name.rpartition(".")[2] not in computed:
            unknown.append(place.name)
    for tied, source in model.all_tied_weights_keys.items():
        _tie(found, tied, source)
    absent = [name for name in wanted if name not in found]
    if missing := [name for name in absent if not stays_behind(name, model.config)]:
        raise UserError(
            f"expected all weights of the model in {origin}, found no {listed(missing)}; download it again"
        )
    for name in absent:
        del wanted[name]
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise UserError(
                f"expected {name} of shape {list(shape)} as config.json says, "
                f"found {list(found[name].shape)} in {found[name].file}"
            )
        if found[name].dtype not in _FLOATS:
            raise UserError(
                f"expected {name} in floating point, found {found[name].dtype} in {found[name].file}; "
                "give the checkpoint before quantization"
            )
    return {name: found[name] for name in wanted}, unknown


def _tie(found: dict[str, TensorPlace], tied: str, source: str) -> None:
    """Give two parameters that are one the same place. Either may be the one that was stored, or both.

    Raises UserError where both were stored and differ: transformers would not tie them, and a graph would.
    """
    if tied in found and source in found and not same_bytes(found[tied], found[source]):
        raise UserError(
            f"expected {found[tied].name} and {found[source].name} to be equal, as config.json ties them, found "
            f"other values in {found[tied].file}; set tie_word_embeddings to false in config.json"
        )
    place = found.get(source) or found.get(tied)
    if place is not None:
        found[tied] = found[source] = place


class _Renaming:
    """The renaming that from_pretrained applies to stored names."""

    def __init__(self, model: PreTrainedModel, wanted: dict[str, tuple[int, ...]]) -> None:
        rules = get_model_conversion_mapping(model)
        self.renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self.converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        self.prefix = model.base_model_prefix
        self.wanted = wanted

    def __call__(self, stored: str) -> str:
        name, converted = rename_source_key(stored, self.renamings, self.converters, self.prefix, self.wanted)
        if converted is not None:  # a rule that computes new tensors; none exists for these models
            raise UserError(
                f"expected weights that can be used as stored, found {stored}, which needs conversion"
            )
        if name not in self.wanted and stored in self.wanted:
            return stored
        return str(name)


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
