"""Splits a run into batches: fills the model's defaults, assigns seeds, resolves wildcards, limits the batch size."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from clipgen.device import images_at_once
from clipgen.families.shared import OTHER_SCHEDULERS
from clipgen.pipeline.adapters import loras_of
from clipgen.pipeline.rewording import reword
from clipgen.settings.checks import MAX_DRAWN_SEED, MAX_SEED
from clipgen.settings.settings import Note, Settings
from clipgen.text import plain_text, resolve_wildcards
from clipgen.world.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

    from clipgen.families import Family
    from clipgen.families.lora import Lora

SHARED_FIELDS = ("steps", "width", "height", "scheduler", "guidance_scale", "eta")  # equal for all images of a batch
BATCHED_GUIDANCE = ("off", "clip")  # other guidance methods use the rows of a batch as candidates for one image
FAR = 4  # times the pixels of the model's own size, from which on people are warned


@dataclass(frozen=True)
class Batch:
    """Images that are denoised together.

    Attributes:
        first: The index of the batch's first image in the run.
        images: The settings of each image, with its own seed and prompt and `images` = 1.
        steps, width, height, scheduler, guidance_scale, eta: The SHARED_FIELDS, none of them None.
        loras: The LoRAs of all its images.
        vocabulary: The words that the model knows, if it declares them.
    """

    first: int
    images: tuple[Settings, ...]
    steps: int
    width: int
    height: int
    scheduler: str
    guidance_scale: float
    eta: float
    loras: tuple[Lora, ...] = ()
    vocabulary: Vocabulary | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    @property
    def seeds(self) -> list[int]:
        """The seed of each image."""
        return [image.seed or 0 for image in self.images]

    @property
    def texts(self) -> list[str]:
        """The prompt of each image without weights and other syntax, as CLIP reads it."""
        return [plain_text(image.prompt, image.prompt_syntax, image.long_prompt) for image in self.reworded]

    @property
    def reworded(self) -> list[Settings]:
        """The settings of each image in words that the model knows; `images` are the settings that are recorded."""
        return [reword(image, self.vocabulary) for image in self.images]

    def with_picked_seeds(self, seeds: Sequence[int]) -> Batch:
        """Returns the batch with the seeds of the candidates that guidance `pick` chose, and that guidance removed.

        The images of the returned batch are reproduced by their settings without `pick`.
        """
        images = (
            image.replace(seed=seed, guidance=image.guidance.replace("+pick", "").replace("pick", "off"))
            if "pick" in image.guidance
            else image
            for image, seed in zip(self.images, seeds, strict=True)
        )
        return replace(self, images=tuple(images))


def picked_notes(image: Settings, seed: int) -> list[Note]:
    """Returns the note that guidance `pick` chose the candidate with this seed; [] for other guidance."""
    if "pick" not in image.guidance:
        return []
    message = f"The best of {image.candidates} candidates of seed {image.seed} has seed {seed}."
    return [Note("picked", "seed", message)]


def size_notes(settings: Settings, defaults: Mapping[str, Any]) -> list[Note]:
    """Returns a note if the image has at least 4 times, or less than a quarter of, the pixels of the model's own size.

    A diffusion model repeats objects at much larger sizes and loses them at much smaller ones.
    """
    filled = settings.with_defaults(defaults)
    own_width, own_height = defaults["width"], defaults["height"]
    ratio = ((filled.width or own_width) * (filled.height or own_height)) / (own_width * own_height)
    if 1 / FAR <= ratio < FAR:
        return []
    message = (
        f"{filled.width} x {filled.height} is far from the model's own size, {own_width} x {own_height}; "
        "images of other sizes are worse."
    )
    return [Note("size", "width", message)]


def scheduler_notes(settings: Settings, family: Family) -> list[Note]:
    """Returns a note if the settings leave the scheduler to the model and clipgen replaces the model's own."""
    class_name = str(family.scheduler_config["_class_name"])
    if settings.scheduler is not None or class_name not in OTHER_SCHEDULERS:
        return []
    own, replacement = class_name.removesuffix("Scheduler"), OTHER_SCHEDULERS[class_name]
    return [
        Note("scheduler-replaced", "scheduler", f"The model's scheduler is {own}; clipgen runs {replacement} instead.")
    ]


def plan(
    settings: Settings,
    model: str,
    defaults: Mapping[str, Any],
    latent_shape: Callable[[int, int], tuple[int, int, int]],
    device: torch.device,
    vocabulary: Vocabulary | None = None,
) -> list[Batch]:
    """Returns the batches of a run; image k has seed + k, and its wildcards are resolved with that seed.

    `defaults` fill the fields that `settings` leave to the model; `latent_shape` is that of its family, which limits
    the size of a batch. Raises SettingsError, PromptError, and the errors of loras_of.
    """
    filled = settings.with_defaults(defaults).replace(model=model)
    seed = secrets.randbelow(MAX_DRAWN_SEED + 1) if filled.seed is None else filled.seed
    images = tuple(_single_image(filled, (seed + k) % (MAX_SEED + 1)) for k in range(filled.images))
    shared = {name: value for name, value in filled.to_dict().items() if name in SHARED_FIELDS}
    _, height, width = latent_shape(shared["width"], shared["height"])
    size = images_at_once(height * width, device) if filled.guidance in BATCHED_GUIDANCE else 1
    batches: list[Batch] = []
    for loras, group in groupby(images, key=loras_of):  # a choice in the prompt can change the LoRAs
        same = tuple(group)
        for first in range(0, len(same), size):
            index = sum(len(batch.images) for batch in batches)
            batches.append(Batch(index, same[first : first + size], **shared, loras=loras, vocabulary=vocabulary))
    return batches


def _single_image(settings: Settings, seed: int) -> Settings:
    """Returns the settings that generate one image alone: its seed, and its prompt with the wildcards resolved."""
    prompt = resolve_wildcards(settings.prompt, seed, settings.prompt_syntax)
    template = settings.prompt_template or (settings.prompt if prompt != settings.prompt else None)
    return settings.replace(prompt=prompt, prompt_template=template, seed=seed, images=1)
