"""CLIP guidance on the pipelines of diffusers, where clipgen does not run the sampling loop.

    clip_guidance   ClipGuidance: a context manager for any pipeline of diffusers; start reading here
    clip_guider     ClipGuider: the same as a guider component of modular pipelines

What both share
    guided_step     a scheduler's `step` with the correction of x0
    latent_layout   the shapes in which pipelines keep latents, and the one shape that guidance uses
    denoiser_output which part of the denoiser's outputs is the unconditional prediction
    pipeline_vae    a pipeline's VAE: how each class decodes, and a copy without offload hooks
    refusals        the pipelines that cannot be guided, each with its reason
"""

from clipgen.attach.clip_guidance import ClipGuidance

__all__ = ["ClipGuidance"]
