"""Check and measure everything that only a CUDA device can show, in one report.

    python tools/gpu_check.py [--json FILE] [--parts reference,operators,onnxruntime,tensorrt] [--bundle BUNDLE]
    python tools/gpu_check.py --rehearse        # the same on a CPU with a tiny model, in seconds; no measurement

reference: dense, FastV and ASAP prefills of Vicuna 7B's shape with random bf16 weights, and the goals that are set
for them. operators: the cut's operators on the device against the host's float32. onnxruntime, tensorrt: a bundle
(the demo, exported on the spot) verified and timed. What is missing or fails is a line of the report, with its
reason. Each part is a process of its own; the JSON is written anew whenever a part has ended. The first two parts
need PyTorch and transformers, and the project itself need not be installed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

PARTS = ("reference", "operators", "onnxruntime", "tensorrt")
NO_DEVICE, INTERRUPTED = 2, 130  # exit statuses


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by commas; default: all")
    parser.add_argument("--bundle", type=Path, help="instead of the demo, for onnxruntime and tensorrt")
    parser.add_argument("--layers", type=int, help="of the language model, by default all 32")
    parser.add_argument("--rounds", type=int, help="counted runs of each measurement; default 10")
    parser.add_argument(
        "--limit", type=float, default=570.0, help="seconds for everything; default %(default)g"
    )
    parser.add_argument("--rehearse", action="store_true", help="on the CPU with a tiny model")
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
    options.rounds = options.rounds or (2 if options.rehearse else 10)
    return options


def run_child(options: argparse.Namespace) -> None:
    """One part, in this process."""
    from on_gpu.steps import Steps, write_json

    if options.child == "machine":
        from on_gpu.machine import device_facts, versions

        write_json(options.into, {"device": device_facts(), "versions": versions()})
        return
    from on_gpu.setting import setting_for

    setting = setting_for(options.rehearse, options.layers, options.rounds, options.bundle)
    steps = Steps(options.into)
    if options.child == "reference":
        from on_gpu.prefills import measure
    elif options.child == "operators":
        from on_gpu.operators import measure
    elif options.child == "onnxruntime":
        from on_gpu.bundles import measure_onnxruntime as measure
    else:
        from on_gpu.bundles import measure_tensorrt as measure
    measure(setting, steps)


def child(part: str, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """A part in a process of its own: its steps, and what became of the process."""
    environment = dict(os.environ)
    if options.rehearse:
        # The rehearsal is a CPU's also where there is a device, and Triton's kernels have an interpreter for that.
        environment |= {"CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1"}
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
        if entry.get("state") == "running":
            entry |= {"state": "failed", "reason": ended or "its process ended"}
    entry = {"seconds": round(monotonic() - begin, 1), "failed": ended or None, "steps": found}
    return entry | ({"said": said[-20:]} if ended else {})


def main() -> int:
    options = parsed()
    if options.child:
        run_child(options)
        return 0
    from on_gpu.steps import write_json
    from on_gpu.table import part_lines, show

    begin = monotonic()
    machine = child("machine", options, options.limit)
    facts = machine["steps"]
    if not facts:
        print(f"expected PyTorch, found none that works: {machine['failed']}", file=sys.stderr)
        return NO_DEVICE
    if not options.rehearse and facts["device"]["cuda"] is None:
        print("expected a CUDA device for PyTorch, found none; --rehearse runs a rehearsal", file=sys.stderr)
        return NO_DEVICE
    report: dict[str, Any] = {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "rehearsal": options.rehearse,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
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
        for line in part_lines(report["parts"][part]):
            print(f"  {line}", flush=True)
    show(report)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # --json has the parts that ended
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
