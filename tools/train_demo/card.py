"""The model card beside the weights: what it is, how it was trained, what it can do; and the curve of training."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

__all__ = ["write_card"]

CARD = """\
---
license: apache-2.0
pipeline_tag: image-text-to-text
---
# A small LLaVA-NeXT that answers questions about drawn scenes

The built-in checkpoint of asap-export: real architecture, real answers, a world small enough for
{parameters:.1f} M parameters. It shows what pruning does to answers; it knows nothing about photographs.

- **Architecture.** LLaVA-NeXT as `transformers` has it: CLIP tower ({vision_layers} layers of width
  {vision_width}, the last one unused as usual) on tiles of {tile} pixels with patches of {patch}, any-resolution
  grids up to 4 × 4 tiles with newline tokens (up to {most_tokens:,} visual tokens), two-layer projector, Llama of
  {layers} layers, width {width}, {heads} heads of {head_size} with {kv_heads} key-value heads. Byte-level BPE of
  {vocabulary} tokens.
- **Data.** `asap_export.scenes`: shapes in six forms and eight colours, boxes with a digit, signs with one of
  sixteen words, on plain or cluttered paper of 84 to 224 pixels a side; twelve types of questions. Scenes are
  drawn anew in every step from the training split; validation and test have seeds of their own.
- **Training.** From scratch: first the tower and projector with the embeddings of words, patch by patch ("red",
  "star", "7"), then everything on up to sixteen questions per image: on small canvases, on where things are with
  the base view alone, on all canvases. `python tools/train_demo` does it in one go. The weights here are of a run
  whose plan was changed on the way (AdamW alone before Muon, learning rates, lengths and order of the stages), as
  the curve shows; the command does not give these very bytes.
- **Limits.** It answers in one or two words to questions in the wording of the scenes, and nothing else.

![Training curve](curve.svg)

## Accuracy

Exact match on {questions:,} questions about {images:,} scenes of the test split, nothing pruned, float32
(`asap-export eval --methods dense --limit {questions}`):

| question type | questions | accuracy |
|---|--:|--:|
{rows}
"""


def write_card(checkpoint: Path, curve: Path, facts: dict[str, Any], parameters: int) -> None:
    """Write README.md and curve.svg into the checkpoint's folder; ``facts`` are of an evaluation of dense."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    text, vision = config["text_config"], config["vision_config"]
    run = next(run for run in facts["runs"] if run["method"] == "dense")
    kinds = [(name, kind["questions"], kind["accuracy"]) for name, kind in run["kinds"].items()]
    rows = [*sorted(kinds), ("**all**", run["questions"], run["accuracy"])]
    largest = max(rows * columns for rows, columns in config["image_grid_pinpoints"])
    side = vision["image_size"] // vision["patch_size"]
    grid_rows = int(largest**0.5) // vision["patch_size"]
    card = CARD.format(
        parameters=parameters / 1e6,
        vision_layers=vision["num_hidden_layers"],
        vision_width=vision["hidden_size"],
        tile=vision["image_size"],
        patch=vision["patch_size"],
        most_tokens=side**2 + grid_rows * (grid_rows + 1),
        layers=text["num_hidden_layers"],
        width=text["hidden_size"],
        heads=text["num_attention_heads"],
        head_size=text["head_dim"],
        kv_heads=text["num_key_value_heads"],
        vocabulary=text["vocab_size"],
        questions=facts["questions"],
        images=facts["images"],
        rows="\n".join(f"| {name} | {count:,} | {accuracy:.1%} |" for name, count, accuracy in rows),
    )
    (checkpoint / "README.md").write_text(card, encoding="utf-8")
    _draw(curve, checkpoint / "curve.svg")


def _draw(curve: Path, file: Path) -> None:
    lines = [json.loads(line) for line in curve.read_text(encoding="utf-8").splitlines()]
    matplotlib.rcParams["svg.hashsalt"] = "asap-export"
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
    patches = [line for line in lines if line["stage"] == "patches"]
    for name, label in (("color", "color"), ("form", "form"), ("text", "digit or word")):
        left.plot([100 * line.get(name, 0) for line in patches], label=label)
    left.set_title("patches read rightly, %")
    asked = [line for line in lines if line["stage"] != "patches"]
    right.plot([100 * line["answers"] for line in asked], label="questions")
    right.plot([100 * line["tokens"] for line in asked], label="answer tokens")
    starts = [0] + [i for i, (a, b) in enumerate(pairwise(asked), start=1) if a["stage"] != b["stage"]]
    for start in starts:
        right.axvline(start, color="gray", linestyle=":")
        right.text(start + 1, 20, asked[start]["stage"], rotation=90, fontsize=7, verticalalignment="bottom")
    right.set_title("answered rightly in training, %")
    for axes in (left, right):
        axes.set_xlabel("20 steps")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
