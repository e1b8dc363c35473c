"""Settings become what steers a batch: a correction of x0, a choice among rows, or an ascent of the start noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.latent_head import LatentHead
from clipgen.clip.score import Score
from clipgen.families import Family
from clipgen.guidance.clip_gradient import ClipGradient, corrected
from clipgen.guidance.guard import overoptimised, survival, vae_round_trip
from clipgen.guidance.latent_decoder import LatentModel, latent_decoder
from clipgen.guidance.latent_gradient import LatentGradient, choose_latent_head
from clipgen.guidance.optimise import Optimise, check_few_steps
from clipgen.guidance.pick import Pick, candidate_seeds, winner
from clipgen.guidance.steer import Steer, check_draws_noise
from clipgen.guidance.targets import (
    ClipTarget,
    GuidanceEncoders,
    LoadEncoder,
    Reward,
    build_clip_target,
    choose_encoders,
)
from clipgen.sampling.cancellation import IsCancelled, never_cancelled, with_cancellation
from clipgen.sampling.loop import PredictNoise, StepInput, StepOutput
from clipgen.settings.settings import Note, Settings

FILLED = "with_defaults fills what the model decides"


def check_guidance(settings: Settings, model: str, prediction: str) -> None:
    """Raises SettingsError where a model of that prediction type cannot be steered so; what is still open passes."""
    if settings.guidance == "steer" and settings.scheduler is not None:
        check_draws_noise(settings.scheduler, prediction, settings.eta or 0.0)
    if settings.guidance == "optimise" and settings.steps is not None:
        check_few_steps(settings.steps, model)


@torch.no_grad()
def build_clip_gradient(
    settings: Settings,
    encoders: GuidanceEncoders,
    family: LatentModel,
    texts: Sequence[str],
    head: LatentHead | None = None,
    is_cancelled: IsCancelled = never_cancelled,
) -> ClipGradient:
    """Returns the correction of guidance `clip` for a batch with those texts, by a latent head if one is given.

    Settings must be filled: `Settings.with_defaults`. Each look raises Cancelled once `is_cancelled` says so.
    """
    assert settings.guide_decoder is not None, FILLED
    assert settings.cutouts is not None, FILLED
    assert settings.guidance_every is not None, FILLED
    guides = [build_clip_target(encoder, texts, settings) for encoder in encoders.guides]
    when: dict[str, Any] = {
        "scale": settings.clip_guidance_scale,
        "start": settings.guidance_start,
        "stop": settings.guidance_stop,
        "every": settings.guidance_every,
    }
    if head is not None:
        return LatentGradient(guides[0], head, **when)
    return ClipGradient(
        guides,
        with_cancellation(latent_decoder(family, settings.guide_decoder, encoders.guides[0].image_size), is_cancelled),
        cutouts=settings.cutouts,
        through_unet=settings.through_unet,
        two_key=None if encoders.second is None else build_clip_target(encoders.second, texts, settings),
        **when,
    )


@dataclass(frozen=True)
class Guidance:
    """What guidance does to one batch; without a correction, a selection and an ascent nothing.

    `seeds` are those of the rows that start: a picture's own, or those of the candidates for the batch's one picture,
    of which `selection` keeps the promising and `reward` chooses the best in the end. `guide` looks at what came out;
    `own_guides` = the CLIP that scores it steers; `family` is there where the guard `survival` is wanted.
    """

    seeds: tuple[int, ...]
    correction: ClipGradient | None = None
    selection: Pick | Steer | None = None
    reward: Reward | None = None
    ascent: Optimise | None = None
    guide: ClipTarget | None = None
    own_guides: bool = False
    family: Family | None = None

    def preview_rows(self, state: StepOutput) -> StepOutput:
        """Returns a state with one row a picture: the first candidate stands for the others."""
        if self.selection is None:
            return state
        return replace(state, latents=state.latents[:1], x0=state.x0[:1], rows=state.rows[:1])

    @torch.no_grad()
    def best_rows(self, state: StepOutput) -> tuple[Tensor, tuple[int, ...]]:
        """Returns the finished latents [B, C, h, w], one row a picture, and the seeds that they began with."""
        if self.reward is None:
            return state.latents, self.seeds
        best = 0 if len(state.latents) == 1 else winner(self.reward(state.latents))
        return state.latents[best : best + 1], (self.seeds[state.rows[best]],)

    def needs_graph(self, step_input: StepInput) -> bool:
        """Tells whether the conditional prediction of a step must keep its graph."""
        correction = self.correction
        return (
            correction is not None and correction.through_unet and correction.active(step_input.index, step_input.steps)
        )

    def apply_to(self, predict: PredictNoise) -> PredictNoise:
        """Returns the prediction with the correction in it."""
        return predict if self.correction is None else corrected(predict, self.correction, self.seeds)

    def notes(self) -> list[Note]:
        """Returns what is to be said of the whole batch."""
        return [] if self.correction is None else self.correction.notes()

    def check_survival(self, pixels: Tensor, image_seeds: Sequence[int]) -> list[Note | None]:
        """Returns for each picture [B, 3, H, W] a warning if little of its gain outlives changes that nobody sees.

        The gain is counted from the first look of what climbs. None for all where nothing guards or nothing climbed.
        """
        curves = [self._curve(seed) for seed in image_seeds]
        if self.guide is None or self.family is None or not all(curves):
            return [None] * len(pixels)
        baseline = torch.tensor([curve[0][1] for curve in curves])
        pixels = pixels.to(self.family.vae.device)
        found = survival(pixels, self.guide.similarity, baseline.to(pixels), vae_round_trip(self.family))
        return overoptimised(found)

    def add_curves(self, scores: Sequence[Score] | None, image_seeds: Sequence[int]) -> Sequence[Score] | None:
        """Returns scores with the curve of their picture, and saying so where the CLIP that gives them has steered."""
        if scores is None or not self.own_guides:
            return scores
        return [
            replace(score, self_graded=True, curve=tuple((*seen, None) for seen in self._curve(seed)))
            for score, seed in zip(scores, image_seeds, strict=True)
        ]

    def _curve(self, image_seed: int) -> tuple[tuple[int, float], ...]:
        """Returns what the guide saw of a picture, step by step or round by round; nothing where nothing climbs."""
        climbs = self.correction or self.ascent
        return () if climbs is None else climbs.curve(image_seed)


def build_guidance(
    settings: Settings,
    family: Family,
    texts: Sequence[str],
    seeds: Sequence[int],
    *,
    own: ClipEncoder | None,
    model: str,
    load: LoadEncoder,
    is_cancelled: IsCancelled = never_cancelled,
) -> Guidance:
    """Returns the steering of a batch whose pictures have these texts and seeds; `own` is the model's own CLIP.

    Raises SettingsError, ImageFileError, and what `load` raises for a CLIP that is not there. Each of its looks at
    latents raises Cancelled once `is_cancelled` says so.
    """
    methods = settings.guidance.split("+")
    if methods == ["off"]:
        return Guidance(tuple(seeds))
    encoders = choose_encoders(settings, own, model, load)
    guide, head = _first_guide(encoders, texts, settings), choose_latent_head(settings, encoders, family, own)
    steering = Guidance(
        tuple(seeds),
        correction=(
            build_clip_gradient(settings, encoders, family, texts, head, is_cancelled) if "clip" in methods else None
        ),
        guide=guide,
        own_guides=own in encoders.guides,
        family=family if settings.guard == "survival" and head is None else None,  # a guess is no baseline
    )
    assert settings.guide_decoder is not None, FILLED
    name = "auto" if head is not None else settings.guide_decoder
    decode = with_cancellation(latent_decoder(family, name, guide.encoder.image_size), is_cancelled)
    finish = with_cancellation(family.decode, is_cancelled)
    if "optimise" in methods:
        return replace(steering, ascent=Optimise(guide, decode, seeds, settings.iterations))
    if "pick" in methods:
        rows, selection = settings.candidates, Pick(guide.reward(decode), settings.candidates)
        return _choosing(steering, selection, rows, guide.reward(finish))
    if "steer" in methods:
        steer = Steer(guide.reward(decode), seeds[0])
        return _choosing(steering, steer, settings.particles, guide.reward(finish))
    return steering


def _choosing(steering: Guidance, selection: Pick | Steer, rows: int, reward: Reward) -> Guidance:
    """Returns a steering of one picture in which so many rows compete; the finished ones are decoded in full."""
    seeds = candidate_seeds(steering.seeds[0], rows)
    return replace(steering, seeds=seeds, selection=selection, reward=reward)


@torch.no_grad()
def _first_guide(encoders: GuidanceEncoders, texts: Sequence[str], settings: Settings) -> ClipTarget:
    return build_clip_target(encoders.guides[0], texts, settings)
