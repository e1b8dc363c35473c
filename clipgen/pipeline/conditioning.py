"""Encodes prompts, and the image of a variation, into the conditioning that the denoiser receives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from clipgen.families import Conditioning, Family, stack_conditionings
from clipgen.families.lora import Lora
from clipgen.pipeline.plan import Batch
from clipgen.pipeline.variation import Variation
from clipgen.settings.settings import Note, Settings
from clipgen.text import encode_prompt

CACHED_PROMPTS = 64
NEGATIVE_UNREAD = Note("negative-prompt-unread", "negative_prompt", "This model takes no negative prompt.")


@dataclass(frozen=True, eq=False)
class BatchConditioning:
    """The conditioning [B, ...] of the prompts and of the negative prompts, and the notes about each image's prompts.

    For a distilled model, which has no unconditional prediction, `negative` is `positive`.
    """

    positive: Conditioning
    negative: Conditioning
    notes: tuple[tuple[Note, ...], ...]


class PromptEncoder:
    """Encodes prompts with the text encoders of a model and caches the last ones."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._encode = lru_cache(CACHED_PROMPTS)(self._encode_text)

    def encode_prompt(self, settings: Settings, loras: tuple[Lora, ...] = (), field: str = "prompt") -> Conditioning:
        """Returns the conditioning [1, ...] of the prompt, or of the field `negative_prompt`; raises PromptError.

        `loras` are those that are active in the text encoders.
        """
        conditioning, _ = self._encode_field(settings, loras, field)
        conditioning = self.family.with_image(conditioning, None, 0.0, 0)
        return self.family.with_guidance_scale(conditioning, settings.guidance_scale or 1.0)

    @torch.no_grad()
    def encode_batch(self, batch: Batch, variation: Variation | None) -> BatchConditioning:
        """Returns the conditioning of a batch; the image of a variation joins the prompt only. Raises PromptError."""
        fields = ("prompt",) if self.family.distilled else ("prompt", "negative_prompt")
        rows: dict[str, list[Conditioning]] = {field: [] for field in fields}
        all_notes: list[tuple[Note, ...]] = []
        for image in batch.reworded:
            notes = [NEGATIVE_UNREAD] if self.family.distilled and image.negative_prompt != "" else []
            for field in fields:
                conditioning, field_notes = self._encode_field(image, batch.loras, field)
                embeds, weight = (None, 0.0)
                if variation is not None and field == "prompt":
                    embeds, weight = variation.image_embeds.embeds, variation.source.weight
                rows[field].append(self.family.with_image(conditioning, embeds, weight, image.seed or 0))
                notes += field_notes
            all_notes.append(tuple(notes))
        stacked = [
            self.family.with_guidance_scale(stack_conditionings(conditionings), batch.guidance_scale)
            for conditionings in rows.values()
        ]
        return BatchConditioning(stacked[0], stacked[-1], tuple(all_notes))

    def clear_cache(self) -> None:
        """Forgets the encoded prompts, because the text encoders have changed."""
        self._encode.cache_clear()

    def _encode_field(
        self, settings: Settings, loras: tuple[Lora, ...], field: str
    ) -> tuple[Conditioning, tuple[Note, ...]]:
        text = getattr(settings, field)
        return self._encode(field, text, settings.prompt_syntax, settings.long_prompt, loras)

    def _encode_text(
        self, field: str, text: str, syntax: str, long_prompt: str, loras: tuple[Lora, ...]
    ) -> tuple[Conditioning, tuple[Note, ...]]:
        """Encodes one text without the cache, in which each set of LoRAs has its own entries."""
        encoded = encode_prompt(text, self.family.text_encoders, syntax=syntax, long_prompt=long_prompt, field=field)
        return self.family.encode(encoded.embedded, is_empty=encoded.text == ""), encoded.warnings
