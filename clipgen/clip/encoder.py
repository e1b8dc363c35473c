"""A CLIP or SigLIP model as two functions that return unit vectors: text_features and image_features.

Images are preprocessed as the model's own transformers image processor does it, 8-bit rounding included, but with
operations that gradients pass through, down to the pixels.
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
from clipgen.pixels import to_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's CLIP
HALF = (0.5, 0.5, 0.5)  # both mean and standard deviation of SigLIP
CUBIC = 3  # Pillow's Resampling.BICUBIC
MAX_ASPECT_RATIO = 16
TEXT_BATCH = 128
MAX_CACHED_TEXTS = 4096
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class ClipEncoder:
    """A loaded transformers CLIPModel, SiglipModel or Siglip2Model with its tokenizer.

    Radford et al. 2021 (arXiv 2103.00020), Zhai et al. 2023 (2303.15343), Tschannen et al. 2025 (2502.14786).

    Args:
        name: the name that scores and records carry.
        preprocessor: the model's preprocessor_config.json. Without image_mean and image_std the constants of OpenAI's
            CLIP or of SigLIP are used.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, preprocessor: Mapping[str, Any]) -> None:
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.kind: str = model.config.model_type  # clip, siglip or siglip2
        self.image_size = _image_size(model.config)
        self.text_limit: int = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
        mean, std = (MEAN, STD) if self.kind == "clip" else (HALF, HALF)
        self.mean = torch.tensor(preprocessor.get("image_mean", mean), device=model.device).view(3, 1, 1)
        self.std = torch.tensor(preprocessor.get("image_std", std), device=model.device).view(3, 1, 1)
        resample = preprocessor.get("resample", CUBIC)
        self._resample: int = resample if resample in KERNELS else CUBIC
        self._shortest_edge = _shortest_edge(preprocessor.get("size"), self.image_size) if self.kind == "clip" else 0
        self._text_cache: dict[str, Tensor] = {}
        self._lock = Lock()

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Returns unit vectors [T, D]; texts are truncated at the token limit, and the latest results are cached."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._text_cache]
            for i in range(0, len(new), TEXT_BATCH):
                batch = new[i : i + TEXT_BATCH]
                self._text_cache.update(zip(batch, self.embed_texts(batch), strict=True))
            features = torch.stack([self._text_cache[text] for text in texts])
            while len(self._text_cache) > MAX_CACHED_TEXTS:
                del self._text_cache[next(iter(self._text_cache))]
            return features

    def is_truncated(self, text: str) -> bool:
        """Tells whether a text has more tokens than the model reads."""
        return len(self.tokenizer(self._normalise(text), verbose=False).input_ids) > self.text_limit

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Returns unit vectors [T, D] with gradients to the weights, for training; nothing is cached."""
        tokens = self.tokenizer(
            [self._normalise(text) for text in texts],
            padding="longest" if self.kind == "clip" else "max_length",
            truncation=True,
            max_length=self.text_limit,
            return_tensors="pt",
        ).to(self.model.device)
        mask = {"attention_mask": tokens.attention_mask} if self.kind == "clip" else {}
        outputs = self.model.get_text_features(input_ids=tokens.input_ids, **mask)
        return F.normalize(outputs.pooler_output.float(), dim=-1)

    def _normalise(self, text: str) -> str:
        """Returns the text as the training texts were written: lower case for SigLIP, no punctuation for SigLIP 1."""
        if self.kind == "clip":  # CLIP's tokenizer lowers the case itself
            return text
        is_siglip1 = type(self.tokenizer.backend_tokenizer.model).__name__ == "Unigram"
        return " ".join(text.lower().translate(_NO_PUNCTUATION).split()) if is_siglip1 else text.lower()

    def image_features(self, pixels: Tensor) -> Tensor:
        """Returns unit vectors [I, D] of images [I, 3, H, W] in [0, 1]; images of `image_size` are not resized."""
        outputs = self.model.get_image_features(**self._vision_inputs(pixels))
        return F.normalize(outputs.pooler_output.float(), dim=-1)

    def image_hidden_states(self, pixels: Tensor) -> Tensor:
        """Returns the vision model's last_hidden_state [I, N, W] of images [I, 3, H, W] in [0, 1]."""
        states: Tensor = self.model.vision_model(**self._vision_inputs(pixels)).last_hidden_state.float()
        return states

    def _vision_inputs(self, pixels: Tensor) -> dict[str, Tensor]:
        """Returns the keyword arguments of the vision model for images [I, 3, H, W] in [0, 1]."""
        pixel_values = self.preprocess(pixels.to(self.model.device)).to(self.model.dtype)
        if self.kind == "siglip2":
            return naflex_inputs(pixel_values, self.model.config.vision_config.patch_size)
        return {"pixel_values": pixel_values}

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Returns logits_per_image [I, T] of unit vectors [I, D] and [T, D], with the model's scale and bias."""
        bias = 0.0 if self.kind == "clip" else self.model.logit_bias
        logits: Tensor = image_features @ text_features.T * self.model.logit_scale.exp() + bias
        return logits

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Returns pixel_values [I, 3, h, w]: images [I, 3, H, W] in [0, 1] resized, cropped and normalised.

        CLIP takes the centre square, SigLIP the whole image squeezed into a square, Siglip2Model the whole image in
        its own aspect ratio.
        """
        size = self._resized_size(*pixels.shape[-2:])
        if size != tuple(pixels.shape[-2:]):
            pixels = resize(pixels, size, KERNELS[self._resample])
        left, top, right, bottom = self._crop_box(*size)
        return (pixels[..., top:bottom, left:right] - self.mean) / self.std

    def to_pixels(self, image: Image) -> Tensor:
        """Returns an RGB image of any size as pixels [3, h, w] in [0, 1], resized and cropped by Pillow.

        `preprocess` then only normalises them.
        """
        if self.kind == "clip":
            image = _limit_aspect_ratio(image)
        height, width = self._resized_size(image.height, image.width)
        resized = image.resize((width, height), self._resample).crop(self._crop_box(height, width))
        return to_pixels(resized)

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width that an image is resized to, before the centre crop."""
        if self.kind == "siglip2":
            vision = self.model.config.vision_config
            return naflex_size(height, width, vision.patch_size, vision.num_patches)
        if not self._shortest_edge or (height, width) == (self.image_size, self.image_size):
            return self.image_size, self.image_size
        edge = self._shortest_edge
        scale = edge / min(height, width)
        return max(edge, int(height * scale)), max(edge, int(width * scale))

    def _crop_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Returns left, top, right and bottom of the centre crop of a resized image."""
        if self.kind == "siglip2":
            return 0, 0, width, height
        top, left = (height - self.image_size) // 2, (width - self.image_size) // 2
        return left, top, left + self.image_size, top + self.image_size


def _shortest_edge(size: Any, image_size: int) -> int:
    """Returns the shorter side that a preprocessor resizes to, or 0 if it squeezes the image into a square."""
    edge = size.get("shortest_edge", 0) if isinstance(size, Mapping) else size or image_size
    return max(image_size, int(edge)) if edge else 0


def _image_size(config: Any) -> int:
    """Returns the side in pixels of the square that a vision model takes; Siglip2Model's follows from num_patches."""
    vision = config.vision_config
    size: int = isqrt(vision.num_patches) * vision.patch_size if config.model_type == "siglip2" else vision.image_size
    return size


def _limit_aspect_ratio(image: Image) -> Image:
    """Returns the middle of an extremely long image: the centre crop drops the rest, and resizing it would be slow."""
    limit = MAX_ASPECT_RATIO * min(image.size)
    left, top = (max(0, (side - limit) // 2) for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top)) if left or top else image


def naflex_size(height: int, width: int, patch_size: int, max_num_patches: int) -> tuple[int, int]:
    """Returns the largest height and width, multiples of `patch_size`, with at most `max_num_patches` patches.

    The image is scaled by one factor and each side rounded up to whole patches, as Siglip2ImageProcessor does.
    """
    by_rows = ((k / height, k, -(-width * k // height)) for k in range(1, max_num_patches + 1))
    by_columns = ((k / width, -(-height * k // width), k) for k in range(1, max_num_patches + 1))
    candidates = (*by_rows, *by_columns)  # (scale, rows, columns)
    _, rows, columns = max(candidate for candidate in candidates if candidate[1] * candidate[2] <= max_num_patches)
    return rows * patch_size, columns * patch_size


def naflex_inputs(pixel_values: Tensor, patch_size: int) -> dict[str, Tensor]:
    """Returns Siglip2Model's inputs for normalised images [I, 3, H, W].

    These are pixel_values [I, N, 3 patch_size^2], pixel_attention_mask [I, N] and spatial_shapes [I, 2].
    """
    count, device = len(pixel_values), pixel_values.device
    rows, columns = (side // patch_size for side in pixel_values.shape[-2:])
    # [I, 3, H, W] -> [I, 3, rows, patch, columns, patch] -> [I, rows, columns, patch, patch, 3] -> [I, N, 3 patch^2]
    patches = pixel_values.unflatten(-1, (columns, patch_size)).unflatten(-3, (rows, patch_size))
    return {
        "pixel_values": patches.permute(0, 2, 4, 3, 5, 1).reshape(count, rows * columns, -1),
        "pixel_attention_mask": torch.ones(count, rows * columns, dtype=torch.long, device=device),
        "spatial_shapes": torch.tensor([[rows, columns]] * count, device=device),
    }
