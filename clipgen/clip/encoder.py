"""A CLIP or SigLIP model as two functions to unit vectors, one of texts and one of pictures; gradients reach pixels."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's CLIP
HALF = (0.5, 0.5, 0.5)  # SigLIP's mean, and its deviation
RESAMPLING = {2: "bilinear", 3: "bicubic"}  # what a preprocessor's `resample` means; Pillow's numbers
TEXTS_AT_ONCE = 128
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class ClipEncoder:
    """One loaded transformers CLIPModel, SiglipModel or Siglip2Model with its tokenizer.

    `preprocessor` is the model's preprocessor_config.json; without image_mean and image_std its maker's are taken.
    Radford et al. 2021 (arXiv 2103.00020), Zhai et al. 2023 (2303.15343), Tschannen et al. 2025 (2502.14786).
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, preprocessor: Mapping[str, Any]) -> None:
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.kind: str = model.config.model_type  # clip, siglip or siglip2
        self.side = _side_of(model.config)
        self.text_limit: int = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
        mean, std = (MEAN, STD) if self.kind == "clip" else (HALF, HALF)
        self.mean = torch.tensor(preprocessor.get("image_mean", mean), device=model.device).view(3, 1, 1)
        self.std = torch.tensor(preprocessor.get("image_std", std), device=model.device).view(3, 1, 1)
        self._mode = RESAMPLING.get(preprocessor.get("resample", 3), "bicubic")

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Returns the unit vectors [T, D] of texts, each cut at the model's token limit."""
        parts = [self._text_features(texts[i : i + TEXTS_AT_ONCE]) for i in range(0, len(texts), TEXTS_AT_ONCE)]
        return torch.cat(parts)

    def _text_features(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            [self._as_trained(text) for text in texts],
            padding="longest" if self.kind == "clip" else "max_length",
            truncation=True,
            max_length=self.text_limit,
            return_tensors="pt",
        ).to(self.model.device)
        mask = {"attention_mask": tokens.attention_mask} if self.kind == "clip" else {}
        features = self.model.get_text_features(input_ids=tokens.input_ids, **mask)
        return F.normalize(features.pooler_output.float(), dim=-1)

    def _as_trained(self, text: str) -> str:
        """Returns a text as the model's own training texts were: SigLIP's lower case, the first one's bare words."""
        if self.kind == "clip":  # its tokenizer does so itself
            return text
        is_first = type(self.tokenizer.backend_tokenizer.model).__name__ == "Unigram"
        return " ".join(text.lower().translate(_NO_PUNCTUATION).split()) if is_first else text.lower()

    def image_features(self, pixels: Tensor) -> Tensor:
        """Returns the unit vectors [I, D] of pictures [I, 3, H, W] in [0, 1]; those of its own side are not resized."""
        seen = self.see(pixels.to(self.model.device)).to(self.model.dtype)
        told = patches_of(seen, self.model.config.vision_config.patch_size) if self.kind == "siglip2" else {}
        features = self.model.get_image_features(**(told or {"pixel_values": seen}))
        return F.normalize(features.pooler_output.float(), dim=-1)

    def see(self, pixels: Tensor) -> Tensor:
        """Returns pictures on its device as the vision tower takes them, normalised, of its own side.

        CLIP sees the centre square, SigLIP the whole picture, squeezed.
        """
        size = self._size_seen(*pixels.shape[-2:])
        if size != tuple(pixels.shape[-2:]):
            pixels = F.interpolate(pixels, size, mode=self._mode, antialias=True, align_corners=False).clamp(0, 1)
        top, left = (size[0] - self.side) // 2, (size[1] - self.side) // 2
        return (pixels[..., top : top + self.side, left : left + self.side] - self.mean) / self.std

    def _size_seen(self, height: int, width: int) -> tuple[int, int]:
        if self.kind != "clip":
            return self.side, self.side
        scale = self.side / min(height, width)
        return max(self.side, int(height * scale)), max(self.side, int(width * scale))


def _side_of(config: Any) -> int:
    """Returns the side in pixels of the square a vision tower takes; one of any shape has a budget of patches."""
    vision = config.vision_config
    side: int = isqrt(vision.num_patches) * vision.patch_size if config.model_type == "siglip2" else vision.image_size
    return side


def patches_of(pixels: Tensor, patch: int) -> dict[str, Tensor]:
    """Returns normalised squares [I, 3, S, S] as a Siglip2Model takes them: pixel_values [I, N, 3 patch^2], masks."""
    count, side, device = len(pixels), pixels.shape[-1] // patch, pixels.device
    tiles = pixels.unflatten(-1, (side, patch)).unflatten(-3, (side, patch))  # [I, 3, rows, patch, columns, patch]
    return {
        "pixel_values": tiles.permute(0, 2, 4, 3, 5, 1).reshape(count, side * side, -1),
        "pixel_attention_mask": torch.ones(count, side * side, dtype=torch.long, device=device),
        "spatial_shapes": torch.tensor([[side, side]] * count, device=device),
    }
