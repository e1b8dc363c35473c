"""Z-Image and Z-Image-Turbo: a flow-matching transformer conditioned on the language model Qwen3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import shared
from clipgen.families.flux import NUM_TRAIN_TIMESTEPS, PATCH, SAMPLE_SIZE
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import PromptEmbeds, TextEncoder, causal_layer
from clipgen.models import Layout, NetworkSpec, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

STEPS, GUIDANCE_SCALE = 50, 4.0  # of the model that is not distilled; few_step.py has those of Turbo
TOKENS = 512
PREFIX, SUFFIX = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"  # the chat template of Qwen3
FRAMES = 1  # of a patch of 2 x 2 latents


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit together, and for transformers with inputs other than a prompt."""
    config = networks["transformer"].config
    if config.siglip_feat_dim is not None:
        raise ModelError("transformer/config.json: siglip_feat_dim is set; clipgen's z_image family takes no images.")
    if PATCH not in config.all_patch_size or FRAMES not in config.all_f_patch_size:
        raise ModelError(f"transformer/config.json: all_patch_size must contain {PATCH}, all_f_patch_size {FRAMES}.")
    shared.check_latents("transformer", config.in_channels, config.in_channels, networks["vae"])
    hidden_size = networks["text_encoder"].config.hidden_size
    shared.check_embed_size("transformer", "prompt_embeds", config.cap_feat_dim, hidden_size)


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    patch_pixels = vae_scale_factor(networks["vae"]) * PATCH
    return SizeLimits(patch_pixels, max_size=patch_pixels * min(networks["transformer"].config.axes_lens[1:]))


LAYOUT = Layout(
    family="z_image",
    pipeline_classes=("ZImagePipeline",),
    networks={
        "transformer": NetworkSpec((("diffusers", "ZImageTransformer2DModel"),)),
        "vae": shared.VAE,
        "text_encoder": shared.QWEN3_TEXT,
    },
    tokenizers={"tokenizer": shared.QWEN_TOKENIZER},
    schedulers=shared.FLOW_SCHEDULERS,
    unused=shared.UNUSED,
    predictions=("flow",),
    guidance="classifier-free; none (Turbo)",
    check=_check,
    size_limits=_size_limits,
    prefers_bfloat16=True,
)


class ZImage(LatentFamily):
    """The adapter of one loaded model; see the Family protocol. Z-Image Team 2025 (arXiv 2511.22699).

    `guidance_scale` is that of diffusers: cond + guidance_scale (cond - uncond), 0 for no guidance.
    """

    name = "z_image"

    def __init__(
        self, components: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]
    ) -> None:
        self.transformer, tokenizer = components["transformer"], components["tokenizer"]
        text_encoder = TextEncoder(
            tokenizer,
            components["text_encoder"],
            min(TOKENS, tokenizer.model_max_length),
            partial(causal_layer, -2, 0),
            prefix=PREFIX,
            suffix=SUFFIX,
            pads=False,
        )
        vae = components["vae"]
        super().__init__(self.transformer, vae, [text_encoder], _size_limits(components), scheduler_config)
        self.defaults: Mapping[str, Any] = self._default_settings(SAMPLE_SIZE, STEPS, GUIDANCE_SCALE)

    def sigmas(self, steps: int) -> Sequence[float] | None:
        """Returns `steps` evenly spaced noise levels from 1 to 1/steps."""
        return shared.even_sigmas(steps)

    def cfg_scale(self, guidance_scale: float) -> float:
        """Returns s of uncond + s (cond - uncond): 1 more than that of cond + guidance_scale (cond - uncond)."""
        return guidance_scale + 1.0

    def encode(self, embeds: Sequence[PromptEmbeds], is_empty: bool) -> dict[str, Tensor]:
        """Returns {prompt_embeds [1, T, D], attention_mask [1, T]}; T is that of the prompt."""
        mask = embeds[0].attention_mask
        assert mask is not None
        return {"prompt_embeds": embeds[0].prompt_embeds, "attention_mask": mask}

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the transformer's output, noise - x0, [B, C, h, w] in float32 for latents [B, C, h, w].

        The transformer takes lists of images [C, 1, h, w] and prompts [T, D], the time 0 (noise) to 1, and returns
        x0 - noise.
        """
        import torch

        # `transformer.dtype` is slow: it iterates over all parameters
        dtype = self.transformer.all_final_layer[f"{PATCH}-{FRAMES}"].linear.weight.dtype
        embeds, mask = conditioning["prompt_embeds"].to(dtype), conditioning["attention_mask"]
        lengths = [mask.shape[1]] * len(mask) if mask.is_meta else mask.sum(dim=1).long().tolist()
        outputs: list[Tensor] = self.transformer(
            list(latents.to(dtype)[:, :, None].unbind()),
            1 - timestep.expand(len(latents)) / NUM_TRAIN_TIMESTEPS,
            [rows[:length] for rows, length in zip(embeds, lengths, strict=True)],
            return_dict=False,
        )[0]
        return -torch.stack([output.float() for output in outputs]).squeeze(2)
