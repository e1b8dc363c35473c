"""Settings become batches: the model's defaults, the seeds, each picture's own prompt, and how many fit at once."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clipgen.device import images_at_once
from clipgen.pipeline.rewording import reword
from clipgen.settings.checks import MAX_DRAWN_SEED, MAX_SEED
from clipgen.settings.settings import Note, Settings
from clipgen.text import plain_text, resolve_wildcards
from clipgen.world.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

SHARED = ("steps", "width", "height", "scheduler", "guidance_scale", "eta")  # by all pictures of a batch
ROWS_STAY = ("off", "clip")  # guidance that leaves a batch its pictures; to others rows are one picture's candidates


@dataclass
class Batch:
    """Pictures that are denoised together: each one's own settings, and those fields that all of them share, filled.

    `vocabulary` holds the words that the model knows, if it declares them.
    `first` is the number of the first one in the run; `notes` collect what is to be said of all of them, `own_notes`
    what of each one's prompts.
    """

    first: int
    pictures: list[Settings]
    steps: int
    width: int
    height: int
    scheduler: str
    guidance_scale: float
    eta: float
    vocabulary: Vocabulary | None = None
    notes: list[Note] = field(default_factory=list)
    own_notes: list[list[Note]] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    @property
    def seeds(self) -> list[int]:
        """The pictures' own seeds."""
        return [picture.seed or 0 for picture in self.pictures]

    def pick(self, seeds: Sequence[int]) -> None:
        """Takes over the seeds that a pick among candidates has won with: drawn without it, they give the same.

        Each picture that got another seed says so.
        """
        for row, (picture, seed) in enumerate(zip(self.pictures, seeds, strict=True)):
            if "pick" not in picture.guidance:
                continue
            left = picture.guidance.replace("+pick", "").replace("pick", "off")
            line = f"The best of {picture.candidates} candidates of seed {picture.seed} has seed {seed}."
            self.own_notes[row].append(Note("picked", "seed", line))
            self.pictures[row] = picture.replace(seed=seed, guidance=left)

    @property
    def worded(self) -> bool:
        """Whether every picture has words that it can be held against."""
        return all(self.texts)

    @property
    def texts(self) -> list[str]:
        """The pictures' prompts without syntax, as CLIP is asked about them."""
        return [plain_text(picture.prompt, picture.prompt_syntax) for picture in self.reworded]

    @property
    def reworded(self) -> list[Settings]:
        """The settings of the images in words that the model knows; `pictures` keeps what the record carries."""
        return [reword(picture, self.vocabulary) for picture in self.pictures]


def plan(
    settings: Settings,
    model: str,
    defaults: Mapping[str, Any],
    device: torch.device,
    vocabulary: Vocabulary | None = None,
) -> list[Batch]:
    """Returns the batches of a run; picture k has seed + k and the prompt that its own seed draws.

    `defaults` fill what the settings leave to the model. Raises SettingsError, PromptError.
    """
    shared = settings.with_defaults(defaults).replace(model=model)
    seed = secrets.randbelow(MAX_DRAWN_SEED + 1) if shared.seed is None else shared.seed
    pictures = [_picture(shared, (seed + k) % (MAX_SEED + 1)) for k in range(shared.images)]
    known = {name: value for name, value in shared.to_dict().items() if name in SHARED}
    most = images_at_once(known["width"], known["height"], device) if shared.guidance in ROWS_STAY else 1
    return [
        Batch(first, pictures[first : first + most], **known, vocabulary=vocabulary)
        for first in range(0, len(pictures), most)
    ]


def _picture(shared: Settings, seed: int) -> Settings:
    """Returns the settings that draw one picture alone: its seed, and the prompt that its wildcards give with it."""
    prompt = resolve_wildcards(shared.prompt, seed, shared.prompt_syntax)
    template = shared.prompt_template or (shared.prompt if prompt != shared.prompt else None)
    return shared.replace(prompt=prompt, prompt_template=template, seed=seed, images=1)
