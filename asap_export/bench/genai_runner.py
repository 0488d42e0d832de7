"""OpenVINO GenAI as a contender: a converted checkpoint in its own pipeline, dense.

It runs under whichever Python has ``openvino_genai``, which need not have this package's other dependencies: so
this module imports nothing of ours that needs them. The pipeline is one call, so some things differ from the
other contenders, and samples say so. Its own reading of the image decides the number of visual tokens: features
cannot be cut to a wanted number. It takes text and no token ids, and keeps no cache from one call to the next.
And it tells the whole time of its embeddings: "vision" is its vision encoding, "embed" what is left of that."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from asap_export.bench.records import Contender, Workload
from asap_export.bench.resident import give_back, in_use, peak, reset_peak

__all__ = ["GenaiRunner", "open_genai"]

_WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "u8": 1, "i8": 1, "u4": 0.5}  # of one number in a cache
_F32 = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


def open_genai(contender: Contender, threads: int) -> "GenaiRunner":
    """The converted model in ``contender``'s folder, in its precision. Raises ValueError without the library."""
    try:
        openvino, library = import_module("openvino"), import_module("openvino_genai")
    except ImportError as error:
        raise ValueError(
            "expected the Python package openvino_genai, found none; pip install openvino-genai "
            "'optimum-intel[nncf]' into an environment of its own and give its interpreter with --openvino-python"
        ) from error
    properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
    properties |= _F32 if contender.precision == "f32" else {}
    scheduler = library.SchedulerConfig()
    scheduler.enable_prefix_caching = False  # the same prompt comes in every round
    scheduler.max_num_batched_tokens = sys.maxsize  # a prompt in one piece, as the pipeline has it by itself
    pipeline = library.VLMPipeline(contender.source, "CPU", scheduler_config=scheduler, **properties)
    core = openvino.Core()
    core.set_property("CPU", properties)
    language = json.loads(Path(contender.source, "config.json").read_text())["text_config"]
    return GenaiRunner(pipeline, library, _settings(core), language)


def _settings(core: Any) -> dict[str, str]:
    """What OpenVINO computes and keeps caches in, in its own words. Dynamic quantization is that of activations in
    front of weights of 8 and of 4 bits."""
    computed = core.get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
    kept = core.get_property("CPU", "KV_CACHE_PRECISION").get_type_name()
    groups = core.get_property("CPU", "DYNAMIC_QUANTIZATION_GROUP_SIZE")
    return {"computes in": computed, "KV cache in": kept, "dynamic quantization in groups of": str(groups)}


class GenaiRunner:
    """Jobs of the worker, like ``StagedRunner``'s. ``language``: the language model's part of config.json."""

    def __init__(
        self, pipeline: Any, library: Any, settings: dict[str, str], language: dict[str, Any]
    ) -> None:
        self._pipeline, self._library = pipeline, library
        told = ", ".join(f"{what} {value}" for what, value in settings.items())
        self._note = f"{told}; prompt as the pipeline makes it; memory includes its vision encoder's"
        heads = language.get("num_key_value_heads") or language["num_attention_heads"]
        size = language.get("head_dim") or language["hidden_size"] // language["num_attention_heads"]
        bytes_each = _BYTES.get(settings["KV cache in"], 4)
        self._kv_bytes = (
            2 * language["num_hidden_layers"] * heads * size * bytes_each
        )  # of a token, scales apart
        self._texts: dict[int, str] = {}
        self._generate("one", [], 2)
        give_back()
        self.weights = in_use()

    def prefill(self, workload: Workload, decode_steps: int) -> dict[str, Any]:
        """One prompt from image files to logits, then ``decode_steps`` tokens, of which the first is not
        counted."""
        pictures = [_tensor(Path(file)) for file in workload.images]
        measurable = reset_peak()
        metrics = self._generate(self._filled(workload), pictures, decode_steps + 1)
        highest = peak()
        vision = sum(_seconds(metrics.vlm_raw_metrics.vision_encoding_durations))
        whole = sum(_seconds(metrics.vlm_raw_metrics.prepare_embeddings_durations))
        text = sum(_seconds(metrics.raw_metrics.tokenization_durations))
        # The first of its "infer" durations is of the last piece alone where a prompt runs in several.
        first = _seconds(metrics.raw_metrics.m_times_to_first_token)[0] - whole
        steps = _seconds(metrics.raw_metrics.token_infer_durations)[1:]
        tokens = int(metrics.get_num_input_tokens())
        return {
            "seconds": {
                "preprocess": text,
                "vision": vision,
                "embed": max(0.0, whole - vision - text),
                "prefill": first,
            },
            "decode": steps[1:],
            "cache_length": tokens,
            "kv_bytes": int(self._kv_bytes * tokens),
            "kv_held_bytes": None,
            "peak_above_weights": max(0, highest - self.weights) if measurable else None,
            "peak": highest if measurable else None,
            "note": self._note,
        }

    def cache(self, length: int) -> None:
        """Find the text of about so many tokens, its chat template included."""
        text = _text(length)
        found = self._generate(text, [], 1).get_num_input_tokens()
        self._texts[length] = _text(max(1, length - (found - length) * length // found))

    def decode(self, length: int, steps: int) -> list[float]:
        """Seconds of ``steps`` tokens behind a text of about ``length`` tokens, the first one not counted."""
        if length not in self._texts:
            self.cache(length)
        metrics = self._generate(self._texts[length], [], steps + 2)
        return _seconds(metrics.raw_metrics.token_infer_durations)[2:]

    def drop(self) -> None:
        """Forget all texts; there are no caches."""
        self._texts.clear()

    def _filled(self, workload: Workload) -> str:
        """The question as often as about fills the text tokens; the chat template's come on top."""
        once = self._pipeline.get_tokenizer().encode(workload.prompt).input_ids.shape[1]
        return " ".join([workload.prompt] * max(1, workload.text_tokens // once))

    def _generate(self, prompt: str, pictures: list[Any], new_tokens: int) -> Any:
        config = self._library.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = new_tokens, True, False
        images = {"images": pictures} if pictures else {}
        return self._pipeline.generate(prompt, generation_config=config, **images).perf_metrics


def _text(words: int) -> str:
    return " ".join(_WORDS[place % len(_WORDS)] for place in range(words))


def _tensor(file: Path) -> Any:
    import numpy
    from PIL import Image

    return import_module("openvino").Tensor(numpy.asarray(Image.open(file).convert("RGB"))[None])


def _seconds(microseconds: Any) -> list[float]:
    return [value / 1e6 for value in microseconds]
