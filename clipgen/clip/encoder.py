"""A CLIP or SigLIP model as two functions to unit vectors, one of texts and one of pictures; gradients reach pixels.

Pictures are prepared as the model's own processor of transformers prepares them, 8-bit rounding included.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from math import isqrt
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgen.clip.resample import KERNELS, resize

if TYPE_CHECKING:
    from PIL.Image import Image

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's CLIP
HALF = (0.5, 0.5, 0.5)  # SigLIP's mean, and its deviation
CUBIC = 3  # Pillow's number
LONGEST = 16  # times a picture's short side
TEXTS_AT_ONCE = 128
TEXTS_KEPT = 4096
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
        self.image_size = _side_of(model.config)
        self.text_limit: int = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
        mean, std = (MEAN, STD) if self.kind == "clip" else (HALF, HALF)
        self.mean = torch.tensor(preprocessor.get("image_mean", mean), device=model.device).view(3, 1, 1)
        self.std = torch.tensor(preprocessor.get("image_std", std), device=model.device).view(3, 1, 1)
        known = preprocessor.get("resample", CUBIC)
        self._resample: int = known if known in KERNELS else CUBIC
        self._edge = _shortest_edge(preprocessor.get("size"), self.image_size) if self.kind == "clip" else 0
        self._kept: dict[str, Tensor] = {}
        self._lock = Lock()

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Returns the unit vectors [T, D] of texts, each cut at the model's token limit; the last ones are kept."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._kept]
            for i in range(0, len(new), TEXTS_AT_ONCE):
                part = new[i : i + TEXTS_AT_ONCE]
                self._kept.update(zip(part, self.embed_texts(part), strict=True))
            found = torch.stack([self._kept[text] for text in texts])
            while len(self._kept) > TEXTS_KEPT:
                del self._kept[next(iter(self._kept))]
            return found

    def is_truncated(self, text: str) -> bool:
        """Tells whether a text is longer than the tokens it reads."""
        return len(self.tokenizer(self._as_trained(text), verbose=False).input_ids) > self.text_limit

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Returns the unit vectors [T, D] of texts with their graph to the weights, to train them; none is kept."""
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
        features = self.model.get_image_features(**self._vision_inputs(pixels))
        return F.normalize(features.pooler_output.float(), dim=-1)

    def image_hidden_states(self, pixels: Tensor) -> Tensor:
        """Returns the last states [I, N, W] of the patches of pictures [I, 3, H, W] in [0, 1]; see `image_features`."""
        states: Tensor = self.model.vision_model(**self._vision_inputs(pixels)).last_hidden_state.float()
        return states

    def _vision_inputs(self, pixels: Tensor) -> dict[str, Tensor]:
        """Returns what the vision tower takes for pictures [I, 3, H, W] in [0, 1]."""
        seen = self.preprocess(pixels.to(self.model.device)).to(self.model.dtype)
        if self.kind == "siglip2":
            return patches_of(seen, self.model.config.vision_config.patch_size)
        return {"pixel_values": seen}

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Returns logits_per_image [I, T] of unit vectors [I, D] and [T, D], as the model was trained on them."""
        bias = 0.0 if self.kind == "clip" else self.model.logit_bias
        logits: Tensor = images @ texts.T * self.model.logit_scale.exp() + bias
        return logits

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Returns pictures on its device as the vision tower takes them: of its own size, normalised.

        CLIP sees the centre square, SigLIP the whole picture, squeezed, its variant for any aspect ratio unsqueezed.
        """
        size = self._size_seen(*pixels.shape[-2:])
        if size != tuple(pixels.shape[-2:]):
            pixels = resize(pixels, size, KERNELS[self._resample])
        left, top, right, bottom = self._crop(*size)
        return (pixels[..., top:bottom, left:right] - self.mean) / self.std

    def to_pixels(self, image: Image) -> Tensor:
        """Returns an RGB image of any size as pixels [3, H, W] in [0, 1]; `preprocess` then only normalises them."""
        if self.kind == "clip":
            image = _middle(image)
        height, width = self._size_seen(image.height, image.width)
        resized = image.resize((width, height), self._resample).crop(self._crop(height, width))
        levels = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
        return levels.view(resized.height, resized.width, 3).permute(2, 0, 1) / 255

    def _size_seen(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width that a picture is resized to, before the centre is cut out."""
        if self.kind == "siglip2":
            vision = self.model.config.vision_config
            return within_patches(height, width, vision.patch_size, vision.num_patches)
        if not self._edge or (height, width) == (self.image_size, self.image_size):
            return self.image_size, self.image_size
        scale = self._edge / min(height, width)
        return max(self._edge, int(height * scale)), max(self._edge, int(width * scale))

    def _crop(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Returns left, top, right and bottom of what is seen of a resized picture."""
        if self.kind == "siglip2":
            return 0, 0, width, height
        top, left = (height - self.image_size) // 2, (width - self.image_size) // 2
        return left, top, left + self.image_size, top + self.image_size


def _shortest_edge(size: Any, side: int) -> int:
    """Returns the shorter side that a preprocessor resizes to, 0 if it squeezes the picture into a square."""
    edge = size.get("shortest_edge", 0) if isinstance(size, Mapping) else size or side
    return max(side, int(edge)) if edge else 0


def _side_of(config: Any) -> int:
    """Returns the side in pixels of the square a vision tower takes; one of any shape has a budget of patches."""
    vision = config.vision_config
    side: int = isqrt(vision.num_patches) * vision.patch_size if config.model_type == "siglip2" else vision.image_size
    return side


def _middle(image: Image) -> Image:
    """Returns the middle of a picture that is a line, all of it else: only a square is seen, a line would be huge."""
    most = LONGEST * min(image.size)
    left, top = (max(0, (side - most) // 2) for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top)) if left or top else image


def within_patches(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """Returns the largest size in whole patches, `most` at most, that a picture scaled by one factor rounds up to."""
    by_rows = ((k / height, k, -(-width * k // height)) for k in range(1, most + 1))
    by_columns = ((k / width, -(-height * k // width), k) for k in range(1, most + 1))
    _, rows, columns = max(found for found in (*by_rows, *by_columns) if found[1] * found[2] <= most)
    return rows * patch, columns * patch


def patches_of(pixels: Tensor, patch: int) -> dict[str, Tensor]:
    """Returns normalised pictures [I, 3, H, W] as a Siglip2Model takes them: pixel_values [I, N, 3 patch^2], masks."""
    count, device = len(pixels), pixels.device
    rows, columns = (side // patch for side in pixels.shape[-2:])
    tiles = pixels.unflatten(-1, (columns, patch)).unflatten(-3, (rows, patch))  # [I, 3, rows, patch, columns, patch]
    return {
        "pixel_values": tiles.permute(0, 2, 4, 3, 5, 1).reshape(count, rows * columns, -1),
        "pixel_attention_mask": torch.ones(count, rows * columns, dtype=torch.long, device=device),
        "spatial_shapes": torch.tensor([[rows, columns]] * count, device=device),
    }
