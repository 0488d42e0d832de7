"""Check and measure on a CUDA device what users run there, in one report.

    python tools/gpu_check.py [--json FILE] [--parts operators,eval,onnxruntime,tensorrt,bench] [--bundle BUNDLE]
    python tools/gpu_check.py --rehearse        # the same on a CPU with a small model, in seconds; no measurement

operators: the method's operators on the device against the host's float32. eval: the demo's answers by PyTorch on
the device beside the host's, and time and memory of a picture's answers with random weights of Vicuna 7B's shape.
onnxruntime, tensorrt: a bundle (the demo, exported on the spot) verified and timed, in C++ too where it is built.
bench: bundles of Vicuna 7B's shape, and transformers beside them. What is missing or fails is a line of the
report, with its reason. Each part is a process of its own; the JSON is written anew whenever a part has ended.
operators and eval need no installation of the project.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

PARTS = {
    "operators": ("on_gpu.operators", "measure"),
    "eval": ("on_gpu.answers", "measure"),
    "onnxruntime": ("on_gpu.bundles", "measure_onnxruntime"),
    "tensorrt": ("on_gpu.bundles", "measure_tensorrt"),
    "bench": ("on_gpu.real_size", "measure"),
}
NO_DEVICE, INTERRUPTED = 2, 130  # exit statuses


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by commas; default: all")
    parser.add_argument("--bundle", type=Path, help="instead of the demo, for onnxruntime and tensorrt")
    parser.add_argument(
        "--work", type=Path, help="folder that keeps the bundles of bench; default: none does"
    )
    parser.add_argument("--layers", type=int, help="of the model of Vicuna 7B's shape, by default all 32")
    parser.add_argument("--rounds", type=int, help="counted runs of each measurement; default 10")
    parser.add_argument(
        "--limit", type=float, default=570.0, help="seconds for everything; default %(default)g"
    )
    parser.add_argument("--rehearse", action="store_true", help="on the CPU with a small model")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.parts = [part for part in options.parts.split(",") if part]
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown or not options.parts:
        parser.error(f"expected --parts among {', '.join(PARTS)}, found {', '.join(unknown) or 'none'}")
    if options.layers is not None and options.layers < 3:
        parser.error(f"expected --layers of at least 3, one behind the cut, found {options.layers}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"expected --rounds of at least 1, found {options.rounds}")
    if options.json is not None and (options.json.is_dir() or not options.json.parent.is_dir()):
        parser.error(f"expected a file's name in a folder for --json, found {options.json}; make its folder")
    if options.bundle is not None and not (options.bundle / "manifest.json").is_file():
        parser.error(f"expected a bundle at {options.bundle}, found none; make one with asap-export --output")
    options.rounds = options.rounds or (1 if options.rehearse else 10)
    return options


def run_child(options: argparse.Namespace) -> None:
    """One part, or the facts about the machine, in this process."""
    from on_gpu.steps import Setting, Steps, write_json

    if options.child == "machine":
        import torch

        from asap_export.report import environment_facts

        name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        write_json(options.into, {"device": name, "machine": environment_facts()})
        return
    device = "cpu" if options.rehearse else "cuda"
    module, function = PARTS[options.child]
    setting = Setting(device, options.layers, options.rounds, options.bundle, options.work)
    getattr(importlib.import_module(module), function)(setting, Steps(options.into))


def child(part: str, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """A part in a process of its own: its steps, and what became of the process."""
    # The rehearsal is a CPU's also where there is a device.
    environment = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": ""} if options.rehearse else {})
    begin = monotonic()
    with tempfile.TemporaryDirectory() as folder:
        into, errors = Path(folder) / "steps.json", Path(folder) / "errors.txt"
        command = [sys.executable, __file__, *sys.argv[1:], "--child", part, "--into", str(into)]
        with errors.open("w") as stream:
            try:
                done = subprocess.run(
                    command, env=environment, stdout=stream, stderr=stream, timeout=max(seconds, 1.0)
                )
                ended = "" if done.returncode == 0 else f"its process ended with status {done.returncode}"
            except subprocess.TimeoutExpired:
                ended = f"stopped after {monotonic() - begin:.0f} s, --limit"
        said = errors.read_text(errors="replace").strip().splitlines()
        found = json.loads(into.read_text()) if into.exists() else {}
    if ended and said:
        ended = f"{ended}: {said[-1].strip()[:300]}"
    for entry in found.values():
        if isinstance(entry, dict) and entry.get("state") == "running":
            entry |= {"state": "failed", "reason": ended or "its process ended"}
    entry = {"seconds": round(monotonic() - begin, 1), "failed": ended or None, "steps": found}
    return entry | ({"said": said[-20:]} if ended else {})


def show(part: dict[str, Any]) -> None:
    """A line for each step: what came out, or why nothing did."""
    if part["failed"]:
        print(f"  FAILED {part['failed']}", flush=True)
    for name, step in part["steps"].items():
        print(f"  {step['state']:7} {name}: {step.get('reason') or step['result']['said']}", flush=True)


def main() -> int:
    options = parsed()
    if options.child:
        run_child(options)
        return 0
    from on_gpu.steps import write_json

    begin = monotonic()
    machine = child("machine", options, options.limit)
    facts = machine["steps"]
    if not facts:
        print(f"expected PyTorch, found none that works: {machine['failed']}", file=sys.stderr)
        return NO_DEVICE
    if not options.rehearse and facts["device"] is None:
        print("expected a CUDA device for PyTorch, found none; --rehearse runs a rehearsal", file=sys.stderr)
        return NO_DEVICE
    if options.rehearse:
        print("REHEARSAL on a CPU with a small model: no number below says anything about a device")
    report: dict[str, Any] = {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "rehearsal": options.rehearse,
        **facts,
        "layers": options.layers,
        "rounds": options.rounds,
        "parts": {},
    }
    for part in options.parts:
        print(f"{part} ...", flush=True)
        report["parts"][part] = child(part, options, options.limit - (monotonic() - begin))
        if options.json:
            write_json(options.json, report)
        show(report["parts"][part])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # --json has the parts that ended
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
