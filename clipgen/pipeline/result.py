"""The events of a run: a Step per image and denoising step, and a Result per finished image."""

from __future__ import annotations

import importlib.metadata
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from torch import Tensor

from clipgen.clip.prompt_check import PhraseCheck, PromptChecker, split_phrases
from clipgen.clip.score import Score
from clipgen.errors import SettingsError
from clipgen.image_file import Format, encode_image, format_of, make_record, output_path, save_bytes
from clipgen.pipeline.rewording import reword
from clipgen.pixels import to_image
from clipgen.sampling.loop import StepOutput
from clipgen.settings.settings import Note, Settings
from clipgen.text import plain_text
from clipgen.world.vocabulary import Vocabulary

if TYPE_CHECKING:
    from PIL.Image import Image


class Preview:
    """The decoded images [B, 3, H, W] of one step of a batch and their scores; each is computed on first use."""

    def __init__(self, decode: Callable[[], Tensor], score: Callable[[Tensor], Sequence[Score]] | None) -> None:
        self._decode, self._score = decode, score

    @cached_property
    def pixels(self) -> Tensor:
        """The decoded images [B, 3, H, W] in [0, 1]."""
        return self._decode()

    @cached_property
    def scores(self) -> Sequence[Score] | None:
        """One score per image; None if this step is not scored or an image is not finite."""
        if self._score is None or not self.pixels.isfinite().all():
            return None
        return self._score(self.pixels)


@dataclass(frozen=True, eq=False)
class Step:
    """One image after one denoising step.

    Attributes:
        image: The index of the image in the run.
        index: The index of the step, from 0.
        steps: The number of steps.
        timestep: The scheduler's timestep.
        latents: x_t [C, h, w] after the step.
        x0: The predicted clean latents [C, h, w].
        seconds: The duration of the step, for all images of its batch.
        eta: The estimated seconds until the end of the run; None at the first step.
        batch_preview: The preview of the whole batch.
        row: The index of the image in the batch.
        similarity_unguided: The similarity of the unguided image at this step; None if there is none.
    """

    image: int
    index: int
    steps: int
    timestep: float
    latents: Tensor
    x0: Tensor
    seconds: float
    eta: float | None
    batch_preview: Preview = field(repr=False)
    row: int = field(repr=False)
    similarity_unguided: float | None = None

    def preview(self) -> Image:
        """Returns the decoded x0; it is decoded on the first call."""
        return to_image(self.batch_preview.pixels[self.row])

    @property
    def similarity(self) -> float | None:
        """The cosine similarity of prompt and preview; None if the step is not scored or the model has no CLIP."""
        scores = self.batch_preview.scores
        return None if scores is None else scores[self.row].similarity

    @property
    def percentile(self) -> float | None:
        """The percentage of calibration captions with a lower similarity; None without a similarity or calibration."""
        scores = self.batch_preview.scores
        return None if scores is None else scores[self.row].percentile


def make_steps(output: StepOutput, first: int, seconds: float, eta: float | None, preview: Preview) -> Iterator[Step]:
    """Yields one Step per image of a batch; `first` is the index of its first image in the run."""
    for row, (latents, x0) in enumerate(zip(output.latents, output.x0, strict=True)):
        yield Step(first + row, output.index, output.steps, output.timestep, latents, x0, seconds, eta, preview, row)


@dataclass(frozen=True)
class Origin:
    """The model that generated an image, its device and its dtype; `hash` computes the SHA-256 of the denoiser."""

    model: str
    family: str
    device: str
    dtype: str
    hash: Callable[[], str | None]

    def to_dict(self) -> dict[str, Any]:
        """Returns name, hash and family for the record."""
        return {"name": self.model, "hash": self.hash(), "family": self.family}

    def runtime(self) -> dict[str, str]:
        """Returns versions, device, dtype and the device of the random generators for the record."""
        versions = {name: importlib.metadata.version(name) for name in ("clipgen", "torch", "diffusers")}
        return {**versions, "device": self.device, "dtype": self.dtype, "rng": "cpu"}


@dataclass(eq=False, repr=False)
class Result:
    """A finished image.

    Attributes:
        pixels: [3, H, W] in [0, 1].
        index: The index of the image in the run.
        seed: The seed of this image.
        settings: The settings that generate this image again, its seed included.
        clip: The CLIP score; None without a CLIP or a prompt.
        warnings: Notes for the user.
        seconds: The duration of the batch divided by its number of images.
        origin: The model that generated the image.
        path: The file it was saved to, None before `save`.
        prompt_checker: Checks phrases with the CLIP that scores; None without a CLIP.
        inputs: The SHA-256 of each input file by the name of its field.
        source_features: The CLIP features [D] of the image that this one is a variation of.
        vocabulary: The words that the model knows, if it declares them.
    """

    pixels: Tensor
    index: int
    seed: int
    settings: Settings
    clip: Score | None
    warnings: tuple[Note, ...]
    seconds: float
    origin: Origin
    path: Path | None = None
    prompt_checker: PromptChecker | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    source_features: Tensor | None = None
    vocabulary: Vocabulary | None = None

    def __repr__(self) -> str:
        _, height, width = self.pixels.shape
        score = "" if self.clip is None or self.clip.percentile is None else f", percentile={self.clip.percentile:.1f}"
        path = "" if self.path is None else f", path='{self.path}'"
        return f"Result({self.settings.title[:60]!r}, seed={self.seed}, size={width}x{height}{score}{path})"

    @cached_property
    def features(self) -> Tensor | None:
        """The unit-length image features [D] of the CLIP that scores, on its device; None without a CLIP."""
        return None if self.prompt_checker is None else self.prompt_checker.image_features(self.pixels)

    @cached_property
    def likeness(self) -> float | None:
        """The cosine similarity to the image that this one is a variation of; None if it is not a variation."""
        if self.source_features is None or self.features is None:
            return None
        return float(self.features @ self.source_features)

    @cached_property
    def checks(self) -> tuple[PhraseCheck, ...]:
        """One check with CLIP per part of the prompt (object, colour, count); raises SettingsError without a CLIP."""
        prompt = reword(self.settings, self.vocabulary).prompt
        return self.check(split_phrases(plain_text(prompt, self.settings.prompt_syntax, self.settings.long_prompt)))

    def check(self, phrases: Sequence[str]) -> tuple[PhraseCheck, ...]:
        """Checks with CLIP whether the image shows each phrase; raises SettingsError without a CLIP.

        Words that the model does not know are replaced by words that it knows, if it declares them.
        """
        if not phrases:
            return ()
        if self.prompt_checker is None or self.features is None:
            raise SettingsError(
                f"checks need a CLIP, and model '{self.origin.model}' has none: name one with clip_models",
                field="clip_models",
            )
        if self.vocabulary is not None:
            phrases = [self.vocabulary.read(phrase).text for phrase in phrases]
        return self.prompt_checker.check(self.features, phrases)

    @cached_property
    def image(self) -> Image:
        """The image as PIL, 8 bits per channel."""
        return to_image(self.pixels)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The clipgen record, which `save` writes into the file."""
        return make_record(
            self.settings,
            seed=self.seed,
            clip=None if self.clip is None else self.clip.to_dict(),
            model=self.origin.to_dict(),
            runtime=self.origin.runtime(),
            inputs=self.inputs,
            warnings=self.warnings,
            likeness=self.likeness,
        )

    def save(self, path: str | Path | None = None, format: Format | None = None, quality: int = 92) -> Path:
        """Writes the image with its settings inside and returns the path.

        An existing file is never overwritten: the new one gets a number.

        Args:
            path: A file, a folder or a template as for `--output`; None means `outputs/<date>/<slug>-<seed>`.
            format: png, jpeg or webp; the suffix of `path` has precedence.
            quality: 1 to 100, for JPEG and WebP.

        Raises:
            OutputError: The file cannot be written.
            SettingsError: The template contains an unknown name.
        """
        template = None if path is None else str(path)
        kind = (format_of(template) if template else None) or format or "png"
        percent = None if self.clip is None else self.clip.percentile
        folder, stem, suffix = output_path(
            template, settings=self.settings, seed=self.seed, moment=datetime.now(), format=kind, percent=percent
        )
        data = encode_image(self.image, self.metadata, format=kind, quality=quality)
        self.path = save_bytes(data, folder, stem, suffix)
        return self.path


def describe_broken(seeds: Sequence[int], finite: Tensor, broken: Tensor) -> dict[int, str]:
    """Returns a message for each broken image of a batch, by its row.

    `finite` [steps, B]: the latents were finite after each step; `broken` [B]: the decoded image is flat or not finite.
    """
    messages: dict[int, str] = {}
    for row in broken.nonzero().flatten().tolist():
        bad_steps = (~finite[:, row]).nonzero()
        component = (
            f"the denoiser at step {int(bad_steps[0]) + 1} of {len(finite)}" if len(bad_steps) else "the decoder"
        )
        messages[row] = f"The image of seed {seeds[row]} is broken (flat or not finite), by {component}."
    return messages


class ProgressEstimate:
    """Estimates the seconds until a run ends: the median of the last 5 steps times the steps left, plus decoding."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self._recent: deque[float] = deque(maxlen=5)
        self._decoding: float | None = None

    def add_step(self, seconds: float, index: int, steps: int) -> float | None:
        """Takes the duration of a step; returns the seconds until the run ends, None at the very first step."""
        self._recent.append(seconds)
        if len(self._recent) < 2:
            return None
        step = median(self._recent)
        decoding = step if self._decoding is None else self._decoding
        return step * (steps - index - 1 + steps * (self.batches - 1)) + decoding * self.batches

    def add_batch(self, seconds: float) -> None:
        """Takes the duration of decoding and scoring a batch."""
        self.batches -= 1
        self._decoding = seconds
