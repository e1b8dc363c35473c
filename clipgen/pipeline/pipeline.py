"""Text to image, stage by stage: start reading at `Pipeline.generate` and `Pipeline._generate_batch`.

settings -> models -> text -> sampling (predict, guide) -> decode -> score -> Result; each stage is a package or module.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.score import Scorer
from clipgen.decode import is_broken
from clipgen.device import MemoryFallback, check_compiles, pick_device, pick_dtype, raise_out_of_memory, release_memory
from clipgen.errors import BrokenImage, Cancelled, ModelError, SettingsError
from clipgen.families import FAMILIES, LAYOUTS, Conditioning, Family, family_from_pipeline, load_family
from clipgen.families.fetch import fetch_model
from clipgen.families.few_step import few_step_defaults
from clipgen.families.lora import Lora, LoraAdapters
from clipgen.guidance.budget import ANY_PROMPT, resolve_budget
from clipgen.guidance.build import Guidance, build_guidance
from clipgen.guidance.flops import ModelCosts, model_costs
from clipgen.guidance.quantisation import check_back_propagation
from clipgen.guidance.targets import choose_encoders
from clipgen.models import LoadProgress, ignore_progress, preflight
from clipgen.models.clip_cache import ClipCache
from clipgen.models.find import find_vae
from clipgen.models.load_vae import check_vae
from clipgen.pipeline.adapters import adapter_hashes, check_fit, loras_of
from clipgen.pipeline.conditioning import PromptEncoder
from clipgen.pipeline.denoising import make_predict, sample
from clipgen.pipeline.inputs import with_default_clip
from clipgen.pipeline.limits import limits_of_loaded, limits_on_disk
from clipgen.pipeline.locking import ModelLock
from clipgen.pipeline.plan import Batch, picked_notes, plan, scheduler_notes, size_notes
from clipgen.pipeline.preview import PreviewDecoder
from clipgen.pipeline.result import Origin, ProgressEstimate, Result, Step, describe_broken
from clipgen.pipeline.rewording import reword, word_notes
from clipgen.pipeline.vae_cache import VaeCache
from clipgen.pipeline.variation import Variation, encode_source_image, read_source_image
from clipgen.sampling.cancellation import IsCancelled, never_cancelled, with_cancellation
from clipgen.sampling.loop import Prediction, PredictNoise, StepInput
from clipgen.settings.settings import GUIDANCE_DEFAULTS, Note, Settings
from clipgen.text import TokenizedPrompt
from clipgen.world.vocabulary import Vocabulary

NO_CLIP = Note(
    "no-clip",
    "clip_models",
    "The model has no CLIP, so the image has no score: name one with clip_models, such as "
    "openai/clip-vit-base-patch32.",
)


def retry_note(dtype: torch.dtype) -> Note:
    """Returns the note that an image is generated again in a dtype of wider range."""
    name = str(dtype).removeprefix("torch.")
    return Note(f"{name}-retry", None, f"Half precision broke the image; the model now runs in {name}.")


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
        few_step = {} if family.distilled else few_step_defaults(origin.model, family.name, family.scheduler_config)
        self.defaults = {**GUIDANCE_DEFAULTS, **family.defaults, **few_step, **defaults}
        self.vocabulary = vocabulary
        self._clips = ClipCache(scorer, device, offline)
        self._from_diffusers = False
        self._prompts = PromptEncoder(family, origin.model)
        self._loras = LoraAdapters(family, FAMILIES[family.name][0], origin.model)
        self._memory, self._lock = MemoryFallback(device), ModelLock(device)
        self._vaes = VaeCache(family, origin.model, device, getattr(torch, origin.dtype), offline)
        self._scorer = scorer
        self._inputs: dict[str, str] = {}  # the SHA-256 of files that the settings name
        self._decoder = PreviewDecoder(family, scorer, self._memory, self._lock)

    def __repr__(self) -> str:
        origin = self.origin
        return f"Pipeline({origin.model!r}, family={origin.family!r}, device={origin.device!r}, dtype={origin.dtype!r})"

    @property
    def scorer(self) -> Scorer | None:
        """The CLIP that scores: the model's own, else one of `models.find.DEFAULT_CLIPS` that is on this machine."""
        return self._clips.scorer()

    @classmethod
    def from_pretrained(
        cls,
        model: str = "storybook",
        device: str = "auto",
        dtype: str = "auto",
        offline: bool = False,
        settings: Sequence[Settings] = (),
        progress: LoadProgress = ignore_progress,
        compile_denoiser: bool = False,
    ) -> Pipeline:
        """Finds, checks and loads a model.

        Args:
            model: A bundled name, a hub id `org/name`, or `./folder`.
            device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
            dtype: `auto`, `auto-fast`, `float32`, `bfloat16` or `float16`.
            offline: Download nothing.
            settings: What will be generated; settings that the model cannot follow are refused before it is loaded.
            progress: Called with the bytes loaded so far and in total.
            compile_denoiser: Compile the denoiser with torch, which makes the first image slow and the steps faster.

        Raises:
            SettingsError: An unknown device or dtype, compilation on another device than CUDA, or settings that the
                model cannot follow.
            ModelNotFound: The model is missing and cannot be downloaded.
            ModelError: The files of the model are refused.
            OutOfMemory: The model does not fit.
        """
        place = pick_device(device)
        if compile_denoiser:
            check_compiles(place)
        pick_dtype(dtype, place)  # an unknown name is refused before a model is downloaded
        found = fetch_model(model, device, dtype, offline=offline)
        checked = preflight(found, LAYOUTS)
        precision = pick_dtype(dtype, place, checked.layout.prefers_bfloat16)
        limits = limits_on_disk(checked, model)
        for each in settings:
            limits.check(each)
            check_fit(each, checked)
        release_memory(place)  # that of a model which was used before
        for vae in dict.fromkeys(each.vae for each in settings if each.vae is not None):
            own = checked.networks.get("vae")
            source = find_vae(vae, offline=offline)
            check_vae(source, checked.layout, None if own is None else own.module, model)
        with raise_out_of_memory(f"Model '{model}'", place):
            family, scorer = load_family(checked, place, precision, progress)
        if compile_denoiser:
            family.denoiser.compile()
        origin = Origin(model, family.name, str(place), str(precision).removeprefix("torch."), lambda: found.hash)
        return cls(family, origin, place, checked.defaults, scorer, offline, checked.vocabulary)

    @classmethod
    def from_diffusers(cls, pipeline: Any) -> Pipeline:
        """Uses the weights of a loaded diffusers pipeline, which stays as it is; its images have no CLIP score.

        A pipeline with offloading is used with its offloading, except for its VAE, which goes to the device. Raises
        ModelError for a pipeline or scheduler class that clipgen does not support.
        """
        family = family_from_pipeline(pipeline)
        device = torch.device(pipeline._execution_device)
        name, dtype = str(pipeline.name_or_path or "from-diffusers"), str(pipeline.dtype).removeprefix("torch.")
        origin = Origin(name, family.name, str(device), dtype, lambda: None)
        pipe = cls(family, origin, device, {}, None)
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
        settings, notes = self.resolve_budget(self._with_guiding_clip(settings))
        run = self._configured_for(settings)
        notes = (*notes, *size_notes(settings, self.defaults), *scheduler_notes(settings, self.family))
        if settings.through_unet and settings.guided:
            check_back_propagation(self.family.denoiser, self.origin.model)
        batches = self.plan(settings)
        if self._from_diffusers and any(batch.loras for batch in batches):
            raise SettingsError("Load LoRAs with the diffusers pipeline's own load_lora_weights.", field="lora")

        # Batches -> images; broken ones are reported when the others are done.
        estimate, broken = ProgressEstimate(len(batches)), list[str]()
        try:
            for batch in batches:
                yield from run._generate_batch(batch, tuple(notes), estimate, broken, is_cancelled)
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

        # Half precision can overflow: then the whole batch is generated again in bfloat16, at last in float32.
        if not finite[-1].all() and (wider := self._widen_denoiser()) is not None:
            yield from self._generate_batch(batch, (*notes, retry_note(wider)), estimate, broken, is_cancelled)
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
        shared_notes += () if self._scorer is not None else (NO_CLIP,)
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
                prompt_checker=None if self._scorer is None else self._clips.checker(self._scorer),
                inputs=self._input_hashes(image, batch, variation),
                source_features=None if variation is None else variation.features,
                vocabulary=self.vocabulary,
            )

    def _with_guiding_clip(self, settings: Settings) -> Settings:
        """Returns the settings with the name of a default CLIP if CLIP guides and no other one can.

        The name belongs to the settings, so that another machine generates the same image or says what it lacks.
        """
        return settings if self._clips.own is not None else with_default_clip(settings)

    def _configured_for(self, settings: Settings) -> Pipeline:
        """Returns this pipeline with the scorer and the VAE that the settings ask for; all other state is shared."""
        with self._lock.hold("CLIP"):
            scorer = self._clips.scorer(settings.clip_models)
        pipe = copy.copy(self)
        if settings.vae is not None:
            with self._lock.hold("The VAE"):
                pipe.family, digest = self._vaes.family(settings.vae)
            pipe._inputs = {"vae": digest}
        pipe._scorer = scorer
        pipe._decoder = PreviewDecoder(pipe.family, scorer, self._memory, self._lock)
        return pipe

    def _encode_source_image(self, batch: Batch) -> Variation | None:
        """Returns the encoded image of the setting `vary`, None without one; raises ImageFileError."""
        target = batch.images[0].vary
        if target is None:
            return None
        source = read_source_image(target)
        with self._lock.hold("CLIP"):
            return encode_source_image(self.family, source, None if self._scorer is None else self._scorer.encoder)

    def _build_guidance(self, batch: Batch, is_cancelled: IsCancelled) -> Guidance:
        """Returns the guidance of a batch; loads the CLIP models that the settings name."""
        return build_guidance(
            batch.reworded[0],
            self.family,
            batch.texts,
            batch.seeds,
            own=self._clips.own,
            scorer=None if self._scorer is None else self._scorer.encoder,
            model=self.origin.model,
            load=self._clips.load,
            is_cancelled=is_cancelled,
        )

    def _input_hashes(self, image: Settings, batch: Batch, variation: Variation | None) -> dict[str, str]:
        """Returns the SHA-256 of the files that an image depends on, for its record: VAE, source image, adapters."""
        vary = {} if variation is None else {"vary": variation.source.sha256}
        return {**self._inputs, **vary, **adapter_hashes(batch.loras, self._prompts.embeddings(image))}

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

    def _widen_denoiser(self) -> torch.dtype | None:
        """Converts the denoiser and the text encoders to a dtype of wider range and returns it; None if there is none.

        Raises OutOfMemory if they do not fit in float32.
        """
        with self._lock.hold("The model in a wider dtype"):
            wider = self.family.widen_denoiser()
            self._prompts.clear_cache()
        return wider

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

    def plan(self, settings: Settings) -> list[Batch]:
        """Returns the batches of a run, with the model's defaults; raises SettingsError, PromptError."""
        latent_shape = self.family.latent_shape
        return plan(settings, self.origin.model, self.defaults, latent_shape, self.device, self.vocabulary)

    def run_together(self, runs: Sequence[Settings]) -> list[Result | None]:
        """Generates one image per settings, all in one batch; None for a broken image.

        The prompts and seeds may differ; the settings in plan.SHARED_FIELDS are those of the first. Several small
        images in one batch take less time than one by one.
        """
        batches = [self.plan(run.replace(images=1))[0] for run in runs]
        batch = replace(batches[0], images=tuple(each.images[0] for each in batches))
        events = self._generate_batch(batch, (), ProgressEstimate(1), [], never_cancelled)
        results = {event.index: event for event in events if isinstance(event, Result)}
        return [results.get(index) for index in range(len(runs))]

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
        filled = self._with_guiding_clip(settings.with_defaults(self.defaults))
        return resolve_budget(filled, self.model_costs(filled))

    def model_costs(self, settings: Settings) -> ModelCosts:
        """Returns the compute costs of this model for settings with all MODEL_FIELDS filled.

        Raises SettingsError, and the errors of loading a CLIP.
        """
        settings = self._with_guiding_clip(settings)
        conditioning = self.encode_prompt(Settings(prompt=ANY_PROMPT))
        with self._lock.hold("CLIP"):
            self._loras.remove()  # its layers would be counted too
            encoders = choose_encoders(settings, self._clips.own, self.origin.model, self._clips.load)
            return model_costs(settings, self.family, conditioning, encoders)
