"""THE STORY of a picture: settings, text, noise, steps, decoding, score. Start reading at `Pipeline._draw`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.score import Score, Scorer
from clipgen.decode import is_broken
from clipgen.device import MemoryFallback, pick_device, pick_dtype, raise_out_of_memory
from clipgen.errors import BrokenImage, Cancelled
from clipgen.families import LAYOUTS, Conditioning, Family, family_from_pipeline, load_family
from clipgen.guidance.budget import ANY_PROMPT, resolve_budget
from clipgen.guidance.build import Guidance, build_guidance
from clipgen.guidance.flops import ModelCosts, model_costs
from clipgen.guidance.quantisation import check_back_propagation
from clipgen.guidance.targets import choose_encoders
from clipgen.models import LoadProgress, find_model, ignore_progress, preflight
from clipgen.models.clip_cache import ClipCache
from clipgen.pipeline.conditioning import Prompts
from clipgen.pipeline.denoising import predicting, states_of
from clipgen.pipeline.limits import limits_of, limits_on_disk
from clipgen.pipeline.locking import Turns
from clipgen.pipeline.plan import Batch, plan
from clipgen.pipeline.preview import Viewer
from clipgen.pipeline.result import Origin, Pace, Result, Step, faults_of
from clipgen.pipeline.rewording import reword, word_notes
from clipgen.pipeline.variation import Varied, read_source, varied_by
from clipgen.sampling.cancellation import IsCancelled, never_cancelled, with_cancellation
from clipgen.settings.settings import GUIDANCE_DEFAULTS, Note, Settings
from clipgen.world.vocabulary import Vocabulary

NO_CLIP = Note("no-clip", None, "The model brings no CLIP, so the picture has no score.")
IN_FLOAT32 = Note("float32-retry", None, "Half precision broke the picture; the model now runs in float32.")


class Pipeline:
    """A loaded model that draws. Threads may share it: their steps take turns."""

    def __init__(
        self,
        family: Family,
        origin: Origin,
        device: torch.device,
        defaults: Mapping[str, Any],
        scorer: Scorer | None,
        offline: bool = False,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self.family = family
        self.origin = origin
        self.device = device
        self.defaults = {**GUIDANCE_DEFAULTS, **family.defaults, **defaults}
        self.scorer = scorer
        self.vocabulary = vocabulary
        self._clips = ClipCache(scorer, device, offline)
        self._prompts = Prompts(family)
        self._ladder, self._turns = MemoryFallback(device), Turns(device)
        self._viewer = Viewer(family, scorer, self._ladder, self._turns)

    @classmethod
    def from_pretrained(
        cls,
        model: str = "storybook",
        device: str = "auto",
        dtype: str = "auto",
        offline: bool = False,
        settings: Sequence[Settings] = (),
        progress: LoadProgress = ignore_progress,
    ) -> Pipeline:
        """Finds, checks and loads a model: a bundled name, `org/name` of the hub, or `./folder`.

        `settings` will be generated with; a setting that the model cannot follow is refused before anything is loaded.
        `progress` is called with the number of bytes loaded and the total. Raises SettingsError, ModelNotFound,
        ModelError, OutOfMemory.
        """
        place = pick_device(device)
        precision = pick_dtype(dtype, place)
        found = find_model(model, offline=offline)
        checked = preflight(found, LAYOUTS)
        limits = limits_on_disk(checked, model)
        for each in settings:
            limits.check(each)
        with raise_out_of_memory(f"Model '{model}'", place):
            family, scorer = load_family(checked, place, precision, progress)
        origin = Origin(model, family.name, str(place), str(precision).removeprefix("torch."), lambda: found.hash)
        return cls(family, origin, place, checked.defaults, scorer, offline, checked.vocabulary)

    @classmethod
    def from_diffusers(cls, pipeline: Any) -> Pipeline:
        """Takes over a loaded diffusers pipeline as it is; without a CLIP its pictures have no score.

        Raises ModelError for a class that no family of clipgen fits.
        """
        family = family_from_pipeline(pipeline)
        name, dtype = str(pipeline.name_or_path or "from-diffusers"), str(pipeline.dtype).removeprefix("torch.")
        origin = Origin(name, family.name, str(pipeline.device), dtype, lambda: None)
        return cls(family, origin, pipeline.device, {}, None)

    def generate(self, settings: Settings, is_cancelled: IsCancelled = never_cancelled) -> Iterator[Step | Result]:
        """Yields a Step for each picture at each step, and each picture's Result; closing the iterator stops the run.

        Picture k has seed + k and is the picture that this seed gives alone. `is_cancelled` is called inside
        the steps too; once it is true, Cancelled is raised. Raises PromptError, SettingsError, OutOfMemory, and
        BrokenImage at the end if pictures came out flat or not finite.
        """
        limits_of(self.family, self.origin.model, self.defaults).check(settings)
        settings, notes = self.resolve_budget(settings)
        if settings.through_unet and settings.guided:
            check_back_propagation(self.family.denoiser, self.origin.model)
        batches = plan(settings, self.origin.model, self.defaults, self.device, self.vocabulary)
        pace, faults = Pace(len(batches)), list[str]()
        for batch in batches:
            batch.notes += notes
            yield from self._draw(batch, pace, faults, is_cancelled)
        if faults:
            raise BrokenImage(faults[0] if len(faults) == 1 else f"{len(faults)} pictures are broken. {faults[0]}")

    def resolve_budget(self, settings: Settings) -> tuple[Settings, list[Note]]:
        """Returns settings with what their budget buys in its place, and a note of what that costs.

        It depends on the settings and the model, never on the machine. Settings without a budget come back as they
        are. Raises SettingsError, and what loading a CLIP raises.
        """
        if settings.budget is None:
            return settings, []
        filled = settings.with_defaults(self.defaults)
        return resolve_budget(filled, self.model_costs(filled))

    def model_costs(self, settings: Settings) -> ModelCosts:
        """Returns what a price is made of, for settings whose open fields are filled.

        Raises SettingsError, and what loading a CLIP raises.
        """
        conditioning = self.encode_prompt(Settings(prompt=ANY_PROMPT))
        with self._turns.of("CLIP"):
            encoders = choose_encoders(settings, self._clips.own, self.origin.model, self._clips.load)
            return model_costs(settings, self.family, conditioning, encoders)

    def run(self, settings: Settings, on_step: Callable[[Step], object] | None = None) -> list[Result]:
        """Returns the finished pictures; a Cancelled raised inside `on_step` stops, and carries those finished."""
        results: list[Result] = []
        try:
            for event in self.generate(settings):
                if isinstance(event, Result):
                    results.append(event)
                elif on_step is not None:
                    on_step(event)
        except Cancelled as stop:
            stop.results = list(results)
            raise
        return results

    def encode_prompt(self, settings: Settings, name: str = "prompt") -> Conditioning:
        """Returns what the denoiser is told of a prompt, or of its negative_prompt, [1, ...]; raises PromptError."""
        with self._turns.of("The text encoder"):
            return self._prompts.encode_prompt(reword(settings, self.vocabulary), name)

    def encoder(self, name: str) -> ClipEncoder:
        """Returns a CLIP by folder or hub id, loaded once; the model's own whatever it is called."""
        return self._clips.load(name)

    def _draw(self, batch: Batch, pace: Pace, faults: list[str], is_cancelled: IsCancelled) -> Iterator[Step | Result]:
        """The story of one batch, a line a stage."""
        began = monotonic()
        varied = self._varied(batch)
        with self._turns.of("The text encoder"):
            told = self._prompts.of_batch(batch, varied)
        for picture, notes in zip(batch.pictures, batch.own_notes, strict=True):
            notes += word_notes(picture, self.vocabulary, self.origin.model)
        guidance = self._guidance(batch, is_cancelled)
        predict = predicting(batch, self.family, self._ladder, told, guidance)
        states = states_of(
            batch, self.family, self.device, guidance.apply_to(with_cancellation(predict, is_cancelled)), guidance
        )
        finite: list[Tensor] = []
        for state, seconds in self._turns.each(states):
            shown = guidance.preview_rows(state)
            finite.append(torch.isfinite(shown.latents).flatten(1).all(dim=1))
            yield from self._viewer.steps(batch, shown, pace, seconds)
        if not finite[-1].all() and self._to_float32(batch):
            yield from self._draw(batch, pace, faults, is_cancelled)
            return
        denoised = monotonic()
        with self._turns.of("CLIP"):
            latents, seeds = guidance.final_latents(state)
        batch.pick(seeds)
        pixels, scores = self._viewer.pictures(batch, latents)
        pace.batch(monotonic() - denoised)
        broken = faults_of(batch.seeds, torch.stack(finite), is_broken(pixels))
        faults += broken.values()
        self._guard(batch, guidance, pixels)
        graded = guidance.add_curves(scores, batch.seeds)
        yield from self._results(batch, varied, pixels, graded, broken, monotonic() - began)

    def _varied(self, batch: Batch) -> Varied | None:
        """Returns the picture that a batch varies as the model sees it; raises ImageFileError."""
        target = batch.pictures[0].vary
        if target is None:
            return None
        source = read_source(target)
        with self._turns.of("CLIP"):
            varied = varied_by(self.family, source, self._clips.own)
        batch.notes += varied.notes
        return varied

    def _guidance(self, batch: Batch, is_cancelled: IsCancelled) -> Guidance:
        """Returns what CLIP does to a batch; the CLIPs that settings name are loaded at their first use."""
        with self._turns.of("CLIP"):
            return build_guidance(
                batch.reworded[0],
                self.family,
                batch.texts,
                batch.seeds,
                own=self._clips.own,
                model=self.origin.model,
                load=self._clips.load,
                is_cancelled=is_cancelled,
            )

    def _guard(self, batch: Batch, guidance: Guidance, pixels: Tensor) -> None:
        """Leaves with each picture what is to be said of its guidance."""
        batch.notes += guidance.notes()
        with self._turns.of("CLIP"):
            survived = guidance.check_survival(pixels, batch.seeds)
        for notes, note in zip(batch.own_notes, survived, strict=True):
            notes += [] if note is None else [note]

    def _to_float32(self, batch: Batch) -> bool:
        """Puts a half-precision model into float32 after it broke a picture; returns False if it was."""
        with self._turns.lock:
            changed = self.family.denoiser_to_float32()
            self._prompts.forget()
        batch.notes += [IN_FLOAT32] * changed
        return changed

    def _results(
        self,
        batch: Batch,
        varied: Varied | None,
        pixels: Tensor,
        scores: Sequence[Score] | None,
        broken: Mapping[int, str],
        seconds: float,
    ) -> Iterator[Result]:
        """Yields the pictures that are whole."""
        memory = [Note("memory", None, line) for line in self._ladder.taken(batch.size)]
        shared = (*batch.notes, *memory, *([NO_CLIP] if self.scorer is None else []))
        for row, picture in enumerate(batch.pictures):
            if row not in broken:
                yield Result(
                    pixels=pixels[row],
                    index=batch.first + row,
                    seed=batch.seeds[row],
                    settings=picture,
                    clip=None if scores is None else scores[row],
                    warnings=(*batch.own_notes[row], *shared),
                    seconds=seconds / len(batch.pictures),
                    origin=self.origin,
                    prompt_checker=self._clips.prompt_checker,
                    inputs={} if varied is None else {"vary": varied.source.digest},
                    source=None if varied is None else varied.features,
                    vocabulary=self.vocabulary,
                )
