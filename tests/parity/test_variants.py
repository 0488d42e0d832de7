"""Every way to score and cut, and every backbone, exports and agrees with PyTorch; on a model of three layers."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
)

from asap_export.checkpoint.sources import DEMO
from asap_export.export import ExportRequest, export
from asap_export.parity import verify
from asap_export.pruning.config import Budget, PruningConfig

IMAGES = (Path(__file__).parents[2] / "examples" / "images" / "tower.png",)
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}
TEXT_CONFIGS = {
    "llama3": LlamaConfig(**SIZES, rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True),
    "mistral": MistralConfig(**SIZES, head_dim=32, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES),
}


@pytest.fixture
def checkpoint(tmp_path):
    """A small LLaVA-NeXT with the demo's tokenizer and lively random weights, in several shards."""

    def write(backbone):
        config = LlavaNextConfig.from_pretrained(DEMO)
        config.text_config = TEXT_CONFIGS[backbone]
        config.tie_word_embeddings = config.text_config.tie_word_embeddings
        torch.manual_seed(3)
        model = LlavaNextForConditionalGeneration(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(0, 1.5 * parameter[0].numel() ** -0.5)
        folder = tmp_path / backbone
        model.save_pretrained(folder, max_shard_size="500KB")
        for file in DEMO.iterdir():
            if file.name not in ("config.json", "model.safetensors"):
                shutil.copy(file, folder)
        return str(folder)

    return write


@pytest.mark.parametrize(
    "backbone, pruning",
    [
        ("llama3", {}),
        ("mistral", {"prune_after": 1}),
        ("qwen2", {"method": "fastv"}),
        ("llama3", {"score": "salience", "merge": False}),
        ("qwen2", {"score": "text", "lambda_max": 1.0, "threshold": 0.6}),
        ("mistral", {"score": "last", "trim_early_kv": False}),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value.values())) or "defaults",
)
def test_the_bundle_agrees_with_pytorch(checkpoint, tmp_path, backbone, pruning):
    request = ExportRequest(
        model=checkpoint(backbone),
        output=tmp_path / "bundle",
        dtype="fp32",
        pruning=PruningConfig(**pruning),
        budget=Budget(keep=40),
    )
    bundle = export(request).bundle

    report = verify(bundle.path, provider="cpu", images=IMAGES, max_new_tokens=4)

    assert report.verdict == "PASS", [check for check in report.checks if check.verdict != "PASS"][:5]
