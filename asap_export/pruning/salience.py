"""How much attention mass the visual tokens put on each of them (paper Eq 2 and 3)."""

import torch
from torch import Tensor

__all__ = ["attention_mass", "normalised_salience"]

EPSILON = 1e-6  # Eq 3's guard against a constant mass


def attention_mass(query: Tensor, key: Tensor, visual_mask: Tensor, scale: float) -> Tensor:
    """Raw attention mass ``s_j`` (Eq 2): mean over heads, sum over visual rows, no mask and no softmax.

    The sum over rows is linear, so the queries are added up first: O(tokens · head_dim), no N×N matrix. Products
    of equal keys are equal; added up in float64 they stay so, in whatever order that is done, and tie exactly.

    query: [B, H, T, d] after RoPE; key: [B, Hkv, T, d] after RoPE, of the same new tokens;
    visual_mask: [B, T] bool; scale: usually 1/√d. Returns [B, T] float32; off-visual values mean nothing.
    """
    heads, kv_heads = query.shape[1], key.shape[1]
    summed = query.masked_fill(~visual_mask[:, None, :, None], 0.0).sum(
        dim=2, dtype=torch.float32
    )  # [B, H, d]
    per_key_head = summed.reshape(len(summed), kv_heads, -1, summed.shape[2]).sum(dim=2)  # [B, Hkv, d]
    products = key * per_key_head[:, :, None]  # float32
    return products.sum(dim=(1, 3), dtype=torch.float64).float() * (scale / heads)


def normalised_salience(mass: Tensor, visual_mask: Tensor) -> Tensor:
    """Salience ``ŝ_j`` (Eq 3): the mass of each row's visual tokens brought to [0, 1]; 0 elsewhere.

    mass: [B, T] float32; visual_mask: [B, T] bool. Returns [B, T] float32.
    """
    largest = torch.finfo(mass.dtype).max
    low = mass.masked_fill(~visual_mask, largest).amin(dim=1, keepdim=True)
    high = mass.masked_fill(~visual_mask, -largest).amax(dim=1, keepdim=True)
    return ((mass - low) / (high - low + EPSILON)).masked_fill(~visual_mask, 0.0)
