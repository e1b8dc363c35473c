"""What a run gives: a Step for each picture at each step, and a Result for each finished picture."""

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
from clipgen.decode import to_image
from clipgen.image_file import Format, encode_image, format_of, make_record, output_path, save_bytes
from clipgen.pipeline.rewording import reword
from clipgen.sampling.loop import StepOutput
from clipgen.settings.settings import Note, Settings
from clipgen.text import plain_text
from clipgen.world.vocabulary import Vocabulary

if TYPE_CHECKING:
    from PIL.Image import Image


class Look:
    """A step of a batch as pictures [B, 3, H, W] and their scores, made once, when somebody asks for one of them."""

    def __init__(self, draw: Callable[[], Tensor], score: Callable[[Tensor], Sequence[Score]] | None) -> None:
        self._draw, self._score = draw, score

    @cached_property
    def pixels(self) -> Tensor:
        """Rough pictures [B, 3, H, W] in [0, 1]."""
        return self._draw()

    @cached_property
    def scores(self) -> Sequence[Score] | None:
        """A score a picture, None where this step is not scored or has broken."""
        if self._score is None or not self.pixels.isfinite().all():
            return None
        return self._score(self.pixels)


@dataclass(frozen=True, eq=False)
class Step:
    """One picture after one step: `latents` and the `x0` it heads for [C, h, w]; `image` counts the run's pictures.

    `seconds` is what the step took, for all pictures of its batch; `eta` the seconds until the run is done, None at
    the first step; `similarity_unguided` that of the unguided twin at this step, None where no twin was drawn.
    """

    image: int
    index: int
    steps: int
    timestep: float
    latents: Tensor
    x0: Tensor
    seconds: float
    eta: float | None
    look: Look = field(repr=False)
    row: int = field(repr=False)
    similarity_unguided: float | None = None

    def preview(self) -> Image:
        """Returns what the picture would look like by now; made on the first call."""
        return to_image(self.look.pixels[self.row])

    @property
    def similarity(self) -> float | None:
        """The cosine between prompt and preview; None at steps that are not scored and without a CLIP."""
        return None if self.look.scores is None else self.look.scores[self.row].similarity

    @property
    def percentile(self) -> float | None:
        """The percentage of captions that fit the preview worse; None where `similarity` is, or uncalibrated."""
        return None if self.look.scores is None else self.look.scores[self.row].percentile


def steps_of(state: StepOutput, first: int, seconds: float, eta: float | None, look: Look) -> Iterator[Step]:
    """Yields a batch's state as one Step a picture; `first` is the number of its first picture."""
    for row, (latents, x0) in enumerate(zip(state.latents, state.x0, strict=True)):
        yield Step(first + row, state.index, state.steps, state.timestep, latents, x0, seconds, eta, look, row)


@dataclass(frozen=True)
class Origin:
    """Which model made a picture, and on what; the hash is worked out when it is asked for."""

    model: str
    family: str
    device: str
    dtype: str
    hash: Callable[[], str | None]

    def to_dict(self) -> dict[str, Any]:
        """Returns name, hash and family, as the record carries them."""
        return {"name": self.model, "hash": self.hash(), "family": self.family}

    def runtime(self) -> dict[str, str]:
        """Returns what it ran on: versions, device, precision, and where the noise came from."""
        versions = {name: importlib.metadata.version(name) for name in ("clipgen", "torch", "diffusers")}
        return {**versions, "device": self.device, "dtype": self.dtype, "rng": "cpu"}


@dataclass(eq=False)
class Result:
    """A finished picture: `pixels` [3, H, W] in [0, 1] and the settings that draw it again, its own seed among them.

    `index` counts the run's pictures; `seconds` is its share of the batch; `path` is None until it is saved. `inputs`
    holds the SHA-256 of files it was made from, `source` [D] what CLIP sees in the one that it varies.
    """

    pixels: Tensor
    index: int
    seed: int
    settings: Settings
    clip: Score | None
    warnings: tuple[Note, ...]
    seconds: float
    origin: Origin = field(repr=False)
    path: Path | None = None
    prompt_checker: PromptChecker | None = field(default=None, repr=False)
    inputs: Mapping[str, str] = field(default_factory=dict, repr=False)
    source: Tensor | None = field(default=None, repr=False)
    vocabulary: Vocabulary | None = field(default=None, repr=False)

    @cached_property
    def features(self) -> Tensor | None:
        """The unit vector [D] that the model's CLIP gives the picture, on its device; None without a CLIP."""
        return None if self.prompt_checker is None else self.prompt_checker.image_features(self.pixels)

    @cached_property
    def likeness(self) -> float | None:
        """The cosine between what CLIP sees in the picture and in the one that it varies; None where it varies none."""
        return None if self.source is None or self.features is None else float(self.features @ self.source)

    @cached_property
    def checks(self) -> tuple[PhraseCheck, ...]:
        """CLIP's answers to what the parts of the prompt ask, () without a CLIP."""
        return self.check(
            split_phrases(plain_text(reword(self.settings, self.vocabulary).prompt, self.settings.prompt_syntax))
        )

    def check(self, phrases: Sequence[str]) -> tuple[PhraseCheck, ...]:
        """Returns CLIP's answers to whether the picture shows some phrases, () without a CLIP.

        The phrases are put into words that the model knows, if it declares them.
        """
        if self.vocabulary is not None:
            phrases = [self.vocabulary.read(phrase).text for phrase in phrases]
        return (
            ()
            if self.prompt_checker is None or self.features is None
            else self.prompt_checker.check(self.features, phrases)
        )

    @cached_property
    def image(self) -> Image:
        """The picture as PIL."""
        return to_image(self.pixels)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The clipgen record, as it goes into the file."""
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
        """Writes the picture with its settings inside and returns where; a taken name gets a number, nothing is lost.

        `path` is a file, a folder or a template (interfaces of `--output`), None `outputs/<date>/<slug>-<seed>`; a
        file's suffix decides the format. Raises OutputError, SettingsError for a template that means nothing.
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


def faults_of(seeds: Sequence[int], finite: Tensor, broken: Tensor) -> dict[int, str]:
    """Says of each broken picture of a batch, by its row, which component broke it; finite [steps, B], broken [B]."""
    faults: dict[int, str] = {}
    for row in broken.nonzero().flatten().tolist():
        bad = (~finite[:, row]).nonzero()
        where = f"the denoiser at step {int(bad[0]) + 1} of {len(finite)}" if len(bad) else "the decoder"
        faults[row] = f"The picture of seed {seeds[row]} is broken (flat or not finite), by {where}."
    return faults


class Pace:
    """How long a run still takes: the median of the last five steps times the steps left, and the decoding."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self._recent: deque[float] = deque(maxlen=5)
        self._decoding: float | None = None

    def step(self, seconds: float, index: int, steps: int) -> float | None:
        """Takes the seconds of a step and returns those until the run is done; None at the first step of all."""
        self._recent.append(seconds)
        if len(self._recent) < 2:
            return None
        usual = median(self._recent)
        decoding = usual if self._decoding is None else self._decoding
        return usual * (steps - index - 1 + steps * (self.batches - 1)) + decoding * self.batches

    def batch(self, seconds: float) -> None:
        """Takes the seconds that decoding and scoring a batch took."""
        self.batches -= 1
        self._decoding = seconds
