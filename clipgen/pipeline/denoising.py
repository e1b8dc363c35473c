"""A batch goes into the loop: its prediction under classifier-free guidance, its scheduler, and its seeds' noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from clipgen.device import MemoryFallback
from clipgen.families import Conditioning, Family, repeat_conditioning
from clipgen.guidance.adaptive_projection import AdaptiveProjection
from clipgen.guidance.build import Guidance
from clipgen.guidance.classifier_free import classifier_free
from clipgen.pipeline.plan import Batch
from clipgen.sampling.loop import PredictNoise, StepOutput, denoise, initial_noise, make_generators
from clipgen.sampling.make_scheduler import make_scheduler


def predicting(
    batch: Batch, family: Family, ladder: MemoryFallback, told: tuple[Conditioning, Conditioning], guidance: Guidance
) -> PredictNoise:
    """Returns the prediction that the prompts give; a batch that does not fit into memory goes in pieces.

    `told` is what the denoiser is told of the prompts, and of the negative prompts, a row a picture.
    """
    shared, rows = batch.pictures[0], len(guidance.seeds)

    def predict(latents: Tensor, timestep: Tensor, told: Conditioning) -> Tensor:
        def piece(latents: Tensor, *rows: Tensor) -> Tensor:
            return family.predict(latents, timestep, dict(zip(told, rows, strict=True)))

        return ladder.run("denoising", batch.size, piece, latents, *told.values())

    return classifier_free(
        predict,
        *(repeat_conditioning(each, rows) for each in told),
        scale=1.0 if family.distilled else batch.guidance_scale,
        start=shared.cfg_start,
        stop=shared.cfg_stop,
        rescale=shared.guidance_rescale,
        combine=AdaptiveProjection(batch.guidance_scale) if shared.apg else None,
        needs_graph=guidance.needs_graph,
    )


def states_of(
    batch: Batch, family: Family, device: torch.device, predict: PredictNoise, guidance: Guidance
) -> Iterator[StepOutput]:
    """Returns the loop of a batch, from noise that its seeds draw; guidance may climb from there and loop again."""

    def drawn() -> tuple[list[torch.Generator], Tensor]:
        generators = make_generators(guidance.seeds)
        return generators, initial_noise(generators, family.latent_shape(*batch.size))

    def run(loop: Callable[..., Iterator[StepOutput]], noise: Tensor) -> Iterator[StepOutput]:
        generators, _ = drawn()
        return loop(predict, _scheduler(batch, family, device), noise, generators, batch.eta, guidance.selection)

    _, noise = drawn()
    return run(denoise, noise) if guidance.noise_optimiser is None else guidance.noise_optimiser(noise, run)


def _scheduler(batch: Batch, family: Family, device: torch.device) -> Any:
    """Returns the scheduler of a batch, set to the family's own noise levels where it has some."""
    image_seq_len, sigmas = family.image_seq_len(*batch.size), family.sigmas(batch.steps)
    config = family.scheduler_config
    return make_scheduler(batch.scheduler, config, batch.steps, device, image_seq_len=image_seq_len, sigmas=sigmas)
