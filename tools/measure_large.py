"""Measure the work on a checkpoint of real size on this machine: time, peak memory, disk, each step a process.

    python tools/measure_large.py FOLDER [--like llava-v1.6-vicuna-7b] [--layers N] [--steps export-fp16,...]

FOLDER needs 40 GB for 7B; what is there from an earlier run is used again (--layers makes a smaller one, for a
rehearsal). The checkpoint has random weights (tools/make_checkpoint.py), so sizes, time and memory are real and
answers are not. Results are printed and kept in FOLDER/large.json; where a step fails or exceeds its bound on
memory or disk, the exit status is 1.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from asap_export.bundle import tool_versions, utc_now

TOOLS = Path(__file__).parent
COMMAND = Path(sys.executable).with_name("asap-export")
IMAGE = TOOLS.parent / "examples" / "images" / "mat.png"
GB = 1_000_000_000


@dataclass(frozen=True)
class Step:
    """One command; ``bundle`` is what it writes. Bounds are in bytes, None where nothing was promised."""

    name: str
    command: tuple[str | Path, ...]
    bundle: Path | None = None
    most_memory: int | None = None
    most_disk: int | None = None


@dataclass
class Measured:
    """Seconds, bytes of the largest process, bytes that the bundle adds to the disk, the end of the output."""

    name: str
    seconds: float
    peak_memory: int
    added_disk: int | None
    said: list[str] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)


def steps(folder: Path, like: str, layers: int | None) -> list[Step]:
    checkpoint, fp16, int4, engines = (folder / name for name in ("checkpoint", "fp16", "int4", "int4-trt"))
    shorter = ("--layers", str(layers)) if layers else ()
    export = (COMMAND, "--model", checkpoint, "--dtype", "fp16", "--overwrite")
    quantized = (*export, "--quantize", "int4")
    loading = "import asap_export, sys; model = asap_export.load(sys.argv[1]); print(model.note or 'loaded')"
    ask = ("--image", folder / "640x480.png", "--prompt", "What is on the mat?", "--max-new-tokens", "8")
    return [
        Step("checkpoint", (sys.executable, TOOLS / "make_checkpoint.py", "--like", like, *shorter,
                            "--output", checkpoint), most_memory=4 * GB),
        Step("export-fp16", (*export, "--output", fp16), fp16, 3 * GB, 200_000_000),
        Step("load-fp16", (sys.executable, "-c", loading, fp16)),
        Step("verify-fp16", (COMMAND, "verify", fp16, "--layers", "4")),
        Step("export-int4", (*quantized, "--output", int4), int4, 6 * GB, 4_600_000_000),
        Step("run-int4", (COMMAND, "run", int4, "--json", *ask)),
        Step("verify-int4", (COMMAND, "verify", int4, "--layers", "4")),
        Step("engines-int4", (*quantized, "--engine", "trt", "--compute-capability", "8.9",
                              "--output", engines), engines),
    ]  # fmt: skip


def measure(step: Step, folder: Path) -> Measured:
    """Run a step; its children's memory counts where they are larger."""
    before = time.perf_counter()
    with subprocess.Popen(
        step.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read().replace(str(folder), "FOLDER").splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - before
    disk = added_bytes(step.bundle) if step.bundle and step.bundle.exists() else None
    measured = Measured(step.name, seconds, usage.ru_maxrss * 1024, disk, said[-12:])
    if process.returncode:
        measured.breaches.append(f"exit status {process.returncode}")
    if step.most_memory and measured.peak_memory > step.most_memory:
        measured.breaches.append(f"more than {step.most_memory / GB:g} GB of memory")
    if step.most_disk and disk and disk > step.most_disk:
        measured.breaches.append(f"more than {step.most_disk / GB:g} GB of disk")
    return measured


def added_bytes(bundle: Path) -> int:
    """What a bundle adds beside files that are hard links to others."""
    files = [path.stat() for path in bundle.rglob("*") if path.is_file()]
    return sum(file.st_size for file in files if file.st_nlink == 1)


def show(results: list[Measured]) -> None:
    table = Table("step", "seconds", "peak memory", "added disk", "")
    for result in results:
        disk = "" if result.added_disk is None else f"{result.added_disk / GB:.3f} GB"
        table.add_row(result.name, f"{result.seconds:.0f}", f"{result.peak_memory / GB:.2f} GB", disk,
                      ", ".join(result.breaches))  # fmt: skip
    Console().print(table)


def write_report(path: Path, like: str, layers: int | None, results: list[Measured]) -> None:
    """Everything again as JSON, with the machine and the versions; other steps of an earlier run stay."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    measured = {result.name: asdict(result) for result in results}
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"steps": []}
    if (earlier.get("like"), earlier.get("layers")) == (like, layers):
        measured = {step["name"]: step for step in earlier["steps"]} | measured
    order = [step.name for step in steps(path.parent, like, layers)]
    report = {
        "date": utc_now(),
        "like": like,
        "layers": layers,
        "machine": {"cores": os.cpu_count(), "memory": memory, "processor": platform.machine()},
        "tools": tool_versions(),
        "steps": sorted(measured.values(), key=lambda step: order.index(step["name"])),
    }
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def write_image(path: Path) -> None:
    """640 x 480 pixels: 2,340 visual tokens with 336-pixel tiles."""
    Image.open(IMAGE).convert("RGB").resize((640, 480)).save(path)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--like", default="llava-v1.6-vicuna-7b")
    arguments.add_argument("--layers", type=int)
    arguments.add_argument("--steps", help="comma-separated, by default all")
    given = arguments.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    write_image(given.folder / "640x480.png")
    chosen = steps(given.folder, given.like, given.layers)
    if given.steps:
        names = given.steps.split(",")
        if unknown := set(names) - {step.name for step in chosen}:
            arguments.error(f"expected steps among {', '.join(s.name for s in chosen)}, found {min(unknown)}")
        chosen = [step for step in chosen if step.name in names]
    results = []
    for step in chosen:
        if step.name == "checkpoint" and (given.folder / "checkpoint").exists():
            print("checkpoint: found", flush=True)
            continue
        print(f"{step.name} ...", flush=True)
        results.append(measure(step, given.folder))
        print("\n".join(f"  {line}" for line in results[-1].said), flush=True)
        write_report(given.folder / "large.json", given.like, given.layers, results)
    show(results)
    return 1 if any(result.breaches for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
