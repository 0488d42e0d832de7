"""Part ``bench``: bundles and transformers at a public model's size, with random weights."""

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from on_gpu.answers import LIKE
from on_gpu.steps import Setting, Steps

ROUNDS = 2  # each opens every model anew, and the report has to end within ten minutes


def measure(setting: Setting, steps: Steps) -> None:
    """What ``asap-export bench --like`` finds on the device, pruned and dense, and transformers beside it."""
    steps.run(f"like {LIKE}", lambda: measure_like(setting))


def measure_like(setting: Setting) -> dict[str, Any]:
    """The facts of ``bench``, and its ratios in a line."""
    from asap_export.bench import BenchRequest, bench

    size: dict[str, Any] = {"layers": setting.layers, "provider": "cuda"}
    if setting.rehearsal:
        size = {"layers": setting.layers or 3, "scale": 0.02}
    with nullcontext(setting.work) if setting.work else tempfile.TemporaryDirectory() as folder:
        facts = bench(
            BenchRequest(
                like=LIKE,
                contenders="asap,dense",
                work=Path(folder),
                rounds=ROUNDS,
                cache_lengths=(542, 2944),
                **size,
            )
        )
    said = [f"{each['name']}: {each['reason']}" for each in facts["skipped"]]
    for each in facts["comparisons"]:
        prefill, first = each["speed_up"]["ratio"], each["first_token_speed_up"]["ratio"]
        said.append(
            f"{each['pruned']} {prefill:.2f} times as fast as {each['dense']}, first token {first:.2f}"
        )
    return {"said": "; ".join(said) or "nothing was compared", "bench": facts}
