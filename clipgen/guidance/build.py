"""Builds the guidance of a batch from its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.latent_head import LatentHead
from clipgen.clip.score import Score
from clipgen.families import Family
from clipgen.guidance.clip_gradient import ClipGradient, with_correction
from clipgen.guidance.guard import measure_survival, survival_warnings, vae_round_trip
from clipgen.guidance.latent_decoder import latent_decoder
from clipgen.guidance.latent_gradient import LatentGradient, choose_latent_head
from clipgen.guidance.optimise import NoiseOptimiser, check_few_steps
from clipgen.guidance.pick import Pick, best_row, candidate_seeds
from clipgen.guidance.steer import Steer, check_stochastic
from clipgen.guidance.targets import (
    ClipTarget,
    Decode,
    GuidanceTargets,
    LoadEncoder,
    Reward,
    build_targets,
    choose_encoders,
)
from clipgen.sampling.cancellation import IsCancelled, never_cancelled, with_cancellation
from clipgen.sampling.loop import PredictNoise, StepInput, StepOutput
from clipgen.settings.settings import Note, Settings

FILLED = "Settings.with_defaults fills the fields that the model decides"


def check_method_runs(settings: Settings, model: str, prediction_type: str) -> None:
    """Raises SettingsError if a model of this prediction type cannot run the guidance method of the settings.

    A scheduler or number of steps that is None is not checked: the model decides it later.
    """
    if settings.guidance == "steer" and settings.scheduler is not None:
        check_stochastic(settings.scheduler, prediction_type, settings.eta or 0.0)
    if settings.guidance == "optimise" and settings.steps is not None:
        check_few_steps(settings.steps, model)


@dataclass(frozen=True)
class Guidance:
    """The guidance of one batch. With the defaults it does nothing.

    `seeds` are those of the rows of the initial batch: one per image, or one per candidate of the only image. At most
    three parts act: `correction` of x0 at each step, `selection` of rows after each step, `noise_optimiser` around the
    whole loop. `final_reward` ranks the rows that a selection leaves. `target` is that of the first guiding CLIP.
    `self_graded` = the CLIP that scores the images also guides them. `guarded_family` is the model whose images the
    guard `survival` checks, None without it.
    """

    seeds: tuple[int, ...]
    correction: ClipGradient | None = None
    selection: Pick | Steer | None = None
    final_reward: Reward | None = None
    noise_optimiser: NoiseOptimiser | None = None
    target: ClipTarget | None = None
    self_graded: bool = False
    guarded_family: Family | None = None

    def needs_graph(self, step_input: StepInput) -> bool:
        """Tells whether the conditional model output of this step must keep its graph to the latents."""
        correction = self.correction
        return (
            correction is not None
            and correction.through_unet
            and correction.is_active(step_input.index, step_input.steps)
        )

    def apply_to(self, predict: PredictNoise) -> PredictNoise:
        """Returns the prediction with the correction of x0 added."""
        return predict if self.correction is None else with_correction(predict, self.correction, self.seeds)

    def preview_rows(self, step_output: StepOutput) -> StepOutput:
        """Returns a step output with one row per image: the first candidate represents the others."""
        if self.selection is None:
            return step_output
        return replace(step_output, latents=step_output.latents[:1], x0=step_output.x0[:1], rows=step_output.rows[:1])

    @torch.no_grad()
    def final_latents(self, step_output: StepOutput) -> tuple[Tensor, tuple[int, ...]]:
        """Returns the final latents [B, C, h, w] with one row per image, the best one, and the seeds of these rows."""
        latents, rows = step_output.latents, step_output.rows
        if self.final_reward is None:
            return latents, self.seeds
        best = 0 if len(latents) == 1 else best_row(self.final_reward(latents))
        return latents[best : best + 1], (self.seeds[rows[best]],)

    def notes(self) -> list[Note]:
        """Returns the warnings about the whole batch."""
        return [] if self.correction is None else self.correction.notes()

    def check_survival(self, pixels: Tensor, image_seeds: Sequence[int]) -> list[Note | None]:
        """Returns per image of [B, 3, H, W] a warning if little of its gain in similarity survives small changes.

        The gain is counted from the first similarity of the image's curve. Returns None for all images without the
        guard `survival`, and if nothing was guided by a gradient.
        """
        curves = [self._curve(seed) for seed in image_seeds]
        if self.target is None or self.guarded_family is None or not all(curves):
            return [None] * len(pixels)
        baseline = torch.tensor([curve[0][1] for curve in curves])
        pixels = pixels.to(self.guarded_family.vae.device)
        round_trip = vae_round_trip(self.guarded_family)
        return survival_warnings(
            measure_survival(pixels, self.target.prompt_similarity, baseline.to(pixels), round_trip)
        )

    def add_curves(self, scores: Sequence[Score] | None, image_seeds: Sequence[int]) -> Sequence[Score] | None:
        """Returns the scores with their image's curve, marked as self-graded; as they are if another CLIP guides."""
        if scores is None or not self.self_graded:
            return scores
        return [
            replace(score, self_graded=True, curve=tuple((*point, None) for point in self._curve(seed)))
            for score, seed in zip(scores, image_seeds, strict=True)
        ]

    def _curve(self, image_seed: int) -> tuple[tuple[int, float], ...]:
        """Returns (step or iteration, similarity) pairs of an image; empty without a gradient method."""
        gradient_method = self.correction or self.noise_optimiser
        return () if gradient_method is None else gradient_method.curve(image_seed)


def build_guidance(
    settings: Settings,
    family: Family,
    texts: Sequence[str],
    seeds: Sequence[int],
    *,
    own: ClipEncoder | None,
    scorer: ClipEncoder | None,
    model: str,
    load: LoadEncoder,
    is_cancelled: IsCancelled = never_cancelled,
) -> Guidance:
    """Returns the guidance of a batch of images with these texts and seeds.

    `own` is the CLIP of the model, None if it has none; `scorer` is the one that scores the images; `load` loads those
    that `settings.clip_models` names. After `is_cancelled()` turns true, each decoding for CLIP raises Cancelled.
    Raises SettingsError, ImageFileError for an unreadable image in `like` or `vary`, and what `load` raises.
    """
    methods = settings.guidance.split("+")
    if methods == ["off"]:
        return Guidance(tuple(seeds))
    assert settings.guide_decoder is not None, FILLED

    # What all methods share is built once per batch: the CLIPs and their targets, the latent head, the decoder.
    encoders = choose_encoders(settings, own, model, load)
    targets = build_targets(encoders, texts, settings)
    target = targets.guiding[0]
    head = choose_latent_head(settings, encoders, family)
    decoder_name = "auto" if head is not None else settings.guide_decoder
    decode = with_cancellation(latent_decoder(family, decoder_name, target.encoder.image_size), is_cancelled)

    guidance = Guidance(
        tuple(seeds),
        correction=build_clip_gradient(settings, targets, decode, head) if "clip" in methods else None,
        target=target,
        self_graded=scorer in encoders.guiding,
        # The similarity that a latent head predicts is no baseline for the similarity of pixels.
        guarded_family=family if settings.guard == "survival" and head is None else None,
    )
    if "optimise" in methods:
        return replace(guidance, noise_optimiser=NoiseOptimiser(target, decode, seeds, settings.iterations))
    # Candidates are compared by the latent decoder on the way, and by the full decoder, as people see them, at the end.
    reward = target.make_reward(decode)
    final_reward = target.make_reward(with_cancellation(family.decode, is_cancelled))
    if "pick" in methods:
        row_seeds = candidate_seeds(seeds[0], settings.candidates)
        selection = Pick(reward, settings.candidates)
        return replace(guidance, seeds=row_seeds, selection=selection, final_reward=final_reward)
    if "steer" in methods:
        row_seeds = candidate_seeds(seeds[0], settings.particles)
        return replace(guidance, seeds=row_seeds, selection=Steer(reward, seeds[0]), final_reward=final_reward)
    return guidance


def build_clip_gradient(
    settings: Settings, targets: GuidanceTargets, decode: Decode, head: LatentHead | None = None
) -> ClipGradient:
    """Returns the correction of guidance `clip`, at noisy latents if a latent head is given.

    The settings must have their model fields filled: `Settings.with_defaults`.
    """
    assert settings.cutouts is not None, FILLED
    assert settings.guidance_every is not None, FILLED
    if head is not None:
        return LatentGradient(
            targets.guiding[0],
            head,
            scale=settings.clip_guidance_scale,
            start=settings.guidance_start,
            stop=settings.guidance_stop,
            every=settings.guidance_every,
        )
    return ClipGradient(
        targets.guiding,
        decode,
        scale=settings.clip_guidance_scale,
        cutouts=settings.cutouts,
        start=settings.guidance_start,
        stop=settings.guidance_stop,
        every=settings.guidance_every,
        through_unet=settings.through_unet,
        veto=targets.veto,
    )
