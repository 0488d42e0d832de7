"""The checkpoint that most tests use: a tiny LLaVA-NeXT of the real architecture with seeded random weights.

Its template and processor are the built-in demo's; sizes, grids, tokenizer and weights are its own, so that tests
stay as fast as they are whatever the demo becomes. The same files come out each time. The weights are scaled so
that the network is lively: attention is neither flat nor one-hot, visual tokens differ from one another, and
logits are spread over several units. Parity checks on it therefore compare real decisions, not ties.
"""

import itertools
import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, PreTrainedTokenizerFast

from asap_export.checkpoint.sources import DEMO
from asap_export.model.anyres import TileGeometry

SEED = 20260317
TILE, PATCH = 56, 7
PINPOINTS = [(56, 112), (112, 56), (112, 112), (168, 56), (56, 168)]
GEOMETRY = TileGeometry(TILE, PATCH, tuple(PINPOINTS))  # 336 visual tokens at most
LAYERS = 8
VOCABULARY = 1024
SPECIAL_TOKENS = 4  # the first ones: <s>, </s>, <pad>, <image>
FROM_DEMO = (
    "chat_template.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
)
VISION = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": TILE,
    "patch_size": PATCH,
    "projection_dim": 128,
}
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 4096,
}

PROSE = """\
In this photograph we can see several people walking along a street in the early morning, while the
first light falls through the trees. A woman with an umbrella waits at the crossing; behind her, a
young man is riding his bicycle and carrying a package under one arm. The shop on the corner sells
bread, fruit and vegetables, and its window shows a handwritten notice: "Open from 8:00 to 18:30,
closed on Sundays." Above the door hangs a wooden sign with faded letters. On the other side of the
road, children are playing football in the park, and their teacher is watching them from a bench. It
might have rained during the night, because the ground is still wet and reflects the buildings. The
weather seems cold but pleasant; somebody has left a jacket over the fence.

The chart presents the number of visitors per month between January and December. It begins at about
1,250, increases slowly until April, reaches its maximum of 4,987 in August and then decreases again
by 36 percent. The horizontal axis shows time, the vertical axis shows thousands. From these values
you could conclude that most guests arrive when schools are on holiday, although the image itself
does not explain why.

To answer the question, look carefully at the foreground first, then compare shapes, positions and
distances. Here is a step by step description: first, find the object; second, decide whether it is
partly hidden; third, say what you believe it is used for, and how certain you are. If something
cannot be known from the picture alone, please say so instead of guessing. Thank you very much, that
would be helpful!
"""

# A name and its values; {name} in a value is filled in from the list of that name.
SCENES = """\
colour: red | green | blue | yellow | orange | purple | black | white | brown | pink | grey | turquoise
thing: cat | dog | bird | duck | rabbit | horse | tree | house | car | boat | ball | cup | chair | table
thing: lamp | mat | hat | bag | star | moon | sun | cloud | flower | apple | banana | book | clock | key
thing: circle | square | triangle | rectangle | ladder | ring | arrow | heart
place: on | under | above | below | beside | behind | inside | near | next to | in front of | between
place: to the left of | to the right of | in the middle of | at the top of | at the bottom of
number: no | one | two | three | four | five | six | seven | eight | nine | ten | eleven | twelve
size: small | large | tiny | huge | tall | wide | narrow | round | long | short | old | new | bright | dark
question: What is {place} the {thing}? | What colour is the {thing} {place} the {other}?
question: How many {thing}s are there? | Is there a {colour} {thing} in the picture?
question: Where is the {size} {thing}? | Describe the image in detail. | And what about the {thing}?
question: Which letter is written {place} the {thing}? | What does the text in the image say?
question: What is the difference between the first and the second image? | Count the {colour} {thing}s.
question: Which of them is larger, the {thing} or the {other}?
answer: There is a {size} {colour} {thing} {place} the {other}. | The {thing} is {colour}.
answer: I can see {number} {thing}s. | Yes, the picture shows a {colour} {thing} {place} a {size} {other}.
answer: No, there is no {thing}. | The {size} {thing} can be found {place} the {colour} {other}.
answer: This drawing has a {colour} background with {number} {size} {thing}s and one {other} {place} them.
answer: It does not look like a {thing}; it seems to be a {size} {other}. | I do not know.
"""


def from_demo(name: str) -> dict[str, Any]:
    """A JSON file of the demo checkpoint."""
    content: dict[str, Any] = json.loads((DEMO / name).read_text(encoding="utf-8"))
    return content


def model_config(layers: int = LAYERS) -> dict[str, Any]:
    demo = from_demo("config.json")
    text = demo["text_config"] | TEXT | {"num_hidden_layers": layers}
    own = {
        "image_grid_pinpoints": PINPOINTS,
        "text_config": text,
        "vision_config": demo["vision_config"] | VISION,
    }
    return demo | own


def sentences() -> list[str]:
    """The tokenizer's training text: prose, and questions and answers about simple drawn scenes."""
    values: dict[str, list[str]] = {}
    for line in SCENES.splitlines():
        name, listed = line.split(": ", 1)
        values.setdefault(name, []).extend(listed.split(" | "))
    values["other"] = values["thing"][7:] + values["thing"][:7]
    questions, answers = values.pop("question"), values.pop("answer")
    words = {name: itertools.cycle(pool) for name, pool in values.items()}
    lines = PROSE.splitlines()
    for i in range(1500):
        fill = {name: next(pool) for name, pool in words.items()}
        question = questions[i % len(questions)].format(**fill)
        answer = answers[i // 3 % len(answers)].format(**fill)
        lines.append(f"USER: {question} ASSISTANT: {answer}")
    return lines


@cache
def processor_files() -> dict[str, str]:
    """Texts by file name: all that the processor and the tokenizer read, and the settings of answers."""
    files = {name: (DEMO / name).read_text(encoding="utf-8") for name in FROM_DEMO}
    images = json.loads(files["preprocessor_config.json"]) | {"image_grid_pinpoints": PINPOINTS}
    files["preprocessor_config.json"] = json.dumps(images, indent=2) + "\n"
    demo = PreTrainedTokenizerFast.from_pretrained(DEMO)
    own = demo.train_new_from_iterator(sentences(), VOCABULARY, min_frequency=1, show_progress=False)
    files["tokenizer.json"] = own.backend_tokenizer.to_str(pretty=True) + "\n"
    return files


# Standard deviations by the end of the parameter's name; matrices are divided by the root of their inputs.
SCALE = {
    "q_proj.weight": 1.4,
    "k_proj.weight": 1.4,
    "v_proj.weight": 1.0,
    "o_proj.weight": 1.2,
    "out_proj.weight": 1.0,
    "gate_proj.weight": 1.4,
    "up_proj.weight": 1.0,
    "down_proj.weight": 0.8,
    "fc1.weight": 1.2,
    "fc2.weight": 0.8,
    "linear_1.weight": 1.2,
    "linear_2.weight": 1.6,
    "patch_embedding.weight": 1.0,
    "lm_head.weight": 3.0,
}


def weight(name: str, shape: tuple[int, ...], noise: np.random.RandomState) -> np.ndarray:
    """One seeded float16 parameter of the given shape."""
    value = noise.standard_normal(shape)
    if name.endswith("bias"):
        value *= 0.1
    elif "norm" in name:
        value = 1 + 0.1 * value
    elif name.endswith("position_embedding.weight"):
        value *= 0.5
    elif (scale := next((s for end, s in SCALE.items() if name.endswith(end)), None)) is not None:
        value *= scale / math.sqrt(math.prod(shape[1:]))
    if name == "lm_head.weight":
        value[:SPECIAL_TOKENS] *= 0.1  # answers are to go on for a while before the first </s>
    return value.astype(np.float16)


@cache
def weights() -> dict[str, np.ndarray]:
    with torch.device("meta"):
        model = LlavaNextForConditionalGeneration(LlavaNextConfig(**model_config()))
    noise = np.random.RandomState(SEED)  # its stream is frozen by numpy's promise
    shapes = {name: tuple(p.shape) for name, p in sorted(model.named_parameters())}
    return {name: weight(name, shape, noise) for name, shape in shapes.items()}


def first_layers(layers: int) -> dict[str, np.ndarray]:
    """The weights without those of the language model's later layers."""
    layer = re.compile(r"language_model.*layers\.(\d+)\.")
    return {
        name: value
        for name, value in weights().items()
        if not (at := layer.search(name)) or int(at[1]) < layers
    }


def write_random_checkpoint(folder: Path, layers: int = LAYERS) -> Path:
    """The checkpoint in ``folder``, a new one; its language model has the first ``layers``."""
    folder.mkdir(parents=True)
    config = json.dumps(model_config(layers), indent=2) + "\n"
    for name, content in {"config.json": config, **processor_files()}.items():
        (folder / name).write_text(content, encoding="utf-8")
    save_file(first_layers(layers), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
