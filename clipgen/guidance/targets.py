"""What steers: CLIPs that guide, what they are to see, and how well a picture fits that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.decode import read_pixels
from clipgen.errors import SettingsError
from clipgen.settings.checks import split_target
from clipgen.settings.settings import Settings

LoadEncoder = Callable[[str], ClipEncoder]
Decode = Callable[[Tensor], Tensor]  # latents [B, C, h, w] -> pixels [B, 3, H, W]
Reward = Callable[[Tensor], Tensor]  # latents [B, C, h, w] -> how well each fits its targets, [B] in float32


@dataclass(frozen=True)
class ClipTarget:
    """One CLIP and what pictures are to look like to it.

    `targets` [B, T, D] are unit vectors, row b for picture b, or [1, T, D] for all; `weights` [T], negative = away.
    The first target is the picture's own prompt.
    """

    encoder: ClipEncoder
    targets: Tensor
    weights: Tensor

    def cosines(self, pixels: Tensor) -> Tensor:
        """Returns the cosines [B, T] of pictures [B, 3, H, W] in [0, 1] to their targets."""
        return (self.encoder.image_features(pixels)[:, None] * self.targets).sum(dim=-1)

    @torch.no_grad()
    def similarity(self, pixels: Tensor) -> Tensor:
        """Returns the cosines [B] of pictures [B, 3, H, W] in [0, 1] to their prompts."""
        return self.cosines(pixels)[:, 0]

    def reward(self, decode: Decode) -> Reward:
        """Returns what a choice among latents goes by: the weighted cosines of what they decode to, one by one."""

        def reward(latents: Tensor) -> Tensor:
            seen = torch.cat([self.cosines(decode(row).clamp(0, 1)) for row in latents.split(1)])
            return seen @ self.weights

        return reward


@dataclass(frozen=True)
class GuidanceEncoders:
    """The CLIPs of a run: those that guide, and the second key that may veto them."""

    guides: tuple[ClipEncoder, ...]
    second: ClipEncoder | None = None


def choose_encoders(settings: Settings, own: ClipEncoder | None, model: str, load: LoadEncoder) -> GuidanceEncoders:
    """Returns the CLIPs that settings name, else the model's own; `two-key` takes the last one named as its second key.

    Raises SettingsError where there is none, and what `load` raises.
    """
    named = tuple(load(name) for name in settings.clip_models)
    guides, second = (named[:-1], named[-1]) if settings.guard == "two-key" and named else (named, None)
    if settings.guard == "two-key" and second is None:
        raise SettingsError("guard two-key needs a second CLIP: name it with clip_models", field="guard")
    if not guides and own is None:
        asks = f"guidance '{settings.guidance}'" if settings.budget is None else f"budget {settings.budget:g}x"
        raise SettingsError(
            f"{asks} needs a CLIP, and model '{model}' brings none: name one with clip_models, "
            "such as openai/clip-vit-base-patch32",
            field="clip_models",
        )
    return GuidanceEncoders(guides or (own,) if own is not None else guides, second)


def build_clip_target(encoder: ClipEncoder, texts: Sequence[str], settings: Settings) -> ClipTarget:
    """Returns what an encoder is to see: each picture's text, and the texts and pictures that settings add.

    Without words it is the picture that is varied. Raises ImageFileError for a picture that cannot be opened.
    """
    words = [split_target(target) for target in settings.guide]
    pictures = [split_target(target) for target in settings.like]
    extra = [encoder.text_features([text]) for text, _ in words]
    extra += [encoder.image_features(read_pixels(path)) for path, _ in pictures]
    prompts = encoder.text_features(texts)  # [B, D]
    if settings.vary is not None and not any(texts):
        prompts = encoder.image_features(read_pixels(split_target(settings.vary)[0])).expand_as(prompts)
    targets = torch.stack([prompts, *(vector.expand_as(prompts) for vector in extra)], dim=1)
    weights = torch.tensor([1.0, *(weight for _, weight in (*words, *pictures))], device=targets.device)
    return ClipTarget(encoder, targets, weights)
