"""Connects a batch with the sampling loop: classifier-free guidance, the scheduler, and the noise of each seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from clipgen.device import MemoryFallback
from clipgen.families import Conditioning, Family, repeat_conditioning
from clipgen.guidance.adaptive_projection import AdaptiveProjection
from clipgen.guidance.build import Guidance
from clipgen.guidance.classifier_free import classifier_free
from clipgen.pipeline.conditioning import BatchConditioning
from clipgen.pipeline.plan import Batch
from clipgen.sampling.loop import PredictNoise, StepInput, StepOutput, denoise, initial_noise, make_generators
from clipgen.sampling.make_scheduler import make_scheduler


def make_predict(
    batch: Batch, family: Family, memory: MemoryFallback, conditioning: BatchConditioning, guidance: Guidance
) -> PredictNoise:
    """Returns the prediction under classifier-free guidance; `memory` splits a batch that does not fit."""
    image, rows, scale = batch.images[0], len(guidance.seeds), family.cfg_scale(batch.guidance_scale)

    def predict(latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        def part(latents: Tensor, *tensors: Tensor) -> Tensor:
            return family.predict(latents, timestep, dict(zip(conditioning, tensors, strict=True)))

        return memory.run("denoising", batch.size, part, latents, *conditioning.values())

    def combine(step_input: StepInput, cond: Tensor, uncond: Tensor) -> Tensor:
        return family.rescale_guided(uncond + scale * (cond - uncond), cond)

    return classifier_free(
        predict,
        repeat_conditioning(conditioning.positive, rows),
        repeat_conditioning(conditioning.negative, rows),
        scale=scale,
        start=image.cfg_start,
        stop=image.cfg_stop,
        rescale=image.guidance_rescale,
        combine=AdaptiveProjection(scale) if image.apg else combine,
        needs_graph=guidance.needs_graph,
    )


def sample(
    batch: Batch, family: Family, device: torch.device, predict: PredictNoise, guidance: Guidance
) -> Iterator[StepOutput]:
    """Returns the sampling loop, which starts with the noise of the seeds and yields after each scheduler step.

    Guidance `optimise` runs the loop several times, to optimise the start noise.
    """
    image_seq_len, sigmas = family.image_seq_len(*batch.size), family.sigmas(batch.steps)
    mu = family.shift_mu(*batch.size, batch.steps)

    def start() -> tuple[list[torch.Generator], Tensor]:
        generators = make_generators(guidance.seeds)
        return generators, initial_noise(generators, family.latent_shape(*batch.size))  # noise: [B, C, h, w]

    def run(loop: Callable[..., Iterator[StepOutput]], noise: Tensor) -> Iterator[StepOutput]:
        generators, _ = start()  # each run continues the generators from the start noise on
        config = family.scheduler_config
        scheduler = make_scheduler(
            batch.scheduler, config, batch.steps, device, image_seq_len=image_seq_len, sigmas=sigmas, mu=mu
        )
        return loop(predict, scheduler, noise, generators, batch.eta, guidance.selection)

    _, noise = start()
    return run(denoise, noise) if guidance.noise_optimiser is None else guidance.noise_optimiser(noise, run)
