"""A contender's process: jobs as JSON lines on stdin, answers as JSON lines on stdout.

    python -m asap_export.bench.worker

The first line names the contender and the number of threads; it is answered when the model is loaded and has run
once. Whatever goes wrong is one line, {"failed": reason}, and the end. Imports are made when they are needed: a
bundle's process has no PyTorch in its memory, and OpenVINO GenAI's runs under another interpreter.
"""

import json
import os
import sys
from pathlib import Path
from typing import IO, Any

from asap_export.bench.records import ON_HOST, Contender, Workload

__all__ = ["main"]


def main() -> None:
    """Answer jobs until stdin ends."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # what libraries print is none
        try:
            _serve(answers)
        except MemoryError:
            _say(answers, {"failed": "expected more memory, found too little; use a larger machine"})
        except Exception as error:
            if type(error).__name__ not in ("UserError", "ValueError", "ImportError", "ModuleNotFoundError"):
                _say(answers, {"failed": _line(f"{type(error).__name__}: {error}")})
                raise  # its traceback is the parent's to show
            _say(answers, {"failed": _line(getattr(error, "message", str(error)))})


def _serve(answers: IO[str]) -> None:
    first = json.loads(sys.stdin.readline())
    threads = int(first["threads"])
    pin(threads)
    runner = _runner(Contender(**first["contender"]), threads, Path(first["folder"]))
    _say(answers, {"weights": runner.weights})
    for line in sys.stdin:
        job = json.loads(line)
        _say(answers, _done(runner, job))


def _done(runner: Any, job: dict[str, Any]) -> dict[str, Any]:
    match job["job"]:
        case "prefill":
            sample: dict[str, Any] = runner.prefill(_workload(job), job["decode_steps"])
            return sample
        case "cache":
            runner.cache(job["length"])
            return {}
        case "decode":
            return {"decode": runner.decode(job["length"], job["steps"])}
        case "rates":
            return {"rates": runner.rates()}
        case "profile":
            return {"profile": runner.profile(_workload(job), job["decode_steps"])}
        case "drop":
            runner.drop()
            return {}
    raise ValueError(f"expected a job, found {job['job']}")


def _workload(job: dict[str, Any]) -> Workload:
    return Workload(**job["workload"])


def _runner(contender: Contender, threads: int, folder: Path) -> Any:
    from asap_export.bench import resident

    if contender.kind == "reference":
        from asap_export.bench.reference import MachineReference

        return MachineReference(threads)
    if contender.kind == "openvino-genai":
        from asap_export.bench.genai_runner import open_genai

        return open_genai(contender, threads)
    if contender.kind == "llama.cpp":
        from asap_export.bench.llama_runner import LlamaRunner

        return LlamaRunner(contender, threads)
    from asap_export.bench.staged import StagedRunner

    if contender.kind == "profiled":
        from asap_export.bench.profiled import ProfiledRunner

        return ProfiledRunner(Path(contender.source), threads, folder)
    memory, note = (resident, None) if contender.provider in ON_HOST else _device_memory()
    if contender.kind == "transformers":
        import torch

        torch.set_num_threads(threads)
        from asap_export.bench.torch_model import open_transformers

        return StagedRunner(open_transformers(contender), memory, note)
    from asap_export.bench.bundle_model import open_bundle

    bundle = open_bundle(Path(contender.source), threads, contender.provider, contender.precision)
    return StagedRunner(bundle, memory, note)


def _device_memory() -> tuple[Any, str | None]:
    """Before anything is loaded; without NVML times are measured all the same."""
    from asap_export.bench.device_memory import DeviceMemory
    from asap_export.errors import UserError

    try:
        return DeviceMemory(), None
    except UserError as error:
        return None, f"device memory was not measured: {error}"


def pin(threads: int) -> None:
    """Let this process, and every thread that it will start, use ``threads`` of its cores only."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _say(answers: IO[str], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _line(text: str) -> str:
    return " ".join(text.split())[:500]


if __name__ == "__main__":
    main()
