"""Attention of training on a CPU: the image attends to itself once, the questions to the image and to themselves.

Fused attention takes the whole square of image and questions, most of which is masked, and its backward pass is
slow on a CPU; plain products over the parts that count take half the time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

__all__ = ["NAME", "Parts"]

NAME = "image_and_questions"
FAR = -30.0  # e^-30 is nothing, and bfloat16 has it


@dataclass(frozen=True)
class Parts:
    """Biases, 0 or ``FAR``: ``image`` [V, V] of what stands before the questions, ``questions`` [B, 1, T, V+T]."""

    image: Tensor
    questions: Tensor

    @classmethod
    def of(cls, block: Tensor, before: int, dtype: torch.dtype) -> "Parts":
        """block: [B, T], which question a token belongs to."""
        device, length = block.device, block.shape[1]
        image = torch.full((before, before), FAR, device=device, dtype=dtype).triu(1)
        own = (block[:, :, None] == block[:, None, :]) & torch.ones(
            length, length, dtype=torch.bool, device=device
        ).tril()
        seen = torch.cat([own.new_ones(*block.shape, before), own], dim=-1)
        return cls(image, torch.where(seen, 0.0, FAR).to(dtype)[:, None])


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: None,
    scaling: float,
    parts: Parts,
    **_: object,
) -> tuple[Tensor, None]:
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    before = parts.image.shape[0]
    query = query * scaling

    def part(rows: slice, columns: slice, bias: Tensor) -> Tensor:
        logits = query[:, :, rows] @ key[:, :, columns].transpose(-1, -2)
        return (logits + bias).softmax(dim=-1, dtype=logits.dtype) @ value[:, :, columns]

    half = before // 2
    first = part(slice(0, half), slice(0, half), parts.image[:half, :half])
    second = part(slice(half, before), slice(0, before), parts.image[half:])
    last = part(slice(before, None), slice(None), parts.questions)
    return torch.cat([first, second, last], dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)
