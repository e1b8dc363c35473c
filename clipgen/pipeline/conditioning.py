"""Encodes prompts, and the image of a variation, into the conditioning that the denoiser receives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from clipgen.families import FAMILIES, Conditioning, Family, stack_conditionings
from clipgen.families.lora import Lora
from clipgen.families.textual_inversion import Embedding
from clipgen.pipeline.adapters import embeddings_of
from clipgen.pipeline.offload import text_encoders_on_device
from clipgen.pipeline.plan import Batch
from clipgen.pipeline.variation import Variation
from clipgen.settings.settings import Note, Settings
from clipgen.text import TokenizedPrompt, embed_prompt, tokenize_prompt

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


@dataclass(frozen=True)
class PromptText:
    """One prompt of an image, and what its encoding depends on."""

    field: str
    text: str
    syntax: str
    long_prompt: str
    embeddings: tuple[Embedding, ...]
    clip_skip: int


class PromptEncoder:
    """Encodes prompts with the text encoders of a model and caches the last ones."""

    def __init__(self, family: Family, model: str) -> None:
        self.family = family
        self._model = model
        self._layout, _ = FAMILIES[family.name]
        self._encode = lru_cache(CACHED_PROMPTS)(self._encode_text)

    def encode_prompt(self, settings: Settings, loras: tuple[Lora, ...] = (), field: str = "prompt") -> Conditioning:
        """Returns the conditioning [1, ...] of the prompt, or of the field `negative_prompt`; raises PromptError.

        `loras` are those that are active in the text encoders.
        """
        text = self._text(settings, field)
        conditioning, _ = self._encode(text, loras, self._count_windows([text]))
        conditioning = self.family.with_image(conditioning, None, 0.0, 0)
        return self.family.with_guidance_scale(conditioning, settings.guidance_scale or 1.0)

    @torch.no_grad()
    def encode_batch(self, batch: Batch, variation: Variation | None) -> BatchConditioning:
        """Returns the conditioning of a batch; the image of a variation joins the prompt only. Raises PromptError.

        All prompts and negative prompts get as many windows as the longest one.
        """
        fields = ("prompt",) if self.family.distilled else ("prompt", "negative_prompt")
        texts = [{field: self._text(image, field) for field in fields} for image in batch.reworded]
        windows = self._count_windows([text for image_texts in texts for text in image_texts.values()])
        rows: dict[str, list[Conditioning]] = {field: [] for field in fields}
        all_notes: list[tuple[Note, ...]] = []
        for image, image_texts in zip(batch.reworded, texts, strict=True):
            notes = [NEGATIVE_UNREAD] if self.family.distilled and image.negative_prompt != "" else []
            notes += self._embeddings(image)[1]
            for field in fields:
                conditioning, field_notes = self._encode(image_texts[field], batch.loras, windows)
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

    def tokenize(self, settings: Settings, field: str = "prompt") -> TokenizedPrompt:
        """Returns the tokens of the prompt, or of the field `negative_prompt`; raises PromptError."""
        return self._tokenize(self._text(settings, field))

    def embeddings(self, settings: Settings) -> tuple[Embedding, ...]:
        """Returns the embeddings that the prompts use; raises ModelError and ModelNotFound."""
        return self._embeddings(settings)[0]

    def _embeddings(self, settings: Settings) -> tuple[tuple[Embedding, ...], tuple[Note, ...]]:
        if not self._layout.clip_text:
            return (), ()
        widths = tuple(encoder.model.config.hidden_size for encoder in self.family.text_encoders)
        return embeddings_of(settings, widths, self._model)

    def _text(self, settings: Settings, field: str) -> PromptText:
        """Returns a prompt with the settings that its encoding depends on.

        Text encoders other than CLIP read no windows: `chunk` cuts the prompt, with a warning. As in diffusers,
        `clip_skip` is for the prompt and not for the negative prompt.
        """
        long_prompt = settings.long_prompt
        if long_prompt == "chunk" and not self._layout.clip_text:
            long_prompt = "cut"
        embeddings = self.embeddings(settings)
        text, clip_skip = getattr(settings, field), settings.clip_skip if field == "prompt" else 0
        return PromptText(field, text, settings.prompt_syntax, long_prompt, embeddings, clip_skip)

    def _tokenize(self, text: PromptText) -> TokenizedPrompt:
        return tokenize_prompt(
            text.text,
            self.family.text_encoders,
            syntax=text.syntax,
            long_prompt=text.long_prompt,
            field=text.field,
            embeddings=text.embeddings,
        )

    def _count_windows(self, texts: Sequence[PromptText]) -> int:
        return max(self._tokenize(text).count if text.long_prompt == "chunk" else 1 for text in texts)

    def _encode_text(
        self, text: PromptText, loras: tuple[Lora, ...], windows: int
    ) -> tuple[Conditioning, tuple[Note, ...]]:
        """Encodes one text without the cache, in which each set of LoRAs has its own entries."""
        tokenized = self._tokenize(text)
        with text_encoders_on_device(self.family):
            embedded = embed_prompt(tokenized, self.family.text_encoders, windows, text.clip_skip)
        return self.family.encode(embedded, is_empty=tokenized.text == ""), tokenized.warnings
