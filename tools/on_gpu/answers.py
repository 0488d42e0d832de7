"""Part ``eval``: what ``asap-export eval --device cuda`` runs, beside the host and at real size."""

import gc
import json
import statistics
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

from asap_export.bench.synthetic import model_config
from asap_export.bundle.presets import find_preset
from asap_export.checkpoint.loading import TORCH_DTYPES
from asap_export.checkpoint.sizes import model_spec
from asap_export.evaluation import EvaluationRequest, evaluate
from asap_export.evaluation.device import memory_of, needed_by, rows_in
from asap_export.evaluation.reading import Head, ReadPicture
from asap_export.evaluation.torch_answers import TorchAnswers
from asap_export.memory import gigabytes
from asap_export.model.anyres import TileGeometry, packing, tile_count
from asap_export.pruning.config import PruningConfig
from on_gpu.steps import Setting, Steps

LIKE = "llava-v1.6-vicuna-7b"
PRUNINGS = {"dense": PruningConfig("none"), "fastv": PruningConfig("fastv"), "asap": PruningConfig()}
SIZE = (672, 672)  # pixels, and so 2,928 visual tokens, the most that an image has
KEEP, QUESTIONS, TEXT, NEW_TOKENS = 478, 8, 32, 16


def measure(setting: Setting, steps: Steps) -> None:
    """The demo's answers on the device and on the host, and a picture's at real size."""
    steps.run("demo, fp32", lambda: compare_demo(setting, "fp32"))
    steps.run("demo, fp16", lambda: compare_demo(setting, "fp16"))
    if setting.rehearsal:
        steps.run(f"like {LIKE}, scaled", lambda: measure_picture(setting, "fp32", scale=0.02, layers=3))
    else:
        steps.run(f"like {LIKE}", lambda: measure_picture(setting, "bf16", scale=1.0, layers=setting.layers))


def compare_demo(setting: Setting, dtype: str) -> dict[str, Any]:
    """Answers that differ between the device in ``dtype`` and the host in float32, and right answers of both."""
    limit = 1 if setting.rehearsal else 160
    host, there = demo_answers("cpu", "fp32", limit), demo_answers(setting.device, dtype, limit)
    pairs = zip(host["answers"], there["answers"], strict=True)
    differ = sum(one[run] != other[run] for one, other in pairs for run in one)
    total = sum(map(len, host["answers"]))
    facts = {
        name: {key: of[key] for key in ("right", "seconds")}
        for name, of in (("host", host), ("device", there))
    }
    said = f"{differ} of {total} answers differ from the host's in fp32"
    return {"said": said, "answers": total, "differ": differ, **facts}


@cache
def demo_answers(device: str, dtype: str, limit: int) -> dict[str, Any]:
    """What ``eval`` finds: by question the answers of all runs, how many are right, and how long it took."""
    with tempfile.TemporaryDirectory() as folder:
        begin = perf_counter()
        request = EvaluationRequest(limit=limit, output=Path(folder), device=device, dtype=dtype)
        facts = evaluate(request).facts
        seconds = perf_counter() - begin
        lines = (Path(folder) / "records.jsonl").read_text().splitlines()
    answers = [json.loads(line)["found"]["torch"] for line in lines]
    return {"answers": answers, "right": sum(run["correct"] for run in facts["runs"]), "seconds": seconds}


def measure_picture(setting: Setting, dtype: str, scale: float, layers: int | None) -> dict[str, Any]:
    """Seconds of a picture's vision encoder and of all its answers with random weights, by method; peak memory
    beside what ``eval`` asks for before it starts."""
    device, itemsize = torch.device(setting.device), TORCH_DTYPES[dtype].itemsize
    preset = find_preset(LIKE)
    assert preset is not None
    config = AutoConfig.for_model(**model_config(preset, layers, dtype, scale))
    with torch.device(device):
        llava = AutoModelForImageTextToText.from_config(config, dtype=TORCH_DTYPES[dtype]).eval()
    spec = replace(model_spec(config, GenerationConfig(), dtype), eos_token_ids=())  # nobody ends early
    weights = sum(parameter.nbytes for parameter in llava.parameters())
    needed = needed_by(spec, weights, itemsize, NEW_TOKENS, device)
    rows = rows_in(needed, memory_of(device))
    answers = TorchAnswers(llava, spec, NEW_TOKENS, rows)
    read, seconds = (
        random_picture(TileGeometry.of(spec), spec.image_token_id),
        {name: [] for name in PRUNINGS},
    )
    seconds["vision"] = []
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for number in range(1 + setting.rounds):
        begin = perf_counter()
        seen = answers.look(read)
        wait(device)
        taken = {"vision": perf_counter() - begin}
        for name, pruning in PRUNINGS.items():
            begin = perf_counter()
            answers.answer(seen, pruning, KEEP)
            taken[name] = perf_counter() - begin
        if number:  # the first round warms up
            for name, value in taken.items():
                seconds[name].append(value)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    asked = needed.fixed + min(rows, QUESTIONS) * needed.row
    memory = f"; peak {gigabytes(peak)} of {gigabytes(asked)} asked for" if peak else ""
    times = ", ".join(f"{name} {value:.2f} s" for name, value in medians.items())
    return {
        "said": f"{QUESTIONS} questions, {rows} at once: {times}{memory}",
        "dtype": dtype,
        "layers": spec.layers,
        "visual_tokens": read.visual_tokens,
        "keep": KEEP,
        "rows": rows,
        "median_seconds": medians,
        "seconds": seconds,
        "peak_bytes": peak,
        "asked_bytes": asked,
        "weight_bytes": weights,
    }


def random_picture(geometry: TileGeometry, image_token_id: int) -> ReadPicture:
    """Noise, and questions of noise."""
    noise = np.random.default_rng(0)
    pixels = noise.normal(size=(tile_count(SIZE, geometry), 3, geometry.tile_size, geometry.tile_size))
    visual = packing([SIZE], geometry).visual_tokens[0]
    text = noise.integers(1000, 20_000, (QUESTIONS + 1, TEXT))
    ids = np.concatenate([text[0], np.full(visual, image_token_id)])
    tails = dict(enumerate(text[1:]))
    return ReadPicture(pixels.astype(np.float32), SIZE, visual, (Head(ids, tails),))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
