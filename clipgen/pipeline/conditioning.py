"""What the denoiser is told: of one prompt, and of all the pictures of a batch."""

from __future__ import annotations

from functools import lru_cache

import torch

from clipgen.families import Conditioning, Family, stack_conditionings
from clipgen.pipeline.plan import Batch
from clipgen.pipeline.variation import Varied
from clipgen.settings.settings import Note, Settings
from clipgen.text import encode_prompt

KEPT = 64  # encoded texts
NEGATIVE_UNREAD = Note("negative-prompt-unread", "negative_prompt", "This model takes no negative prompt.")


class Prompts:
    """Prompts through a family's text encoders, on to what its denoiser takes; the last texts are kept."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._encode = lru_cache(KEPT)(self._encode_text)

    def encode_prompt(self, settings: Settings, name: str = "prompt") -> Conditioning:
        """Returns what the denoiser is told of a prompt, or of its negative_prompt, [1, ...]; raises PromptError."""
        row, _ = self._read(settings, name)
        return self.family.with_guidance_scale(
            self.family.with_image(row, None, 0.0, 0), settings.guidance_scale or 1.0
        )

    @torch.no_grad()
    def of_batch(self, batch: Batch, varied: Varied | None) -> tuple[Conditioning, Conditioning]:
        """Returns what the denoiser is told of the prompts, and of the negative prompts, a row a picture.

        A picture that is varied is told with the prompt, never with the negative one. A distilled model is never asked
        about the negative ones: there the second is the first, and a note says so. Raises PromptError.
        """
        names = ("prompt",) if self.family.distilled else ("prompt", "negative_prompt")
        told: dict[str, list[Conditioning]] = {name: [] for name in names}
        unread = self.family.distilled and batch.pictures[0].negative_prompt != ""
        batch.own_notes = [[NEGATIVE_UNREAD] * unread for _ in batch.pictures]
        for picture, own_notes in zip(batch.reworded, batch.own_notes, strict=True):
            for name, rows in told.items():
                row, notes = self._read(picture, name)
                known = varied if name == "prompt" else None
                seen, weight = (None, 0.0) if known is None else (known.seen.embeds, known.source.weight)
                rows.append(self.family.with_image(row, seen, weight, picture.seed or 0))
                own_notes.extend(notes)
        halves = [
            self.family.with_guidance_scale(stack_conditionings(rows), batch.guidance_scale) for rows in told.values()
        ]
        return halves[0], halves[-1]

    def forget(self) -> None:
        """Drops the texts that were kept: the encoders are others now."""
        self._encode.cache_clear()

    def _read(self, settings: Settings, name: str) -> tuple[Conditioning, tuple[Note, ...]]:
        return self._encode(name, getattr(settings, name), settings.prompt_syntax, settings.long_prompt)

    def _encode_text(
        self, name: str, text: str, syntax: str, long_prompt: str
    ) -> tuple[Conditioning, tuple[Note, ...]]:
        """Encodes one prompt; `_encode` keeps the last ones."""
        encoded = encode_prompt(text, self.family.text_encoders, syntax=syntax, long_prompt=long_prompt, field=name)
        return self.family.encode(encoded.embedded, is_empty=encoded.text == ""), encoded.warnings
