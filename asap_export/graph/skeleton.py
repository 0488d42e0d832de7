"""The checkpoint's model without its weights, as it is traced."""

import torch
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

__all__ = ["weightless_model"]


def weightless_model(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model on the meta device, so that a 7B decoder is traced in megabytes.

    Buffers that are no part of a checkpoint (rotary frequencies, position numbers) hold their real values:
    they become constants of the graph.
    """
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
    for part in model.modules():
        if not isinstance(part, PreTrainedModel):
            continue
        for module in part.modules():
            if not module._non_persistent_buffers_set:
                continue
            for name in module._non_persistent_buffers_set:
                buffer = module.get_buffer(name)
                module._buffers[name] = torch.empty_like(buffer, device="cpu")
            part._init_weights(module)
    return model
