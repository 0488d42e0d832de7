"""The Triton kernels against the reference, in Triton's interpreter; and compiled for a GPU that is not here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import golden_cases
import pytest
import torch

triton = pytest.importorskip("triton")

from asap_export.pruning.device import kernels  # noqa: E402
from asap_export.pruning.device.bias import causal_bias, soft_bias  # noqa: E402
from asap_export.pruning.device.cut import attend_and_score, drop_tokens  # noqa: E402
from asap_export.pruning.scores import received_attention, row_weight  # noqa: E402

SMALL = kernels.Tile(16, 32, 4, 2)
# Triton's interpreter takes the bits of bfloat16 for integers, so float16 stands for both here;
# tools/gpu_check.py compares bfloat16 where there is a device.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3}


def scene(dtype, batch=2, heads=4, kv_heads=2, tokens=50, past=0, head_dim=24):
    """Left-padded rows that end with text; the second has less of each."""
    noise = torch.Generator().manual_seed(tokens)
    query = torch.randn(batch, heads, tokens, head_dim, generator=noise).to(dtype)
    key, value = torch.randn(2, batch, kv_heads, past + tokens, head_dim, generator=noise).to(dtype)
    position = torch.arange(past + tokens)
    valid = position >= torch.tensor([0, 7])[:batch, None]
    visual = (position >= torch.tensor([4, 20])[:batch, None]) & (position < tokens - 6)
    salience = torch.rand(batch, past + tokens, generator=noise) * visual
    return query, key, value, salience[:, past:], visual[:, past:], valid


def dense_attention(query, key, value, bias, scale):
    """In float32, from the whole matrix."""
    return torch.nn.functional.scaled_dot_product_attention(
        query.float(), key.float(), value.float(), attn_mask=bias.matrix(), scale=scale, enable_gqa=True
    )


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("soft", [True, False], ids=["soft", "causal"])
def test_attention_and_what_its_columns_receive(dtype, soft):
    query, key, value, salience, visual, valid = scene(dtype)
    bias = soft_bias(salience, visual, valid, 0.5) if soft else causal_bias(visual, valid)
    weight = row_weight("received", visual, valid)

    output, log_sum = kernels.attention(query, key, value, bias, 0.2, SMALL)
    received = kernels.received_attention(query, key, bias, weight, 0.2, log_sum, SMALL)

    limit = TOLERANCE[dtype]
    torch.testing.assert_close(
        output.float(), dense_attention(query, key, value, bias, 0.2), rtol=limit, atol=limit
    )
    # Whatever the inputs' dtype, scores are float32 from the first product on.
    expected = received_attention(query, key, bias.matrix(), weight, 0.2)
    torch.testing.assert_close(received, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "shape",
    [
        {"tokens": 37, "past": 13},
        {"tokens": 1, "past": 20, "batch": 1},
        {"heads": 3, "kv_heads": 1, "head_dim": 16},
        {"heads": 2, "kv_heads": 2, "tokens": 129, "batch": 1},
    ],
    ids=["a later turn", "one row", "one head of keys", "more rows than a block"],
)
@pytest.mark.parametrize("score", ["received", "text"])
def test_any_shape_without_the_attention_s_pass(shape, score):
    query, key, _, salience, visual, valid = scene(torch.float32, **shape)
    bias = soft_bias(salience, visual, valid, 0.5)
    weight = row_weight(score, visual, valid[:, valid.shape[1] - visual.shape[1] :])
    # As transformers hands them over: heads behind tokens in memory.
    query, key = (part.transpose(1, 2).contiguous().transpose(1, 2) for part in (query, key))

    found = kernels.received_attention(query, key, bias, weight, 0.2, tile=SMALL)

    expected = received_attention(query, key, bias.matrix(), weight, 0.2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("path", golden_cases.FILES, ids=lambda path: path.stem)
def test_the_fused_cut_reproduces_the_golden_case(path):
    case = golden_cases.load(path)
    query, key, hidden = (case.batch(name) for name in ("query", "key", "hidden"))
    visual, valid = case.batch("visual_mask"), case.batch("attention_mask")
    output, seen = attend_and_score(case.config, query, key, key, visual, case.scale, valid, fused=True)
    plain, _ = attend_and_score(case.config, query, key, key, visual, case.scale, valid)
    torch.testing.assert_close(output, plain, rtol=1e-5, atol=1e-5)
    survivors = drop_tokens(case.config, seen, hidden, visual, case.kept_length, valid)
    is_visual = case.inputs["visual_mask"]
    torch.testing.assert_close(
        seen.score[0][is_visual],
        torch.from_numpy(case.expected["score"])[is_visual],
        **golden_cases.TOLERANCE,
    )
    assert survivors.kept_index[0].tolist() == case.expected["index"].tolist()


COMPILE = Path(__file__).with_name("compile_kernels.py")
HOPPER_SHARED_MEMORY = 227 * 1024  # bytes that one block may take


def test_they_compile_for_a_hopper_gpu(tmp_path):
    """Ahead of time, in a process without the interpreter: PTX and a binary come out, and fit the GPU's memory."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, COMPILE], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 9
    for name, kernel in found.items():
        assert kernel["target"] == "sm_90a" and kernel["binary"] > 0, name
        assert kernel["tensor_cores"] == ("fp32" not in name), name  # float32 stays float32
        assert kernel["shared"] <= HOPPER_SHARED_MEMORY, name
