"""THE STORY of a picture: settings, text, noise, steps, decoding, score. Start reading at `Pipeline._draw`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.questions import Examiner
from clipgen.clip.score import Score, Scorer
from clipgen.decode import decode, is_broken, look
from clipgen.denoise import PredictNoise, State, denoise, generators_of, make_scheduler, start_noise
from clipgen.device import Ladder, memory_told, pick_device, pick_dtype
from clipgen.errors import BrokenImage, Cancelled, SettingsError
from clipgen.families import FAMILIES, LAYOUTS, Conditioning, Family, adopt, for_rows, load_family, stacked
from clipgen.families.folder import own_scheduler
from clipgen.guidance.adaptive_projection import AdaptiveProjection
from clipgen.guidance.backward import check_backward, is_quantised
from clipgen.guidance.budget import resolve
from clipgen.guidance.classifier_free import classifier_free
from clipgen.guidance.flops import Facts, facts_of
from clipgen.guidance.guide import encoders_of
from clipgen.guidance.latent_gradient import latent_head_for
from clipgen.guidance.steering import Steering, check_guidance, steering_of
from clipgen.heed import Stopped, heeding, never
from clipgen.models import Filling, Layout, find_model, preflight, untold
from clipgen.models.encoder import load_encoder
from clipgen.models.find import find_clip
from clipgen.plan import Batch, plan
from clipgen.prediction import check_prediction
from clipgen.result import Look, Origin, Pace, Result, Step, faults_of, steps_of
from clipgen.settings import STEERING_DEFAULTS, Note, Settings
from clipgen.source import Source, read_source
from clipgen.text import encode_prompt

TEXTS_KEPT = 64
ENCODERS_KEPT = 4
CURVE_POINTS = 8  # steps of a picture at which CLIP can be asked, evenly spread
NO_CLIP = Note("no-clip", None, "The model brings no CLIP, so the picture has no score.")
NEGATIVE_UNREAD = Note("negative-prompt-unread", "negative_prompt", "This model takes no negative prompt.")
PRICED_BY = "a picture"  # any prompt: what a budget buys does not depend on it
IN_FLOAT32 = Note("float32-retry", None, "Half precision broke the picture; the model now runs in float32.")


@dataclass(frozen=True, eq=False)
class Varied:
    """What a batch varies: the file, the vector [1, D] that the denoiser is told, and its CLIP's [D] if it has one."""

    source: Source
    seen: Tensor
    features: Tensor | None


class Pipeline:
    """A loaded model that draws. Threads may share it: their steps take turns."""

    def __init__(
        self, family: Family, origin: Origin, device: torch.device, defaults: Mapping[str, Any], scorer: Scorer | None
    ) -> None:
        self.family = family
        self.origin = origin
        self.device = device
        self.defaults = {**STEERING_DEFAULTS, **family.defaults, **defaults}
        self.scorer = scorer
        self.examiner = None if scorer is None else Examiner(scorer)
        self.offline = False
        self._ladder = Ladder(device)
        self._lock = Lock()
        self._encode = lru_cache(TEXTS_KEPT)(self._encode_text)
        self.encoder = lru_cache(ENCODERS_KEPT)(self._load_encoder)

    @classmethod
    def from_pretrained(
        cls,
        model: str = "storybook",
        device: str = "auto",
        dtype: str = "auto",
        offline: bool = False,
        wanted: Sequence[Settings] = (),
        filling: Filling = untold,
    ) -> Pipeline:
        """Finds, checks and loads a model: a bundled name, `org/name` of the hub, or `./folder`.

        `wanted` is what will be drawn: what this model cannot draw is refused here, before anything is loaded.
        `filling` hears how many of its bytes are in place. Raises SettingsError, ModelNotFound, ModelError,
        OutOfMemory; nothing of a model that is refused is loaded.
        """
        place = pick_device(device)
        precision = pick_dtype(dtype, place)
        found = find_model(model, offline=offline)
        checked = preflight(found, LAYOUTS)
        known = {"scheduler": own_scheduler(checked.scheduler), **checked.defaults}
        for settings in wanted:
            checked.sides.check(settings.width, settings.height, model)
            check_guidance(settings.with_defaults(known), model, check_prediction(checked.scheduler))
            check_vary(settings, model, checked.layout, checked.sees)
        with memory_told(f"Model '{model}'", place):
            family, scorer = load_family(checked, place, precision, filling)
        origin = Origin(model, family.name, str(place), str(precision).removeprefix("torch."), lambda: found.hash)
        pipeline = cls(family, origin, place, checked.defaults, scorer)
        pipeline.offline = offline
        return pipeline

    @classmethod
    def from_diffusers(cls, pipeline: Any) -> Pipeline:
        """Takes over a loaded diffusers pipeline as it is; without a CLIP its pictures have no score.

        Raises ModelError for a class that no family of clipgen fits.
        """
        family = adopt(pipeline)
        name, dtype = str(pipeline.name_or_path or "from-diffusers"), str(pipeline.dtype).removeprefix("torch.")
        origin = Origin(name, family.name, str(pipeline.device), dtype, lambda: None)
        return cls(family, origin, pipeline.device, {}, None)

    def generate(self, settings: Settings, stopped: Stopped = never) -> Iterator[Step | Result]:
        """Yields a Step for each picture at each step, and each picture's Result; closing the iterator stops the run.

        Picture k has seed + k and is the picture that this seed gives alone. `stopped` is asked inside the steps too,
        from whatever thread; once it is true, Cancelled is raised. Raises PromptError, SettingsError, OutOfMemory, and
        BrokenImage at the end if pictures came out flat or not finite.
        """
        self.family.sides.check(settings.width, settings.height, self.origin.model)
        check_guidance(settings.with_defaults(self.defaults), self.origin.model, self.family.prediction)
        check_vary(settings, self.origin.model, FAMILIES[self.family.name][0], self.family.see is not None)
        settings, notes = self.within_budget(settings)
        if settings.through_unet and settings.guided:
            check_backward(self.family.denoiser, self.origin.model)
        batches = plan(settings, self.origin.model, self.defaults, self.device)
        pace, faults = Pace(len(batches)), list[str]()
        for batch in batches:
            batch.notes += notes
            yield from self._draw(batch, pace, faults, stopped)
        if faults:
            raise BrokenImage(faults[0] if len(faults) == 1 else f"{len(faults)} pictures are broken. {faults[0]}")

    def within_budget(self, settings: Settings) -> tuple[Settings, list[Note]]:
        """Returns settings with what their budget buys in its place, and a note of what that costs.

        It depends on the settings and the model, never on the machine. Settings without a budget come back as they
        are. Raises SettingsError, and what loading a CLIP raises.
        """
        if settings.budget is None:
            return settings, []
        filled = settings.with_defaults(self.defaults)
        return resolve(filled, self.facts(filled))

    def facts(self, settings: Settings) -> Facts:
        """Returns what a price is made of, for settings whose open fields are filled.

        Raises SettingsError, and what loading a CLIP raises.
        """
        told = self.told(Settings(prompt=PRICED_BY))
        with self._lock, memory_told("CLIP", self.device):
            encoders = encoders_of(settings, self._own_encoder, self.origin.model, self.encoder)
            size = (settings.width or 0, settings.height or 0)
            head = latent_head_for(settings, encoders, self.family, self._own_encoder)
            decoder = settings.guide_decoder or "auto"
            back = not is_quantised(self.family.denoiser)
            return facts_of(self.family, told, encoders.guides, size, decoder, back_propagates=back, head=head)

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

    def told(self, settings: Settings, name: str = "prompt") -> Conditioning:
        """Returns what the denoiser is told of a prompt, or of its negative_prompt, [1, ...]; raises PromptError."""
        with self._lock, memory_told("The text encoder", self.device):
            text = getattr(settings, name)
            row, _ = self._encode(name, text, settings.prompt_syntax, settings.long_prompt)
        return self.family.at_scale(self.family.with_picture(row, None, 0.0, 0), settings.guidance_scale or 1.0)

    def _draw(self, batch: Batch, pace: Pace, faults: list[str], stopped: Stopped) -> Iterator[Step | Result]:
        """The story of one batch, a line a stage."""
        began = monotonic()
        varied = self._varied(batch)
        conditional, unconditional = self._texts(batch, varied)
        steering = self._steering(batch, stopped)
        predict = steering.guided(heeding(self._told(batch, conditional, unconditional, steering), stopped))
        finite: list[Tensor] = []
        for state, seconds in self._taking_turns(self._states(batch, predict, steering)):
            shown = steering.shown(state)
            finite.append(torch.isfinite(shown.latents).flatten(1).all(dim=1))
            yield from self._steps(batch, shown, pace, seconds)
        if not finite[-1].all() and self._to_float32(batch):
            yield from self._draw(batch, pace, faults, stopped)
            return
        denoised = monotonic()
        with self._lock, memory_told("CLIP", self.device):
            latents, seeds = steering.chosen(state)
        batch.pick(seeds)
        pixels, scores = self._pictures(batch, latents)
        pace.batch(monotonic() - denoised)
        broken = faults_of(batch.seeds, torch.stack(finite), is_broken(pixels))
        faults += broken.values()
        self._guard(batch, steering, pixels)
        graded = steering.graded(scores, batch.seeds)
        yield from self._results(batch, varied, pixels, graded, broken, monotonic() - began)

    def _states(self, batch: Batch, predict: PredictNoise, steering: Steering) -> Iterator[State]:
        """Returns the loop of a batch, from noise that its seeds draw; guidance may climb from there and loop again."""

        def drawn() -> tuple[list[torch.Generator], Tensor]:
            generators = generators_of(steering.seeds)
            return generators, start_noise(generators, self.family.latent_shape(*batch.size))

        def run(loop: Callable[..., Iterator[State]], noise: Tensor) -> Iterator[State]:
            generators, _ = drawn()
            return loop(predict, self._scheduler(batch), noise, generators, batch.eta, steering.selection)

        _, noise = drawn()
        return run(denoise, noise) if steering.ascent is None else steering.ascent(noise, run)

    def _scheduler(self, batch: Batch) -> Any:
        """Returns the scheduler of a batch, set to the family's own noise levels where it has some."""
        family = self.family
        tokens, sigmas = family.tokens(*batch.size), family.sigmas(batch.steps)
        config = family.scheduler_config
        return make_scheduler(batch.scheduler, config, batch.steps, self.device, tokens=tokens, sigmas=sigmas)

    @torch.no_grad()
    def _varied(self, batch: Batch) -> Varied | None:
        """Returns the picture that a batch varies as the model sees it; raises ImageFileError."""
        target = batch.pictures[0].vary
        if target is None:
            return None
        source, encoder = read_source(target), self._own_encoder
        assert self.family.see is not None, "check_vary has been asked"
        with self._lock, memory_told("CLIP", self.device):
            features = None if encoder is None else encoder.image_features(source.pixels)[0]
            return Varied(source, self.family.see(source.pixels), features)

    @torch.no_grad()
    def _texts(self, batch: Batch, varied: Varied | None) -> tuple[Conditioning, Conditioning]:
        """Returns what the denoiser is told of the prompts, and of the negative prompts, a row a picture.

        A picture that is varied is told with the prompt, never with the negative one.

        A distilled model is never asked about the negative ones: there the second is the first, and a note says so.
        """
        names = ("prompt",) if self.family.distilled else ("prompt", "negative_prompt")
        told: dict[str, list[Conditioning]] = {name: [] for name in names}
        unread = self.family.distilled and batch.pictures[0].negative_prompt != ""
        batch.own_notes = [[NEGATIVE_UNREAD] * unread for _ in batch.pictures]
        with self._lock, memory_told("The text encoder", self.device):
            for picture, own_notes in zip(batch.pictures, batch.own_notes, strict=True):
                for name, rows in told.items():
                    row, notes = self._encode(name, getattr(picture, name), picture.prompt_syntax, picture.long_prompt)
                    known = varied if name == "prompt" else None
                    seen, weight = (None, 0.0) if known is None else (known.seen, known.source.weight)
                    rows.append(self.family.with_picture(row, seen, weight, picture.seed or 0))
                    own_notes.extend(notes)
        halves = [self.family.at_scale(stacked(rows), batch.guidance_scale) for rows in told.values()]
        return halves[0], halves[-1]

    def _encode_text(
        self, name: str, text: str, syntax: str, long_prompt: str
    ) -> tuple[Conditioning, tuple[Note, ...]]:
        """Encodes one prompt with the family's text encoders; `_encode` keeps the last ones."""
        encoded = encode_prompt(text, self.family.towers, syntax=syntax, long_prompt=long_prompt, field=name)
        return self.family.encode(encoded.embedded, blank=encoded.text == ""), encoded.warnings

    def _steering(self, batch: Batch, stopped: Stopped) -> Steering:
        """Returns what CLIP does to a batch; the CLIPs that settings name are loaded at their first use."""
        with self._lock, memory_told("CLIP", self.device):
            return steering_of(
                batch.pictures[0],
                self.family,
                batch.texts,
                batch.seeds,
                own=self._own_encoder,
                model=self.origin.model,
                load=self.encoder,
                stopped=stopped,
            )

    @property
    def _own_encoder(self) -> ClipEncoder | None:
        return None if self.scorer is None else self.scorer.encoder

    def _load_encoder(self, name: str) -> ClipEncoder:
        """Loads a CLIP by folder or hub id, but the model's own only once, whatever it is called."""
        folder = find_clip(name, offline=self.offline).path.resolve()
        if self.scorer is not None and self.scorer.folder is not None and folder == self.scorer.folder.resolve():
            return self.scorer.encoder
        return load_encoder(name, self.device, offline=self.offline)

    def _guard(self, batch: Batch, steering: Steering, pixels: Tensor) -> None:
        """Leaves with each picture what is to be said of its guidance."""
        batch.notes += steering.notes()
        with self._lock, memory_told("CLIP", self.device):
            survived = steering.survived(pixels, batch.seeds)
        for notes, note in zip(batch.own_notes, survived, strict=True):
            notes += [] if note is None else [note]

    def _told(
        self, batch: Batch, conditional: Conditioning, unconditional: Conditioning, steering: Steering
    ) -> PredictNoise:
        """Returns the prediction that the prompts give; a batch that does not fit into memory goes in pieces."""
        shared = batch.pictures[0]

        def predict(latents: Tensor, timestep: Tensor, told: Conditioning) -> Tensor:
            def piece(latents: Tensor, *rows: Tensor) -> Tensor:
                return self.family.predict(latents, timestep, dict(zip(told, rows, strict=True)))

            return self._ladder.run("denoising", batch.size, piece, latents, *told.values())

        return classifier_free(
            predict,
            for_rows(conditional, len(steering.seeds)),
            for_rows(unconditional, len(steering.seeds)),
            scale=1.0 if self.family.distilled else batch.guidance_scale,
            start=shared.cfg_start,
            stop=shared.cfg_stop,
            rescale=shared.guidance_rescale,
            mix=AdaptiveProjection(batch.guidance_scale) if shared.apg else None,
            with_graph=steering.wants_graph,
        )

    def _taking_turns(self, states: Iterator[State]) -> Iterator[tuple[State, float]]:
        """Yields the loop's states with the seconds that each took; other threads may run in between."""
        while True:
            began = monotonic()
            with self._lock:
                state = next(states, None)
            if state is None:
                return
            yield state, monotonic() - began

    def _steps(self, batch: Batch, state: State, pace: Pace, seconds: float) -> Iterator[Step]:
        """Returns one Step a picture; nothing is decoded or scored until somebody asks."""
        eta = pace.step(seconds, state.index, state.steps)
        at_a_point = state.index % -(-state.steps // CURVE_POINTS) == 0 or state.index == state.steps - 1
        scored = at_a_point and self._scored(batch) and self.family.decodes_fast(*batch.size)
        shared = Look(partial(self._look, batch, state.x0), partial(self._scores, batch) if scored else None)
        return steps_of(state, batch.first, seconds, eta, shared)

    def _look(self, batch: Batch, x0: Tensor) -> Tensor:
        with self._lock, memory_told("A preview", self.device):
            return look(self.family, x0, batch.size)

    def _pictures(self, batch: Batch, latents: Tensor) -> tuple[Tensor, Sequence[Score] | None]:
        """Returns the finished pictures [B, 3, H, W] in [0, 1] and their scores, None without a CLIP."""
        with self._lock:
            pixels = decode(self.family, latents, batch.size, self._ladder)
        return pixels, self._scores(batch, pixels) if self._scored(batch) else None

    def _scored(self, batch: Batch) -> bool:
        """Tells whether there is a CLIP, and words to hold the pictures against."""
        return self.scorer is not None and batch.worded

    def _scores(self, batch: Batch, pixels: Tensor) -> Sequence[Score]:
        assert self.scorer is not None
        with self._lock, memory_told("CLIP", self.device):
            return self.scorer.score(pixels, batch.texts)

    def _to_float32(self, batch: Batch) -> bool:
        """Puts a half-precision model into float32 after it broke a picture; returns False if it was."""
        with self._lock:
            changed = self.family.denoiser_to_float32()
            self._encode.cache_clear()
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
                    examiner=self.examiner,
                    inputs={} if varied is None else {"vary": varied.source.digest},
                    source=None if varied is None else varied.features,
                )


def generate(
    prompt: str, *, device: str = "auto", dtype: str = "auto", offline: bool = False, **settings: Any
) -> Result:
    """Draws one picture; `settings` are Settings fields. Raises SettingsError for more: that is generate_many."""
    if settings.get("images", 1) != 1:
        raise SettingsError("generate draws one picture; generate_many draws more", field="images")
    (result,) = generate_many([prompt], device=device, dtype=dtype, offline=offline, **settings)
    return result


def check_vary(settings: Settings, model: str, layout: Layout, sees: bool) -> None:
    """Raises SettingsError where a model cannot be told the picture to vary, or draws nothing without one."""
    if settings.vary is None and layout.only_varies:
        raise SettingsError(
            f"model '{model}' draws variations of a picture: clipgen vary IMAGE -m {model}", field="vary"
        )
    if settings.vary is None or sees:
        return
    lacks = f"it brings no {layout.sees[-1]}" if layout.sees else f"its family, {layout.family}, reads no picture"
    works = "a prompt with --guidance clip --like IMAGE"
    raise SettingsError(f"model '{model}' draws no variations: {lacks}. What works: {works}", field="vary")


def vary(
    image: str | Path, *, device: str = "auto", dtype: str = "auto", offline: bool = False, **settings: Any
) -> Iterator[Result]:
    """Yields variations of a picture file as they get finished; `settings` are Settings fields, a prompt among them.

    `image` may end with a weight, `fox.png:0.5`: half the picture, half the prompt. Raises ImageFileError.
    """
    wanted = Settings.from_dict({**settings, "vary": str(image)})
    pipe = Pipeline.from_pretrained(wanted.model, device, dtype, offline, [wanted])
    yield from (event for event in pipe.generate(wanted) if isinstance(event, Result))


def generate_many(
    prompts: Iterable[str], *, device: str = "auto", dtype: str = "auto", offline: bool = False, **settings: Any
) -> Iterator[Result]:
    """Yields the pictures of each prompt as they get finished; the model is loaded once, at the first."""
    pipe: Pipeline | None = None
    for prompt in prompts:
        wanted = Settings.from_dict({**settings, "prompt": prompt})
        pipe = pipe or Pipeline.from_pretrained(wanted.model, device, dtype, offline, [wanted])
        yield from (event for event in pipe.generate(wanted) if isinstance(event, Result))
