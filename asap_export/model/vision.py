"""From tiles to visual tokens: vision tower, projector, and the packing of tiles as one gather."""

from typing import Any

import torch
from torch import Tensor, nn

from asap_export.model.shortened import with_first_layers, with_modules

__all__ = ["VisionEncoder"]


class VisionEncoder(nn.Module):
    """LLaVA's image half. Layers above the last one whose features are used are never run."""

    def __init__(self, llava: Any) -> None:
        super().__init__()
        config = llava.config
        config.vision_config._attn_implementation = "sdpa"
        tower = llava.model.vision_tower
        self.tower = getattr(tower, "vision_model", tower)
        self.projector = llava.model.multi_modal_projector
        self.newline = getattr(llava.model, "image_newline", None)  # LLaVA-1.5 has none
        layers = config.vision_config.num_hidden_layers
        chosen = config.vision_feature_layer
        chosen = [chosen] if isinstance(chosen, int) else list(chosen)
        # transformers counts hidden states: 0 is the embedding, -1 the output of the last layer
        self.feature_layers: list[int] = [layer % (layers + 1) for layer in chosen]
        self.drop_class_token = config.vision_feature_select_strategy == "default"

    @property
    def used_layers(self) -> int:
        """Of the tower, up to the last whose features are used."""
        return max(self.feature_layers)

    def keep_first_layers(self, layers: int) -> None:
        """Have no others, and the last one's features in the place of those used, where they are of one layer."""
        if layers < self.used_layers and len(self.feature_layers) == 1:
            self.feature_layers = [layers]
        self.tower = with_modules(self.tower, encoder=with_first_layers(self.tower.encoder, self.used_layers))

    def forward(self, pixel_values: Tensor, gather_index: Tensor) -> Tensor:
        """Visual tokens of all images of a prompt, in prompt order.

        pixel_values: [tiles, 3, h, w], normalised; gather_index: [N] int64 into the rows "all features of every
        tile, then the newline" (see ``anyres.packing``). Returns [N, D].
        """
        hidden = self.tower.pre_layrnorm(self.tower.embeddings(pixel_values))
        states = {0: hidden}
        for number, layer in enumerate(self.tower.encoder.layers[: self.used_layers], start=1):
            hidden = layer(hidden, None)
            states[number] = hidden
        features = torch.cat([states[layer] for layer in self.feature_layers], dim=-1)
        if self.drop_class_token:
            features = features[:, 1:]
        rows: Tensor = self.projector(features).flatten(0, 1)  # [tiles · rows of a tile, D]
        if self.newline is not None:
            rows = torch.cat([rows, self.newline[None].to(rows.dtype)])
        return rows[gather_index]
