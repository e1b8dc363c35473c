"""Generates the images of the picture benchmark: many prompts in batches, image by image in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

import torch
from PIL.Image import Image
from torch import Tensor

from clipgen.errors import SettingsError
from clipgen.pixels import to_image
from clipgen.settings.settings import Settings

if TYPE_CHECKING:
    from clipgen.clip.encoder import ClipEncoder
    from clipgen.clip.score import Scorer
    from clipgen.pipeline.pipeline import Pipeline

BATCH = 8  # images that are denoised together; the latents of storybook are small enough at every image size
REPORTS = 20  # progress lines per part

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class PictureTest:
    """What generates and what judges.

    Attributes:
        pipe: The model, which declares its vocabulary and brings its CLIP.
        judge: A CLIP of another architecture that never guides.
        on_progress: Receives lines about the progress.
    """

    pipe: Pipeline
    judge: Scorer
    on_progress: OnProgress

    @property
    def encoders(self) -> tuple[ClipEncoder, ClipEncoder]:
        """The judge and the model's own CLIP."""
        assert self.pipe.scorer is not None, "checked by `check_model`"
        return self.judge.encoder, self.pipe.scorer.encoder

    @property
    def names(self) -> list[str]:
        """The names of all concepts that the model claims to draw."""
        assert self.pipe.vocabulary is not None, "checked by `check_model`"
        return self.pipe.vocabulary.names

    def settings(self, prompt: str, seed: int) -> Settings:
        """Returns the settings of an unguided image with the model's defaults."""
        plain = Settings(prompt, seed=seed, prompt_syntax="plain", guard="off")
        return plain.with_defaults(self.pipe.defaults)

    def draw(self, part: str, prompts: Sequence[tuple[str, int]]) -> Iterator[Tensor | None]:
        """Yields the pixels [3, H, W] in [0, 1] of each prompt and seed; None for a broken image."""
        start, reported = monotonic(), 0
        for first in range(0, len(prompts), BATCH):
            runs = [self.settings(prompt, seed) for prompt, seed in prompts[first : first + BATCH]]
            for result in self.pipe.run_together(runs):
                yield None if result is None else result.pixels
            done = first + len(runs)
            if done * REPORTS // len(prompts) > reported:
                reported = done * REPORTS // len(prompts)
                self.on_progress(_progress(part, done, len(prompts), monotonic() - start))


def to_image_or_black(pixels: Tensor | None) -> Image:
    """Returns an image [3, H, W] in [0, 1] as PIL; a small black one for a broken image."""
    return to_image(torch.zeros(3, 64, 64) if pixels is None else pixels)


def check_model(pipe: Pipeline, model: str) -> None:
    """Raises SettingsError unless a model declares its vocabulary and brings its CLIP."""
    if pipe.vocabulary is None or pipe.scorer is None:
        lacks = "vocabulary" if pipe.vocabulary is None else "CLIP"
        raise SettingsError(f"model '{model}' declares no {lacks}, which pictures are judged by", field="pictures")


def _progress(part: str, done: int, count: int, seconds: float) -> str:
    left = seconds / done * (count - done)
    return f"{part}: {done:,} of {count:,} pictures, {seconds / done:.2f} s each, {left / 60:.0f} min left"
