"""Token embeddings with the visual tokens in their places."""

import torch
from torch import Tensor, nn

__all__ = ["TokenEmbedding"]


class TokenEmbedding(nn.Module):
    """Looks text tokens up, and puts visual tokens, in order, where the prompt has image tokens."""

    def __init__(self, llava: nn.Module) -> None:
        super().__init__()
        self.embed_tokens = llava.model.language_model.embed_tokens
        self.image_token_id: int = llava.config.image_token_id

    def forward(self, input_ids: Tensor, image_features: Tensor) -> Tensor:
        """input_ids: [B, T] int64; image_features: [N, D], N ≥ 0, one row per image token of the batch, row by
        row. Returns [B, T, D]."""
        is_image = input_ids == self.image_token_id
        order = is_image.flatten().cumsum(0).reshape(is_image.shape)  # 1, 2, ... at image tokens
        # Row 0 of zeros stands for "no image token", so that N = 0 gathers from something.
        rows = torch.nn.functional.pad(image_features, (0, 0, 1, 0))
        visual = rows[torch.where(is_image, order, 0)]
        text = self.embed_tokens(torch.where(is_image, 0, input_ids))
        return torch.where(is_image[:, :, None], visual, text)
