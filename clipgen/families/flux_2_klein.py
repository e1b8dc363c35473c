"""FLUX.2 [klein]: a flow-matching transformer conditioned on the language model Qwen3, distilled or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import shared
from clipgen.families.flux import NUM_TRAIN_TIMESTEPS, PATCH, SAMPLE_SIZE
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import PromptEmbeds, TextEncoder, causal_layers
from clipgen.models import Layout, NetworkSpec, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

DISTILLED, BASE = (4, 1.0), (50, 4.0)  # steps, guidance_scale
TOKENS = 512
LAYERS = (9, 18, 27)  # hidden layers of Qwen3 that the transformer receives
# The chat template of Qwen3 without thinking.
PREFIX, SUFFIX = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
# Points of the shift mu, (slope by tokens, offset): at 10 steps, and at 200 steps or many tokens.
MU_10, MU_200 = (8.73809524e-05, 1.89833333), (0.00016927, 0.45666666)
MANY_TOKENS = 4300


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit together, and for transformers with inputs other than a prompt."""
    transformer, config = networks["transformer"], networks["transformer"].config
    shared.check_patches(config, transformer.out_channels, networks["vae"], PATCH)
    text = networks["text_encoder"].config
    if text.num_hidden_layers < max(LAYERS):
        raise ModelError(f"text_encoder has {text.num_hidden_layers} layers; FLUX.2 [klein] needs {max(LAYERS)}.")
    embed_size = len(LAYERS) * text.hidden_size
    shared.check_embed_size("transformer", "prompt_embeds", config.joint_attention_dim, embed_size)
    shared.check_rope(config, 4)


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    return SizeLimits(vae_scale_factor(networks["vae"]) * PATCH)


LAYOUT = Layout(
    family="flux_2_klein",
    pipeline_classes=("Flux2KleinPipeline",),
    networks={
        "transformer": NetworkSpec((("diffusers", "Flux2Transformer2DModel"),)),
        "vae": NetworkSpec((("diffusers", "AutoencoderKLFlux2"),)),
        "text_encoder": shared.QWEN3_TEXT,
    },
    tokenizers={"tokenizer": shared.QWEN_TOKENIZER},
    schedulers=shared.FLOW_SCHEDULERS,
    unused=shared.UNUSED,
    predictions=("flow",),
    guidance="none (distilled), classifier-free (base)",
    check=_check,
    size_limits=_size_limits,
    prefers_bfloat16=True,
)


class Flux2Klein(LatentFamily):
    """The adapter of one loaded model, distilled or base; see the Family protocol. Black Forest Labs 2026.

    The latents are patches of 2 x 2 latents of the VAE, normalised by the statistics of its batch norm.
    """

    name = "flux_2_klein"

    def __init__(
        self, components: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]
    ) -> None:
        self.transformer, tokenizer = components["transformer"], components["tokenizer"]
        self.distilled = bool(index.get("is_distilled", False))
        text_encoder = TextEncoder(
            tokenizer,
            components["text_encoder"],
            min(TOKENS, tokenizer.model_max_length),
            partial(causal_layers, LAYERS, tokenizer.pad_token_id),
            prefix=PREFIX,
            suffix=SUFFIX,
        )
        vae = components["vae"]
        super().__init__(self.transformer, vae, [text_encoder], _size_limits(components), scheduler_config)
        steps, guidance_scale = DISTILLED if self.distilled else BASE
        self.defaults: Mapping[str, Any] = self._default_settings(SAMPLE_SIZE, steps, guidance_scale)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Returns the shape [C, h, w] of one image's latents, which are patches."""
        side = self.vae_scale_factor * PATCH
        return self.vae.config.latent_channels * PATCH**2, height // side, width // side

    def sigmas(self, steps: int) -> Sequence[float] | None:
        """Returns `steps` evenly spaced noise levels from 1 to 1/steps."""
        return shared.even_sigmas(steps)

    def shift_mu(self, width: int, height: int, steps: int) -> float | None:
        """Returns mu of the dynamic shift, which depends on the number of tokens and of steps; None without a shift."""
        if not self.scheduler_config.get("use_dynamic_shifting"):
            return None
        tokens = self.image_seq_len(width, height)
        at_10, at_200 = (slope * tokens + offset for slope, offset in (MU_10, MU_200))
        return at_200 if tokens > MANY_TOKENS else at_200 + (at_200 - at_10) / 190 * (steps - 200)

    def encode(self, embeds: Sequence[PromptEmbeds], is_empty: bool) -> dict[str, Tensor]:
        """Returns {encoder_hidden_states [1, T, 3 D]}."""
        return {"encoder_hidden_states": embeds[0].prompt_embeds}

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the transformer's output, noise - x0, [B, C, h, w] in float32 for latents [B, C, h, w]."""
        dtype = self.transformer.proj_out.weight.dtype  # `transformer.dtype` is slow: it iterates over all parameters
        states = conditioning["encoder_hidden_states"].to(dtype)
        output: Tensor = self.transformer(
            latents.to(dtype).flatten(2).mT,  # [B, h * w, C]
            timestep=timestep.expand(len(latents)) / NUM_TRAIN_TIMESTEPS,
            encoder_hidden_states=states,
            img_ids=position_ids(latents, 1, *latents.shape[-2:]),
            txt_ids=position_ids(latents, 3, states.shape[1]),
            return_dict=False,
        )[0]
        return output.mT.reshape(latents.shape).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32, about 0 to 1, of latents [B, C, h, w]."""
        import torch

        norm = self.vae.bn
        mean, variance = (each.to(latents)[:, None, None] for each in (norm.running_mean, norm.running_var))
        scaled = (latents * (variance + self.vae.config.batch_norm_eps).sqrt() + mean).to(self.vae.dtype)
        unpacked = torch.nn.functional.pixel_shuffle(scaled, PATCH)  # [B, C / 4, 2 h, 2 w]
        image: Tensor = self.vae.decode(unpacked.contiguous(memory_format=torch.channels_last), return_dict=False)[0]
        return image.float() / 2 + 0.5


def position_ids(latents: Tensor, axis: int, *size: int) -> Tensor:
    """Returns the ids (time, row, column, token) of a grid of `size`, [product of size, 4], from `axis` on."""
    import torch

    ids = latents.new_zeros(*size, 4)
    for offset, length in enumerate(size):
        shape = [length if k == offset else 1 for k in range(len(size))]
        ids[..., axis + offset] = torch.arange(length, device=latents.device).reshape(shape).to(ids)
    return ids.reshape(-1, 4)
