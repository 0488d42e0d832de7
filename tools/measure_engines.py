"""Build the decoder's engines in every form, side by side: size, seconds, memory, attention without kernels.

    python tools/measure_engines.py FOLDER [--layers 4] [--json FILE]

Forms: dense in one engine; pruned in one, and in two, cut where the method cuts. For the demo, and for a decoder
of Vicuna 7B's width with a few layers and random weights, in fp16. FOLDER takes 10 GB, and what is there from an
earlier run is used again. Memory is what the building process allocates at its peak; mapped weights are not in it.
"""

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import asap_export
from asap_export.bundle import Bundle
from asap_export.engine import build_engines, decoder_parts
from asap_export.progress import Progress

TOOLS = Path(__file__).parent
LIKE, CAPABILITY = "llava-v1.6-vicuna-7b", "8.9"


@dataclass
class Built:
    """One engine of the decoder; sizes in bytes."""

    model: str
    form: str
    engine: str
    size: int
    seconds: float
    memory: int
    decomposed: int


class Stopwatch:
    """Seconds of each stage that progress tells of, and the most that a child process allocated in it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, int] = {}
        self._stage, self._begin = "", 0.0

    def told(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            self._stage, self._begin = progress.stage, time.perf_counter()
        self.seconds[self._stage] = time.perf_counter() - self._begin

    @contextmanager
    def watching(self) -> Iterator[None]:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.05):
                self.memory[self._stage] = max(self.memory.get(self._stage, 0), allocated_by_children())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


def allocated_by_children() -> int:
    """Bytes of anonymous memory that the largest child of this process holds."""
    found = [0]
    for tasks in Path("/proc/self/task").glob("*/children"):
        for child in tasks.read_text().split():
            try:
                status = Path("/proc", child, "status").read_text()
            except OSError:  # it has ended
                continue
            found += [
                int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:")
            ]
    return max(found)


def forms(bundles: dict[str, Path]) -> Iterator[tuple[str, Path, bool]]:
    yield "dense, one engine", bundles["dense"], True
    yield "pruned, one engine", bundles["pruned"], True
    yield "pruned, two engines", bundles["pruned"], False


def measure(model: str, bundles: dict[str, Path]) -> Iterator[Built]:
    for form, folder, single in forms(bundles):
        manifest = Bundle.open(folder).manifest
        cut = manifest.pruning.prune_after if manifest.pruning.prunes else None
        parts = decoder_parts(manifest.model.layers, cut, single=single)
        watch = Stopwatch()
        with watch.watching():
            engines = build_engines(
                folder, manifest, "tensorrt_rtx", (CAPABILITY,), parts, progress=watch.told
            )
        for engine in engines:
            file = folder / engine.file
            if engine.graph == "decoder":
                stage = f"Build {file.name}"
                name = file.name.removesuffix(".tensorrt_rtx.engine")
                yield Built(model, form, name, file.stat().st_size, watch.seconds[stage],
                            watch.memory.get(stage, 0), len(engine.decomposed_attention))  # fmt: skip
        shutil.rmtree(folder / "engines")


def bundles_of(name: str, model: Path | None, folder: Path) -> dict[str, Path]:
    """A pruned and a dense bundle in fp16, made where they are not there yet."""
    made = {}
    for form in ("pruned", "dense"):
        made[form] = folder / f"{name}-{form}.bundle"
        if not made[form].exists():
            asap_export.export(model, made[form], dtype="fp16", dense=form == "dense", max_batch=1)
    return made


def wide_checkpoint(folder: Path, layers: int) -> Path:
    checkpoint = folder / f"wide-{layers}"
    if not checkpoint.exists():
        command = [sys.executable, TOOLS / "make_checkpoint.py", "--like", LIKE, "--layers", str(layers)]
        subprocess.run([*command, "--output", checkpoint], check=True)
    return checkpoint


def table(found: list[Built]) -> Table:
    shown = Table("model", "form", "engine", "MB", "s", "GB at the peak", "layers without a kernel")
    for each in found:
        numbers = (
            f"{each.size / 1e6:,.1f}",
            f"{each.seconds:.0f}",
            f"{each.memory / 1e9:.2f}",
            str(each.decomposed),
        )
        shown.add_row(each.model, each.form, each.engine, *numbers)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=4, help="of the wide decoder; default %(default)d")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    found = [*measure("demo", bundles_of("demo", None, given.folder))]
    wide = wide_checkpoint(given.folder, given.layers)
    found += measure(f"7B's width, {given.layers} layers", bundles_of("wide", wide, given.folder))
    Console(width=140).print(table(found))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
