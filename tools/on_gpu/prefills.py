"""Part ``reference``: dense, FastV and ASAP prefills at full size, by the reference and by the device's form."""

import gc
import os
import statistics
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asap_export.model.device import DeviceCache, DeviceDecoder
from asap_export.model.reference import Reference
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.device.merging import ROUNDS
from on_gpu.cut_times import attention_times, cut_times
from on_gpu.random_model import random_llava, random_prompt
from on_gpu.setting import Setting
from on_gpu.steps import Absent, Steps
from on_gpu.timing import Call, captured, interleaved, summary

PRUNINGS = {
    "dense": PruningConfig("none"),
    "fastv": PruningConfig("fastv"),
    "asap": PruningConfig(),
    "asap received": PruningConfig(score="received"),
}
OVERHEAD_GOAL = 0.5  # ms of ASAP over FastV
RATIO_GOAL = 1.10  # of the FLOPs ratio
DECODED = 8  # tokens there is room for


class Prefill(NamedTuple):
    """logits: [1, 1, V]; kept_index: [1, K] int64; settled: [] bool, None where the reference looks itself;
    cache: for decode steps, or whatever else holds the keys and values."""

    logits: Tensor
    kept_index: Tensor
    settled: Tensor | None
    cache: Any


def measure(setting: Setting, steps: Steps) -> None:
    """All steps of the part. What has the newest code comes last: an illegal access ends all that follow it."""
    bench = Bench(setting)
    if steps.run("model", bench.make) is None:
        return
    steps.run("waits for the host", bench.waits)
    steps.run("memory", lambda: bench.memory("reference", "device"))
    steps.run("prefill, reference", lambda: bench.prefills("reference"))
    steps.run("prefill, device", lambda: bench.prefills("device"))
    steps.run("decode", bench.decode)
    steps.run("agreement, device", lambda: bench.agreement("device"))
    steps.run("rounds of merging", bench.rounds)
    steps.run("attention of one layer", lambda: attention_times(setting))
    steps.run("steps of the cut", lambda: cut_times(setting))
    steps.run("prefill, device, captured", lambda: bench.captured_prefills("device"))
    steps.run("decode, captured", lambda: bench.decode(capture=True))
    steps.run("prefill, fused", lambda: bench.prefills("fused"))
    steps.run("agreement, fused", lambda: bench.agreement("fused"))
    steps.run("memory, fused", lambda: bench.memory("fused"))
    steps.run("attention of one layer, fused", lambda: attention_times(setting, fused=True))
    steps.run("steps of the cut, fused", lambda: cut_times(setting, fused=True))
    steps.run("prefill, fused, captured", lambda: bench.captured_prefills("fused"))


def need_cuda(setting: Setting, what: str) -> None:
    if setting.rehearsal:
        raise Absent(f"{what} is CUDA's alone, and this is a rehearsal on a CPU")


def need_triton(setting: Setting) -> None:
    import triton  # noqa: F401

    if setting.rehearsal and os.environ.get("TRITON_INTERPRET") != "1":
        raise Absent("Triton runs on a CPU with TRITON_INTERPRET=1 only")


class Bench:
    """The model and its prompt, and what is measured on them.

    A form is ``reference``: model/reference.py, with masks; ``device``: model/device.py, without; or ``fused``:
    the same with Triton kernels.
    """

    llava: Any
    embeds: Tensor
    visual_mask: Tensor

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._rounds: dict[tuple[str, str], int] = {}

    def make(self) -> dict[str, Any]:
        self.llava = random_llava(self.setting)
        self.embeds, self.visual_mask = random_prompt(self.setting)
        weights = sum(parameter.nbytes for parameter in self.llava.parameters())
        text, keep = self.setting.text, self.setting.keep
        return {
            "like": self.setting.like,
            "dtype": str(self.setting.dtype).removeprefix("torch."),
            "shape": vars(self.setting.shape),
            "visual_tokens": self.setting.visual,
            "text_tokens": text,
            "keep": keep,
            "weight_bytes": weights,
            "flops_ratio": self.setting.flops_ratio,
        }

    def prefill(self, name: str, form: str) -> Prefill:
        """One prefill from embeddings to logits."""
        setting, pruning = self.setting, PRUNINGS[name]
        if form == "reference":
            reference = Reference(self.llava, pruning)
            valid = torch.ones_like(self.visual_mask, dtype=torch.int64)
            output, context = reference.advance(
                self.embeds, valid, self.visual_mask, setting.keep, reference.empty_context(1)
            )
            return Prefill(output.logits, output.kept_index, None, context)
        decoder = DeviceDecoder(self.llava, pruning, fused=form == "fused")
        kept = setting.kept_length(pruning)
        cache = decoder.cache(kept, DECODED)
        found = decoder.prefill(self.embeds, self.visual_mask, kept, cache, self._enough_rounds(name, form))
        return Prefill(*found, cache)

    def _enough_rounds(self, name: str, form: str) -> int:
        """Rounds after which merging has settled: looked for once, for what is captured cannot look."""
        if (name, form) not in self._rounds:
            self._rounds[name, form] = ROUNDS
            if not bool(self.prefill(name, form).settled):
                self._rounds[name, form] = self.setting.kept_length(PRUNINGS[name])
        return self._rounds[name, form]

    def calls(self, form: str) -> dict[str, Call]:
        """Prefills to compare; ``received`` without the kernels would make T x T numbers once for every head."""
        if form == "fused":
            need_triton(self.setting)
        names = [name for name in PRUNINGS if form != "device" or name != "asap received"]
        return {name: partial(self.prefill, name, form) for name in names}

    def prefills(self, form: str) -> dict[str, Any]:
        return self._compared(self.calls(form))

    def captured_prefills(self, form: str) -> dict[str, Any]:
        """The same as CUDA graphs: the device's own time, without the host's."""
        need_cuda(self.setting, "a CUDA graph")
        return self._compared({name: captured(call) for name, call in self.calls(form).items()})

    def _compared(self, calls: dict[str, Call]) -> dict[str, Any]:
        times = interleaved(calls, self.setting.rounds, self.setting.device)
        return {name: summary(each) for name, each in times.items()} | {
            "goals": [goal for name in times if name.startswith("asap") for goal in self._goals(name, times)]
        }

    def _goals(self, name: str, times: dict[str, list[float]]) -> list[dict[str, Any]]:
        over = [ours - theirs for ours, theirs in zip(times[name], times["fastv"], strict=True)]
        ratio = statistics.median(times[name]) / statistics.median(times["dense"])
        overhead = statistics.median(over)
        allowed = RATIO_GOAL * self.setting.flops_ratio
        return [
            self._goal(f"{name} over fastv", overhead, OVERHEAD_GOAL, "ms"),
            self._goal(f"{name} over dense", ratio, allowed, "of dense"),
        ]

    def _goal(self, name: str, found: float, allowed: float, unit: str) -> dict[str, Any]:
        reached = None if self.setting.rehearsal else found <= allowed
        return {"goal": name, "found": found, "allowed": allowed, "unit": unit, "reached": reached}

    def waits(self) -> dict[str, Any]:
        """PyTorch raises where the device's form waits for a value, and tells what the reference waits for."""
        need_cuda(self.setting, "a wait for the device")
        for name in ("dense", "fastv", "asap"):
            self.prefill(name, "device")  # what libraries set up at first may wait
        torch.cuda.set_sync_debug_mode("error")
        try:
            for name in ("dense", "fastv", "asap"):
                self.prefill(name, "device")
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return {"device": "waits for nothing"}

    def memory(self, *forms: str) -> dict[str, Any]:
        """Peak of the device's memory above weights and prompt, cache included, in bytes."""
        need_cuda(self.setting, "a count of device memory")
        peaks = {}
        for form in forms:
            for name, call in self.calls(form).items():
                call()
                gc.collect()
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                call()
                torch.cuda.synchronize()
                peaks[f"{name}, {form}"] = torch.cuda.max_memory_allocated() - before
        return peaks

    def decode(self, capture: bool = False) -> dict[str, Any]:
        """A decode step behind each prefill's cache, again and again at the same place."""
        if capture:
            need_cuda(self.setting, "a CUDA graph")
        calls: dict[str, Call] = {}
        lengths = {}
        for name in ("dense", "fastv", "asap"):
            decoder = DeviceDecoder(self.llava, PRUNINGS[name])
            cache: DeviceCache = self.prefill(name, "device").cache
            lengths[name] = cache.length
            call = partial(_step, decoder, cache, self.embeds[:, :1].clone(), cache.length)
            calls[name] = captured(call) if capture else call
        times = interleaved(calls, 3 * self.setting.rounds, self.setting.device)
        return {name: {"cache_tokens": lengths[name], **summary(each)} for name, each in times.items()}

    def rounds(self) -> dict[str, bool]:
        """After how many rounds merging has settled on this prompt."""
        decoder = DeviceDecoder(self.llava, PRUNINGS["asap"])
        kept = self.setting.kept_length(PRUNINGS["asap"])
        settled = {}
        for rounds in (1, 2, 4, 8, 16, 32):
            cache = decoder.cache(kept, DECODED)
            found = decoder.prefill(self.embeds, self.visual_mask, kept, cache, rounds)
            settled[str(rounds)] = bool(found.settled)
        return settled

    def agreement(self, form: str) -> dict[str, Any]:
        """With the reference on the same prompt; attention kernels round otherwise, so scores may be near ties."""
        found = {}
        for name in self.calls(form):
            ours, theirs = self.prefill(name, form), self.prefill(name, "reference")
            same = torch.isin(ours.kept_index, theirs.kept_index).float().mean()
            largest = theirs.logits.abs().max()
            found[name] = {
                "settled": ours.settled is None or bool(ours.settled),
                "kept_by_both": float(same),
                "logits_error": float((ours.logits - theirs.logits).abs().max() / largest),
                "finite": bool(ours.logits.isfinite().all()),
            }
        return found


def _step(decoder: DeviceDecoder, cache: DeviceCache, embeds: Tensor, length: int) -> Tensor:
    """A step that leaves the cache as long as it was."""
    cache.length = length
    logits = decoder.step(embeds, cache)
    cache.length, cache.position = length, cache.position - 1
    return logits
