"""OpenVINO GenAI as a contender: a converted checkpoint in its own pipeline, dense.

It runs under whichever Python has ``openvino_genai``, which need not have this package's other dependencies: so
this module imports nothing of ours that needs them. The pipeline is one call, so two things differ from the
other contenders, and samples say so. Its own reading of the image decides the number of visual tokens: features
cannot be cut to a wanted number. And it tells the whole time of its embeddings, so "vision" is its vision
encoding and "embed" what is left of that."""

from pathlib import Path
from typing import Any

from asap_export.bench.records import Workload
from asap_export.bench.resident import give_back, in_use, peak, reset_peak

__all__ = ["OpenVinoRunner", "open_openvino"]

_WORDS = "one two three four five six seven eight nine ten "


def open_openvino(source: str, threads: int) -> "OpenVinoRunner":
    """The converted model in the folder ``source``, in float32. Raises ValueError where it cannot run."""
    if not source:
        raise ValueError("expected a converted model for OpenVINO GenAI, found none; give --openvino-model")
    try:
        import openvino_genai
    except ImportError as error:
        raise ValueError(
            "expected the Python package openvino_genai, found none; pip install openvino-genai optimum-intel "
            "into an environment of its own and give its interpreter with --openvino-python"
        ) from error
    properties = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
    }
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.enable_prefix_caching = False  # the same prompt comes in every round
    pipeline = openvino_genai.VLMPipeline(source, "CPU", scheduler_config=scheduler, **properties)
    return OpenVinoRunner(pipeline, openvino_genai)


class OpenVinoRunner:
    """Jobs of the worker, like ``StagedRunner``'s; a decoded length is asked as a text of about as many
    tokens."""

    def __init__(self, pipeline: Any, library: Any) -> None:
        self._pipeline, self._library = pipeline, library
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
        raw = metrics.vlm_raw_metrics
        vision = sum(_seconds(raw.vision_encoding_durations))
        whole = sum(_seconds(raw.prepare_embeddings_durations))
        # Of a prompt that it runs in several pieces, the first of its "infer" durations is the last piece's alone.
        first = _seconds(metrics.raw_metrics.m_times_to_first_token)[0] - whole
        steps = _seconds(metrics.raw_metrics.token_infer_durations)[1:]
        text = sum(_seconds(metrics.raw_metrics.tokenization_durations))
        return {
            "seconds": {
                "preprocess": text,
                "vision": vision,
                "embed": max(0.0, whole - vision - text),
                "prefill": first,
            },
            "decode": steps[1:],
            "cache_length": int(metrics.get_num_input_tokens()),
            "kv_bytes": None,
            "kv_held_bytes": None,
            "peak_above_weights": max(0, highest - self.weights) if measurable else None,
            "peak": highest if measurable else None,
            "note": "prompt as the pipeline makes it; memory includes its vision encoder's",
        }

    def _filled(self, workload: Workload) -> str:
        """The question as often as about fills the text tokens; the chat template's come on top."""
        once = self._pipeline.get_tokenizer().encode(workload.prompt).input_ids.shape[1]
        return " ".join([workload.prompt] * max(1, workload.text_tokens // once))

    def cache(self, length: int) -> None:
        """Nothing to make beforehand: the pipeline keeps no cache between calls."""

    def decode(self, length: int, steps: int) -> list[float]:
        """Seconds of ``steps`` tokens behind a text of about ``length`` tokens, the first one not counted."""
        words = _WORDS.split()
        text = " ".join(words[place % len(words)] for place in range(length))
        once = self._generate(text, [], 2).get_num_input_tokens()
        fitting = " ".join(words[place % len(words)] for place in range(max(1, length * length // once)))
        metrics = self._generate(fitting, [], steps + 2)
        return _seconds(metrics.raw_metrics.token_infer_durations)[2:]

    def drop(self) -> None:
        """Forget all caches: there are none."""

    def _generate(self, prompt: str, pictures: list[Any], new_tokens: int) -> Any:
        config = self._library.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = new_tokens, True, False
        images = {"images": pictures} if pictures else {}
        return self._pipeline.generate(prompt, generation_config=config, **images).perf_metrics


def _tensor(file: Path) -> Any:
    import numpy
    import openvino
    from PIL import Image

    return openvino.Tensor(numpy.asarray(Image.open(file).convert("RGB"))[None])


def _seconds(microseconds: Any) -> list[float]:
    return [value / 1e6 for value in microseconds]
