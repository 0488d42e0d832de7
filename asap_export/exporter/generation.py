"""What of a checkpoint's generation settings its bundle honours, and what it leaves out."""

from typing import Any

from transformers import GenerationConfig

from asap_export.bundle import GenerationInfo

__all__ = ["generation_info"]

# The same in a bundle as in transformers.
_HONOURED = (
    "max_new_tokens", "min_new_tokens", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram_size",
)  # fmt: skip
# What changes no answer, or is told elsewhere. The ids of special tokens are the model's.
_NO_MATTER = {
    "_from_model_config", "bos_token_id", "cache_config", "cache_implementation", "compile_config",
    "disable_compile", "do_sample", "eos_token_id", "low_memory", "output_attentions", "output_hidden_states",
    "output_logits", "output_scores", "pad_token_id", "prefill_chunk_size", "return_dict_in_generate",
    "stop_strings", "temperature", "transformers_version", "use_cache",
}  # fmt: skip
# Factors, exponents and counts that change nothing as 1; all others change nothing as 0, False or nothing.
_NEUTRAL_ONES = {
    "encoder_repetition_penalty", "guidance_scale", "length_penalty", "num_beam_groups", "num_beams",
    "num_return_sequences", "typical_p",
}  # fmt: skip
_TOP_K = 50  # transformers' own where a checkpoint samples and says none


def generation_info(config: GenerationConfig, positions: int) -> GenerationInfo:
    """The defaults of a bundle's requests, of a checkpoint whose model has so many ``positions``.

    A checkpoint that does not sample is greedy, whatever temperature it names, as in transformers; what it says of
    sampling holds once a request asks for a temperature.
    """
    said = {name: value for name in _HONOURED if (value := getattr(config, name, None)) is not None}
    if config.do_sample:
        said["temperature"] = 1.0 if config.temperature is None else config.temperature
        said.setdefault("top_k", _TOP_K)
    if "top_k" in said:
        said["top_k"] = max(0, said["top_k"])  # -1 is other programs' word for all
    stop = config.stop_strings or ()
    left_out = sorted(
        name
        for name, value in config.to_diff_dict().items()
        if name not in {*_HONOURED, *_NO_MATTER} and _changes(name, value, positions)
    )
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    return GenerationInfo(**said, stop=stops, left_out=tuple(left_out))


def _changes(name: str, value: Any, positions: int) -> bool:
    if name == "max_length":  # of prompt and answer; the positions bound them too
        return value is not None and value < positions
    return bool(value) and not (value == 1 and name in _NEUTRAL_ONES)
