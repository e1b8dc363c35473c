"""Text to image, stage by stage: start reading at `Pipeline.generate` and `Pipeline._generate_batch`.

settings -> models -> text -> sampling (predict, guide) -> decode -> score -> Result; each stage is a package or module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.score import Scorer
from clipgen.decode import is_broken
from clipgen.device import MemoryFallback, pick_device, pick_dtype, raise_out_of_memory
from clipgen.errors import BrokenImage, Cancelled, ModelError, SettingsError
from clipgen.families import FAMILIES, LAYOUTS, Conditioning, Family, family_from_pipeline, load_family
from clipgen.families.lora import Lora, LoraAdapters
from clipgen.guidance.budget import ANY_PROMPT, resolve_budget
from clipgen.guidance.build import Guidance, build_guidance
from clipgen.guidance.flops import ModelCosts, model_costs
from clipgen.guidance.quantisation import check_back_propagation
from clipgen.guidance.targets import choose_encoders
from clipgen.models import LoadProgress, find_model, ignore_progress, preflight
from clipgen.models.clip_cache import ClipCache
from clipgen.pipeline.adapters import adapter_hashes, check_fit, loras_of
from clipgen.pipeline.conditioning import PromptEncoder
from clipgen.pipeline.denoising import make_predict, sample
from clipgen.pipeline.limits import limits_of_loaded, limits_on_disk
from clipgen.pipeline.locking import ModelLock
from clipgen.pipeline.plan import Batch, picked_notes, plan, size_notes
from clipgen.pipeline.preview import PreviewDecoder
from clipgen.pipeline.result import Origin, ProgressEstimate, Result, Step, describe_broken
from clipgen.pipeline.rewording import reword, word_notes
from clipgen.pipeline.variation import Variation, encode_source_image, read_source_image
from clipgen.sampling.cancellation import IsCancelled, never_cancelled, with_cancellation
from clipgen.sampling.loop import Prediction, PredictNoise, StepInput
from clipgen.settings.settings import GUIDANCE_DEFAULTS, Note, Settings
from clipgen.text import TokenizedPrompt
from clipgen.world.vocabulary import Vocabulary

NO_CLIP = Note("no-clip", None, "The model has no CLIP, so the image has no score.")
IN_FLOAT32 = Note("float32-retry", None, "Half precision broke the image; the model now runs in float32.")


class Pipeline:
    """A loaded model that generates images. Threads may share it: their steps run one after the other."""

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
        self._from_diffusers = False
        self._prompts = PromptEncoder(family, origin.model)
        self._loras = LoraAdapters(family, FAMILIES[family.name][0], origin.model)
        self._memory, self._lock = MemoryFallback(device), ModelLock(device)
        self._decoder = PreviewDecoder(family, scorer, self._memory, self._lock)

    def __repr__(self) -> str:
        origin = self.origin
        return f"Pipeline({origin.model!r}, family={origin.family!r}, device={origin.device!r}, dtype={origin.dtype!r})"

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
        """Finds, checks and loads a model.

        Args:
            model: A bundled name, a hub id `org/name`, or `./folder`.
            device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
            dtype: `auto`, `float32`, `bfloat16` or `float16`.
            offline: Download nothing.
            settings: What will be generated; settings that the model cannot follow are refused before it is loaded.
            progress: Called with the bytes loaded so far and in total.

        Raises:
            SettingsError: An unknown device or dtype, or settings that the model cannot follow.
            ModelNotFound: The model is missing and cannot be downloaded.
            ModelError: The files of the model are refused.
            OutOfMemory: The model does not fit.
        """
        place = pick_device(device)
        precision = pick_dtype(dtype, place)
        found = find_model(model, offline=offline)
        checked = preflight(found, LAYOUTS)
        limits = limits_on_disk(checked, model)
        for each in settings:
            limits.check(each)
            check_fit(each, checked)
        with raise_out_of_memory(f"Model '{model}'", place):
            family, scorer = load_family(checked, place, precision, progress)
        origin = Origin(model, family.name, str(place), str(precision).removeprefix("torch."), lambda: found.hash)
        return cls(family, origin, place, checked.defaults, scorer, offline, checked.vocabulary)

    @classmethod
    def from_diffusers(cls, pipeline: Any) -> Pipeline:
        """Uses the networks of a loaded diffusers pipeline; its images have no CLIP score.

        Raises ModelError for a pipeline class that clipgen does not support.
        """
        family = family_from_pipeline(pipeline)
        name, dtype = str(pipeline.name_or_path or "from-diffusers"), str(pipeline.dtype).removeprefix("torch.")
        origin = Origin(name, family.name, str(pipeline.device), dtype, lambda: None)
        pipe = cls(family, origin, pipeline.device, {}, None)
        pipe._from_diffusers = True
        return pipe

    def to(self, device: str) -> Pipeline:
        """Loads the model again on another device and returns this pipeline, which then uses it.

        Raises SettingsError for an unknown device, OutOfMemory, and ModelError for a pipeline of `from_diffusers`,
        which is moved with diffusers' own `to`.
        """
        if pick_device(device) == self.device:
            return self
        if self._from_diffusers:
            raise ModelError("Move the diffusers pipeline with its own `to`, then call from_diffusers again.")
        moved = Pipeline.from_pretrained(self.origin.model, device, self.origin.dtype, offline=True)
        vars(self).update(vars(moved))
        return self

    def generate(self, settings: Settings, is_cancelled: IsCancelled = never_cancelled) -> Iterator[Step | Result]:
        """Returns an iterator over a Step per image and denoising step, and a Result per finished image.

        Image k has seed + k, and equals the image that this seed generates alone. Closing the iterator stops the run;
        so does `is_cancelled`, which is called within each step from any thread.

        Raises:
            SettingsError: The model cannot generate with these settings.
            PromptError: The syntax of a prompt is wrong.
            OutOfMemory: Even one image at a time does not fit.
            Cancelled: `is_cancelled` returned True.
            BrokenImage: At the end, if images are flat or not finite.
        """
        # Settings -> batches: check them, fill the model's defaults, assign a seed to each image.
        limits_of_loaded(self.family, self.origin.model, self.defaults).check(settings)
        settings, notes = self.resolve_budget(settings)
        notes = (*notes, *size_notes(settings, self.defaults))
        if settings.through_unet and settings.guided:
            check_back_propagation(self.family.denoiser, self.origin.model)
        batches = plan(settings, self.origin.model, self.defaults, self.device, self.vocabulary)
        if self._from_diffusers and any(batch.loras for batch in batches):
            raise SettingsError("Load LoRAs with the diffusers pipeline's own load_lora_weights.", field="lora")

        # Batches -> images; broken ones are reported when the others are done.
        estimate, broken = ProgressEstimate(len(batches)), list[str]()
        try:
            for batch in batches:
                yield from self._generate_batch(batch, tuple(notes), estimate, broken, is_cancelled)
        finally:
            self._switch_loras_off()
        if broken:
            raise BrokenImage(broken[0] if len(broken) == 1 else f"{len(broken)} images are broken. {broken[0]}")

    def _generate_batch(
        self,
        batch: Batch,
        notes: tuple[Note, ...],
        estimate: ProgressEstimate,
        broken: list[str],
        is_cancelled: IsCancelled,
    ) -> Iterator[Step | Result]:
        """Yields the steps and the results of one batch of B images. Messages about broken images go to `broken`."""
        start = monotonic()

        # 1. Text -> conditioning: the prompts through the text encoders, {name: [B, ...]}; a variation adds its image.
        variation = self._encode_source_image(batch)
        with self._lock.hold("The text encoder"):
            self._loras.use(batch.loras)
            conditioning = self._prompts.encode_batch(batch, variation)

        # 2. Guidance: what CLIP adds to x0, or which rows it selects. `pick` and `steer` use several rows per image.
        with self._lock.hold("CLIP"):
            guidance = self._build_guidance(batch, is_cancelled)

        # 3. Noise -> latents [B, C, h, w], one scheduler step per iteration.
        predict = make_predict(batch, self.family, self._memory, conditioning, guidance)
        predict = self._with_loras(predict, batch.loras)
        predict = guidance.apply_to(with_cancellation(predict, is_cancelled))
        finite: list[Tensor] = []  # per step [B]: whether the latents of each image are finite
        for output, seconds in self._lock.timed(sample(batch, self.family, self.device, predict, guidance)):
            visible = guidance.preview_rows(output)  # one row per image
            finite.append(torch.isfinite(visible.latents).flatten(1).all(dim=1))
            yield from self._decoder.steps(batch, visible, estimate, seconds)

        # Half precision can overflow: then the whole batch is generated again in float32.
        if not finite[-1].all() and self._denoiser_to_float32():
            yield from self._generate_batch(batch, (*notes, IN_FLOAT32), estimate, broken, is_cancelled)
            return

        # 4. Latents -> pixels [B, 3, H, W] in [0, 1] -> CLIP scores.
        denoised = monotonic()
        with self._lock.hold("CLIP"):
            latents, seeds = guidance.final_latents(output)
        images, batch = batch.images, batch.with_picked_seeds(seeds)
        pixels, scores = self._decoder.decode_images(batch, latents)
        estimate.add_batch(monotonic() - denoised)

        # 5. Checks: broken images, and whether the gain of guidance survives small changes of the image.
        messages = describe_broken(batch.seeds, torch.stack(finite), is_broken(pixels))
        broken += messages.values()
        with self._lock.hold("CLIP"):
            survival = guidance.check_survival(pixels, batch.seeds)
        scores = guidance.add_curves(scores, batch.seeds)

        # 6. One Result per image that is not broken.
        shared_notes = (*notes, *([] if variation is None else variation.notes), *guidance.notes())
        shared_notes += tuple(Note("memory", None, line) for line in self._memory.measures(batch.size))
        shared_notes += () if self.scorer is not None else (NO_CLIP,)
        seconds_per_image = (monotonic() - start) / len(batch.images)
        for row, image in enumerate(batch.images):
            if row in messages:
                continue
            own_notes = [*conditioning.notes[row], *word_notes(images[row], self.vocabulary, self.origin.model)]
            own_notes += picked_notes(images[row], batch.seeds[row])
            own_notes += [note for note in [survival[row]] if note is not None]
            yield Result(
                pixels=pixels[row],
                index=batch.first + row,
                seed=batch.seeds[row],
                settings=image,
                clip=None if scores is None else scores[row],
                warnings=(*own_notes, *shared_notes),
                seconds=seconds_per_image,
                origin=self.origin,
                prompt_checker=self._clips.prompt_checker,
                inputs={
                    **({} if variation is None else {"vary": variation.source.sha256}),
                    **self._adapter_hashes(image, batch),
                },
                source_features=None if variation is None else variation.features,
                vocabulary=self.vocabulary,
            )

    def _encode_source_image(self, batch: Batch) -> Variation | None:
        """Returns the encoded image of the setting `vary`, None without one; raises ImageFileError."""
        target = batch.images[0].vary
        if target is None:
            return None
        source = read_source_image(target)
        with self._lock.hold("CLIP"):
            return encode_source_image(self.family, source, self._clips.own)

    def _build_guidance(self, batch: Batch, is_cancelled: IsCancelled) -> Guidance:
        """Returns the guidance of a batch; loads the CLIP models that the settings name."""
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

    def _adapter_hashes(self, image: Settings, batch: Batch) -> dict[str, str]:
        """Returns the SHA-256 of the LoRAs and the embeddings of an image for its record."""
        return adapter_hashes(batch.loras, self._prompts.embeddings(image))

    def _with_loras(self, predict: PredictNoise, loras: tuple[Lora, ...]) -> PredictNoise:
        """Returns the prediction with LoRAs, which another thread may have switched since the last step."""

        def predict_with_loras(step_input: StepInput) -> Prediction:
            self._loras.use(loras)
            return predict(step_input)

        return predict_with_loras

    def _switch_loras_off(self) -> None:
        """Switches the LoRAs off, unless another run holds the lock, which then has its own.

        It never waits, because the garbage collector can end a run while this thread holds the lock.
        """
        if self._lock.lock.acquire(blocking=False):
            try:
                self._loras.use(())
            finally:
                self._lock.lock.release()

    def _denoiser_to_float32(self) -> bool:
        """Converts the denoiser and the text encoders to float32; returns False if they already are."""
        with self._lock.lock:
            converted = self.family.denoiser_to_float32()
            self._prompts.clear_cache()
        return converted

    def run(self, settings: Settings, on_step: Callable[[Step], object] | None = None) -> list[Result]:
        """Generates and returns all images; a Cancelled that `on_step` raises stops and carries the finished ones."""
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

    def encode_prompt(self, settings: Settings, field: str = "prompt") -> Conditioning:
        """Returns the conditioning [1, ...] of the prompt, or of the field `negative_prompt`; raises PromptError."""
        loras = loras_of(settings)
        with self._lock.hold("The text encoder"):
            self._loras.use(loras)
            conditioning = self._prompts.encode_prompt(reword(settings, self.vocabulary), loras, field)
            self._loras.use(())
        return conditioning

    def tokenize_prompt(self, settings: Settings) -> TokenizedPrompt:
        """Returns the tokens of the prompt as the text encoders read them; raises PromptError."""
        return self._prompts.tokenize(reword(settings, self.vocabulary))

    def encoder(self, name: str) -> ClipEncoder:
        """Returns a CLIP by folder or hub id, loaded once and cached."""
        return self._clips.load(name)

    def resolve_budget(self, settings: Settings) -> tuple[Settings, Sequence[Note]]:
        """Returns the settings with `budget` replaced by the best guidance it pays for, and a note with the cost.

        The choice depends on the settings and the model, not on the machine. Settings without a budget are returned
        unchanged. Raises SettingsError, and the errors of loading a CLIP.
        """
        if settings.budget is None:
            return settings, ()
        filled = settings.with_defaults(self.defaults)
        return resolve_budget(filled, self.model_costs(filled))

    def model_costs(self, settings: Settings) -> ModelCosts:
        """Returns the compute costs of this model for settings with all MODEL_FIELDS filled.

        Raises SettingsError, and the errors of loading a CLIP.
        """
        conditioning = self.encode_prompt(Settings(prompt=ANY_PROMPT))
        with self._lock.hold("CLIP"):
            self._loras.remove()  # its layers would be counted too
            encoders = choose_encoders(settings, self._clips.own, self.origin.model, self._clips.load)
            return model_costs(settings, self.family, conditioning, encoders)
