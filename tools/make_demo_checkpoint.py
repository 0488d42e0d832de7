"""Write the built-in demo checkpoint: a tiny LLaVA-NeXT of the real architecture with seeded random weights.

    python tools/make_demo_checkpoint.py [FOLDER]      (default: asap_export/demo)

It holds every file a checkpoint of the model hub holds and nothing that depends on library versions, so the
same files come out each time. The weights are scaled so that the network is lively: attention is neither
flat nor one-hot, visual tokens differ from one another, and logits are spread over several units. Parity
checks on it therefore compare real decisions, not ties.
"""

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

SEED = 20260317
TILE, PATCH = 56, 7
PINPOINTS = [[TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE], [3 * TILE, TILE], [TILE, 3 * TILE]]
SPECIAL = {"<s>": 0, "</s>": 1, "<pad>": 2, "<image>": 3}
VOCABULARY = 1024

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

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{{ (message.content if message.content is string else message.content[0].text) + ' ' }}
{%- else -%}
{{ message.role.upper() + ': ' }}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content if part.type == 'image' -%}
{{ '<image>\\n' }}
{%- endfor -%}
{%- for part in message.content if part.type == 'text' -%}
{{ part.text }}
{%- endfor -%}
{%- endif -%}
{{ eos_token if message.role == 'assistant' else ' ' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'ASSISTANT:' }}
{%- endif -%}
"""


def model_config() -> dict[str, Any]:
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": TILE,
        "patch_size": PATCH,
        "projection_dim": 128,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }
    text = {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": SPECIAL["<s>"],
        "eos_token_id": SPECIAL["</s>"],
        "pad_token_id": SPECIAL["<pad>"],
    }
    return {
        "architectures": ["LlavaNextForConditionalGeneration"],
        "model_type": "llava_next",
        "dtype": "float16",
        "image_token_index": SPECIAL["<image>"],
        "image_grid_pinpoints": PINPOINTS,
        "image_seq_length": (TILE // PATCH) ** 2,
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": False,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": text,
        "vision_config": vision,
    }


def processor_files() -> dict[str, dict[str, Any]]:
    return {
        "preprocessor_config.json": {
            "image_processor_type": "LlavaNextImageProcessor",
            "processor_class": "LlavaNextProcessor",
            "image_grid_pinpoints": PINPOINTS,
            "size": {"shortest_edge": TILE},
            "crop_size": {"height": TILE, "width": TILE},
            "do_resize": True,
            "do_center_crop": True,
            "do_rescale": True,
            "do_normalize": True,
            "do_convert_rgb": True,
            "do_pad": True,
            "resample": 3,
            "rescale_factor": 1 / 255,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
        "processor_config.json": {
            "processor_class": "LlavaNextProcessor",
            "image_token": "<image>",
            "num_additional_image_tokens": 1,
            "patch_size": PATCH,
            "vision_feature_select_strategy": "default",
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "processor_class": "LlavaNextProcessor",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "padding_side": "left",
            "model_max_length": 4096,
            "clean_up_tokenization_spaces": False,
        },
        "generation_config.json": {
            "bos_token_id": SPECIAL["<s>"],
            "eos_token_id": SPECIAL["</s>"],
            "pad_token_id": SPECIAL["<pad>"],
        },
    }


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


def tokenizer() -> Tokenizer:
    """A byte-level BPE: every text can be written, `<s>` is put in front."""
    result = Tokenizer(models.BPE())
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    result.train_from_iterator(sentences(), trainer)
    result.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIAL["<s>"])]
            ),
        ]
    )
    return result


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
        value[: len(SPECIAL)] *= 0.1  # answers are to go on for a while before the first </s>
    return value.astype(np.float16)


def write_weights(folder: Path) -> None:
    with torch.device("meta"):
        model = LlavaNextForConditionalGeneration(LlavaNextConfig(**model_config()))
    noise = np.random.RandomState(SEED)  # its stream is frozen by numpy's promise
    shapes = {name: tuple(p.shape) for name, p in sorted(model.named_parameters())}
    weights = {name: weight(name, shape, noise) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_demo_checkpoint(folder: Path) -> None:
    """Write all files of the checkpoint into ``folder``, which is made where it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"config.json": model_config(), **processor_files()}.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer().to_str(pretty=True) + "\n", encoding="utf-8")
    write_weights(folder)


if __name__ == "__main__":
    default = Path(__file__).resolve().parent.parent / "asap_export" / "demo"
    write_demo_checkpoint(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
