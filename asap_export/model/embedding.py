"""Token embeddings with the visual tokens in their places."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["TokenEmbedding"]


class TokenEmbedding(nn.Module):
    """Looks text tokens up, and puts visual tokens, in order, where the prompt has image tokens.

    An image token without a feature row (one that the model itself wrote) is looked up like text.
    """

    def __init__(self, llava: Any) -> None:
        super().__init__()
        self.embed_tokens: nn.Embedding = llava.model.language_model.embed_tokens
        self.image_token_id: int = llava.config.image_token_id

    def forward(self, input_ids: Tensor, image_features: Tensor) -> Tensor:
        """input_ids: [B, T] int64; image_features: [N, D], N ≥ 0, one row per image token of the prompts, row by
        row. Returns [B, T, D]."""
        is_image = input_ids == self.image_token_id
        # 1, 2, ... at image tokens, counted in float32: of whole numbers TensorRT's parser promises no CumSum.
        order = is_image.flatten().float().cumsum(0).long().reshape(is_image.shape)
        has_row = is_image & (order <= image_features.shape[0])
        # Any row stands for "no visual token", so that N = 0 gathers from something. It is one of the table's,
        # because ONNX Runtime cannot make one of bfloat16 on CUDA.
        rows = torch.cat([self.embed_tokens.weight[:1], image_features])
        visual = rows[torch.where(has_row, order, 0)]
        # An image token's own id may have no row: checkpoints count it behind the vocabulary.
        text: Tensor = self.embed_tokens(torch.where(has_row, 0, input_ids))
        return torch.where(has_row[:, :, None], visual, text)
