"""What continuous batching gains: clients that write together beside one after the other, in turns.

    python tools/measure_serving.py BUNDLE [--clients 8] [--tokens 32] [--rounds 3] [--json FILE]

A drawn picture with as many visual tokens as fit, one question, the bundle's own budget; answers of equal length.
Tokens per second are of steps alone, prompts are not counted. A newcomer comes while all other clients write: its
time to the first token is compared with that of its own prefill and a step of the others.
"""

import argparse
import json
import statistics
import tempfile
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

import asap_export
from asap_export.bench.workload import drawn_images
from asap_export.model.anyres import TileGeometry
from asap_export.runtime.model import Model
from asap_export.runtime.prompt import Prompt
from asap_export.runtime.request import Request
from asap_export.runtime.rows import open_rows
from asap_export.serving.batcher import Aborted, Batcher, Done, Event, Piece, Started

VISUAL_TOKENS = 2880


class Client:
    """One request: when its tokens came."""

    def __init__(self, batcher: Batcher, prompt: Prompt, request: Request) -> None:
        self.asked, self.started, self.done = perf_counter(), 0.0, 0.0
        self.writing, self.ended = threading.Event(), threading.Event()
        batcher.submit(prompt, request, self.hear)

    def hear(self, event: Event) -> None:
        if isinstance(event, Started):
            self.started = perf_counter()
            self.writing.set()
        elif isinstance(event, Done):
            self.answer, self.done = event.answer, perf_counter()
            self.ended.set()
        elif isinstance(event, Aborted):
            raise event.error
        assert isinstance(event, Started | Piece | Done)


def together(batcher: Batcher, prompt: Prompt, request: Request, clients: int) -> tuple[float, float]:
    """Tokens per second once all clients write, and seconds of one of their steps."""
    all_of_them = [Client(batcher, prompt, request) for _ in range(clients)]
    for each in all_of_them:
        each.ended.wait()
    last = all_of_them[-1]  # it writes with all others, whose answers are long enough
    steps = last.answer.timings.decode[: len(last.answer.token_ids) // 2]
    step = statistics.median(steps)
    return clients / step, step


def alone(model: Model, request: Request, prompt: Prompt) -> tuple[float, float, float]:
    """Tokens per second, seconds of a step, and of all before the first token, of one client."""
    (answer,), _ = model.answer([prompt], [request])
    step = statistics.median(answer.timings.decode)
    return 1 / step, step, answer.timings.first_token


def newcomer(batcher: Batcher, prompt: Prompt, request: Request, clients: int) -> float:
    """Seconds to the first token of one that comes while the others write."""
    others = [Client(batcher, prompt, request) for _ in range(clients - 1)]
    for each in others:
        each.writing.wait()
    late = Client(batcher, prompt, request)
    for each in [late, *others]:
        each.ended.wait()
    return late.started - late.asked


def measured(model: Model, clients: int, tokens: int, rounds: int) -> dict[str, Any]:
    rows = open_rows(model.graphs, clients, 1024)
    batcher = Batcher(model, rows)
    with tempfile.TemporaryDirectory() as folder:
        images = drawn_images(Path(folder), VISUAL_TOKENS, 1, TileGeometry.of(model.spec))
        prompt = model.reader.read("What is shown in this picture?", images)
    # Long enough that the first client still writes when the last one has begun.
    request = Request(
        (),
        "",
        2 * clients + tokens,
        min_new_tokens=2 * clients + tokens,
        temperature=0.0,
        repetition_penalty=1.0,
    )
    samples: dict[str, list[float]] = {
        name: [] for name in ("together", "alone", "step", "first", "newcomer", "steps")
    }
    for number in range(rounds + 1):
        speed, steps = together(batcher, prompt, request, clients)
        own, step, first = alone(model, request, prompt)
        late = newcomer(batcher, prompt, request, clients)
        if number:  # the first round warms up
            for name, value in zip(samples, (speed, own, step, first, late, steps), strict=True):
                samples[name].append(value)
    batcher.close()
    median = {name: statistics.median(values) for name, values in samples.items()}
    return {
        "clients": clients,
        "tokens": tokens,
        "rounds": rounds,
        "rows_at_once": rows.memory > 0,
        "visual_tokens": int((prompt.input_ids == model.spec.image_token_id).sum()),
        "tokens_per_second": {"together": median["together"], "one after the other": median["alone"]},
        "times_as_many": median["together"] / median["alone"],
        "step_ms": {"together": 1e3 * median["steps"], "alone": 1e3 * median["step"]},
        "newcomer_s": median["newcomer"],
        "of_its_own_prefill_and_a_step": median["newcomer"] / (median["first"] + median["steps"]),
        "samples": samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = asap_export.load(options.bundle, options.provider)
    found = {"bundle": options.bundle.name, "runs_on": model.runs_on}
    found |= measured(model, options.clients, options.tokens, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    speeds, steps = found["tokens_per_second"], found["step_ms"]
    print(f"{found['clients']} clients in {found['runs_on']}, {found['visual_tokens']:,} visual tokens each")
    print(f"together          {speeds['together']:8.1f} tokens/s, a step {steps['together']:.1f} ms")
    print(f"one after another {speeds['one after the other']:8.1f} tokens/s, a step {steps['alone']:.1f} ms")
    print(f"times as many     {found['times_as_many']:8.2f}")
    print(
        f"a newcomer's first token after {found['newcomer_s']:.2f} s, "
        f"{found['of_its_own_prefill_and_a_step']:.2f} times its own prefill and a step"
    )


if __name__ == "__main__":
    main()
