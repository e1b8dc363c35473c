"""The CLIPs that guide a batch, and the text and image embeddings they guide towards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.decode import read_pixels
from clipgen.errors import SettingsError
from clipgen.settings.checks import split_target
from clipgen.settings.settings import Settings

LoadEncoder = Callable[[str], ClipEncoder]  # loads a CLIP by folder or hub id
Decode = Callable[[Tensor], Tensor]  # latents [B, C, h, w] -> pixels [B, 3, H, W]
Reward = Callable[[Tensor], Tensor]  # latents [B, C, h, w] -> a score per row [B] in float32


@dataclass(frozen=True)
class ClipTarget:
    """A CLIP with the embeddings that images are guided towards.

    `embeddings` [B, T, D] are unit vectors, T per image, or [1, T, D] for one set shared by all rows; the first one is
    that of the image's own prompt. `weights` [T]; a negative weight guides away from its embedding.
    """

    encoder: ClipEncoder
    embeddings: Tensor
    weights: Tensor

    def of_rows(self, rows: Tensor) -> ClipTarget:
        """Returns the target of these rows of the batch; one set of embeddings is shared by all."""
        return (
            self
            if len(self.embeddings) == 1
            else replace(self, embeddings=self.embeddings[rows.to(self.weights.device)])
        )

    def cosines(self, pixels: Tensor) -> Tensor:
        """Returns the cosine similarities [B, T] of images [B, 3, H, W] in [0, 1] to their target embeddings."""
        return (self.encoder.image_features(pixels)[:, None] * self.embeddings).sum(dim=-1)

    @torch.no_grad()
    def prompt_similarity(self, pixels: Tensor) -> Tensor:
        """Returns the cosine similarity [B] of each image [B, 3, H, W] in [0, 1] to its prompt."""
        return self.cosines(pixels)[:, 0]

    def make_reward(self, decode: Decode) -> Reward:
        """Returns a reward for latents: the weighted sum of the cosines of the decoded images."""

        def reward(latents: Tensor) -> Tensor:
            # One row at a time: a reward must not depend on the size of the batch, and a full decode needs memory.
            cosines = torch.cat([self.cosines(decode(row).clamp(0, 1)) for row in latents.split(1)])  # [B, T]
            return cosines @ self.weights

        return reward


@dataclass(frozen=True)
class GuidanceEncoders:
    """The CLIPs of a run: those that guide, one that may veto their gradient, and the model's own if it has one."""

    guiding: tuple[ClipEncoder, ...]
    veto: ClipEncoder | None
    own: ClipEncoder | None


@dataclass(frozen=True)
class GuidanceTargets:
    """The targets of a batch for each of its GuidanceEncoders."""

    guiding: tuple[ClipTarget, ...]
    veto: ClipTarget | None


def choose_encoders(settings: Settings, own: ClipEncoder | None, model: str, load: LoadEncoder) -> GuidanceEncoders:
    """Returns the CLIPs that `clip_models` names, by default the model's own.

    With the guard `two-key` the last one of `clip_models` vetoes and the others guide. Raises SettingsError if no CLIP
    is left to guide or to veto, and what `load` raises.
    """
    named = tuple(load(name) for name in settings.clip_models)
    guiding, veto = (named[:-1], named[-1]) if settings.guard == "two-key" and named else (named, None)
    if settings.guard == "two-key" and veto is None:
        raise SettingsError("guard two-key needs a second CLIP: name it with clip_models", field="guard")
    if not guiding and own is not None:
        guiding = (own,)
    if not guiding:
        method = f"guidance '{settings.guidance}'" if settings.budget is None else f"budget {settings.budget:g}x"
        raise SettingsError(
            f"{method} needs a CLIP, and model '{model}' has none: name one with clip_models, "
            "such as openai/clip-vit-base-patch32",
            field="clip_models",
        )
    return GuidanceEncoders(guiding, veto, own)


def build_targets(encoders: GuidanceEncoders, texts: Sequence[str], settings: Settings) -> GuidanceTargets:
    """Returns the targets of a batch of images with these texts; see `build_clip_target`."""
    return GuidanceTargets(
        guiding=tuple(build_clip_target(encoder, texts, settings) for encoder in encoders.guiding),
        veto=None if encoders.veto is None else build_clip_target(encoders.veto, texts, settings),
    )


@torch.no_grad()
def build_clip_target(encoder: ClipEncoder, texts: Sequence[str], settings: Settings) -> ClipTarget:
    """Returns the target of one CLIP: the text of each image with weight 1, then `guide` texts and `like` images.

    If no image has a text, the image to vary takes its place. Raises ImageFileError for an unreadable image.
    """
    guide = [split_target(target) for target in settings.guide]  # (text, weight)
    like = [split_target(target) for target in settings.like]  # (path, weight)
    prompts = encoder.text_features(texts)  # [B, D]
    if settings.vary is not None and not any(texts):
        path, _ = split_target(settings.vary)
        prompts = encoder.image_features(read_pixels(path)).expand_as(prompts)
    extra = [encoder.text_features([text]) for text, _ in guide]  # [1, D] each
    extra += [encoder.image_features(read_pixels(path)) for path, _ in like]
    embeddings = torch.stack([prompts, *(features.expand_as(prompts) for features in extra)], dim=1)  # [B, T, D]
    weights = torch.tensor([1.0, *(weight for _, weight in (*guide, *like))], device=embeddings.device)  # [T]
    return ClipTarget(encoder, embeddings, weights)
