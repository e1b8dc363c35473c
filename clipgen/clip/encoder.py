"""A CLIP model as two functions to unit vectors, one of texts and one of pictures; gradients reach the pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's CLIP
TEXTS_AT_ONCE = 128


class ClipEncoder:
    """One loaded transformers CLIPModel with its tokenizer; Radford et al. 2021 (arXiv 2103.00020).

    `preprocessor` is the model's preprocessor_config.json; without image_mean and image_std, OpenAI's are taken.
    """

    def __init__(self, name: str, model: CLIPModel, tokenizer: CLIPTokenizer, preprocessor: Mapping[str, Any]) -> None:
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.side: int = model.config.vision_config.image_size
        self.text_limit: int = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
        self.mean = torch.tensor(preprocessor.get("image_mean", MEAN), device=model.device).view(3, 1, 1)
        self.std = torch.tensor(preprocessor.get("image_std", STD), device=model.device).view(3, 1, 1)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Returns the unit vectors [T, D] of texts, each cut at the model's token limit."""
        parts = [self._text_features(texts[i : i + TEXTS_AT_ONCE]) for i in range(0, len(texts), TEXTS_AT_ONCE)]
        return torch.cat(parts)

    def _text_features(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(texts), padding="longest", truncation=True, max_length=self.text_limit, return_tensors="pt"
        ).to(self.model.device)
        features = self.model.get_text_features(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        return F.normalize(features.pooler_output.float(), dim=-1)

    def image_features(self, pixels: Tensor) -> Tensor:
        """Returns the unit vectors [I, D] of pictures [I, 3, H, W] in [0, 1]."""
        features = self.model.get_image_features(pixel_values=self.see(pixels.to(self.model.device)))
        return F.normalize(features.pooler_output.float(), dim=-1)

    def see(self, pixels: Tensor) -> Tensor:
        """Returns pictures on its device as the vision tower takes them: short side to its side, centre, normalised."""
        height, width = pixels.shape[-2:]
        scale = self.side / min(height, width)
        size = (max(self.side, int(height * scale)), max(self.side, int(width * scale)))
        if size != (height, width):
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        top, left = (size[0] - self.side) // 2, (size[1] - self.side) // 2
        return (pixels[..., top : top + self.side, left : left + self.side] - self.mean) / self.std
