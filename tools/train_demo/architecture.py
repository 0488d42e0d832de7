"""What is trained: sizes, tokenizer and processor of the demo checkpoint, in the model hub's format."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from asap_export.scenes import scene

TILE, PATCH = 56, 7
GRIDS = [
    (1, 2),
    (2, 1),
    (2, 2),
    (1, 3),
    (3, 1),
    (2, 3),
    (3, 2),
    (2, 4),
    (4, 2),
    (3, 3),
    (3, 4),
    (4, 3),
    (4, 4),
]
PINPOINTS = [[TILE * rows, TILE * columns] for rows, columns in GRIDS]
SPECIAL = {"<s>": 0, "</s>": 1, "<pad>": 2, "<image>": 3}
VOCABULARY = 768
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

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

# Beside the questions: the letters and words of ordinary prompts, so that they do not fall apart into bytes.
PROSE = """\
In this photograph we can see several people walking along a street in the early morning, while the first light
falls through the trees. Look carefully at the picture and describe it in detail: what is on the left, what is on
the right, and what might have happened before? Please answer with one word or number. The chart presents the
number of visitors per month between January and December. If something cannot be known from the image alone,
say so instead of guessing. Thank you very much!
"""


def model_config() -> dict[str, Any]:
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 192,
        "intermediate_size": 640,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "image_size": TILE,
        "patch_size": PATCH,
        "projection_dim": 192,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }
    text = {
        "model_type": "llama",
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 12,
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
            "image_mean": list(MEAN),
            "image_std": list(STD),
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


def tokenizer() -> Tokenizer:
    """A byte-level BPE: every text can be written, the words of the scenes' questions are one token each."""
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
    asked = [question for i in range(1500) for question in scene("train", i, 24).questions]
    lines = [f"USER: \n{question.text} ASSISTANT: {question.answer}" for question in asked]
    result.train_from_iterator([*PROSE.splitlines(), *lines], trainer)
    result.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIAL["<s>"])]
            ),
        ]
    )
    return result


def write_files(folder: Path) -> None:
    """Everything of the checkpoint but its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"config.json": model_config(), **processor_files()}.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer().to_str(pretty=True) + "\n", encoding="utf-8")


def new_model(seed: int) -> LlavaNextForConditionalGeneration:
    """The untrained model in float32; small steps at the ends of residual branches, as deep models like it."""
    torch.manual_seed(seed)
    model = LlavaNextForConditionalGeneration(LlavaNextConfig(**model_config()))
    layers = model.config.text_config.num_hidden_layers
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or "norm" in name:
            continue
        if "language_model" in name and name.endswith("proj.weight"):
            last = name.endswith(("o_proj.weight", "down_proj.weight"))
            torch.nn.init.normal_(parameter, std=(parameter.shape[1] * (2 * layers if last else 1)) ** -0.5)
        elif "embed_tokens" in name or "lm_head" in name:
            torch.nn.init.normal_(parameter, std=0.1)
        elif "multi_modal_projector" in name:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return model


def write_weights(model: LlavaNextForConditionalGeneration, folder: Path) -> None:
    """The weights in float16, replaced at once."""
    weights = {name: p.detach().to("cpu", torch.float16).contiguous() for name, p in model.named_parameters()}
    save_file(weights, folder / "model.part", metadata={"format": "pt"})
    (folder / "model.part").replace(folder / "model.safetensors")
