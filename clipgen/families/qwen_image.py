"""Qwen-Image: a flow-matching transformer conditioned on the language model Qwen2.5-VL, with a video VAE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError
from clipgen.families import shared
from clipgen.families.flux import NUM_TRAIN_TIMESTEPS, PATCH, SAMPLE_SIZE, pack_latents, unpack_latents
from clipgen.families.latent_family import LatentFamily, vae_scale_factor
from clipgen.families.text_encoders import PromptEmbeds, TextEncoder, causal_layer
from clipgen.models import Layout, NetworkSpec, SizeLimits

if TYPE_CHECKING:
    from torch import Tensor

STEPS, GUIDANCE_SCALE = 50, 4.0  # from the model card
TOKENS = 1024
PREFIX = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"
DROPPED = 34  # tokens of the prefix, whose embeddings the transformer does not receive


def _rename_text_tensor(name: str) -> str:
    """Maps a tensor name of transformers before 4.52 to the current one, in which both towers are below `model.`."""
    if name.startswith("visual."):
        return f"model.{name}"
    current = ("model.language_model.", "model.visual.", "lm_head.")
    return name if name.startswith(current) else name.replace("model.", "model.language_model.", 1)


def _check(networks: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]]) -> None:
    """Raises ModelError for networks that do not fit together, and for transformers with inputs other than a prompt."""
    config, z_dim = networks["transformer"].config, networks["vae"].config.z_dim
    if (config.in_channels, config.out_channels, config.patch_size) != (z_dim * PATCH**2, z_dim, PATCH):
        raise ModelError(
            f"transformer takes {config.in_channels} channels; with a vae of {z_dim} it must take {z_dim * PATCH**2}."
        )
    if not len(networks["vae"].config.latents_mean) == len(networks["vae"].config.latents_std) == z_dim:
        raise ModelError(f"vae/config.json: latents_mean and latents_std must be {z_dim} numbers.")
    for name in ("guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope"):
        if config[name]:
            raise ModelError(f"transformer/config.json: {name} is set; clipgen's qwen_image family has no such input.")
    text = networks["text_encoder"].config.text_config
    shared.check_embed_size("transformer", "prompt_embeds", config.joint_attention_dim, text.hidden_size)
    shared.check_rope(config, 3)


def _size_limits(networks: Mapping[str, Any]) -> SizeLimits:
    return SizeLimits(vae_scale_factor(networks["vae"]) * PATCH)


LAYOUT = Layout(
    family="qwen_image",
    pipeline_classes=("QwenImagePipeline",),
    networks={
        "transformer": NetworkSpec((("diffusers", "QwenImageTransformer2DModel"),), computes_buffers=True),
        "vae": NetworkSpec((("diffusers", "AutoencoderKLQwenImage"),)),
        "text_encoder": NetworkSpec(
            (("transformers", "Qwen2_5_VLForConditionalGeneration"),), _rename_text_tensor, computes_buffers=True
        ),
    },
    tokenizers={"tokenizer": shared.QWEN_TOKENIZER},
    schedulers=shared.FLOW_SCHEDULERS,
    unused=shared.UNUSED,
    predictions=("flow",),
    guidance="classifier-free, at the norm of the conditional output",
    check=_check,
    size_limits=_size_limits,
    prefers_bfloat16=True,
)


class QwenImage(LatentFamily):
    """The adapter of one loaded model; see the Family protocol. Wu et al. 2025 (arXiv 2508.02324)."""

    name = "qwen_image"

    def __init__(
        self, components: Mapping[str, Any], scheduler_config: Mapping[str, Any], index: Mapping[str, Any]
    ) -> None:
        self.transformer, tokenizer = components["transformer"], components["tokenizer"]
        text_encoder = TextEncoder(
            tokenizer,
            components["text_encoder"],
            min(TOKENS + DROPPED, tokenizer.model_max_length),
            partial(causal_layer, -1, DROPPED),
            prefix=PREFIX,
            suffix=SUFFIX,
            pads=False,
        )
        vae = components["vae"]
        super().__init__(self.transformer, vae, [text_encoder], _size_limits(components), scheduler_config)
        self.defaults: Mapping[str, Any] = self._default_settings(SAMPLE_SIZE, STEPS, GUIDANCE_SCALE)

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Returns the shape [C, h, w] of one image's latents."""
        return self.vae.config.z_dim, height // self.vae_scale_factor, width // self.vae_scale_factor

    def sigmas(self, steps: int) -> Sequence[float] | None:
        """Returns `steps` evenly spaced noise levels from 1 to 1/steps."""
        return shared.even_sigmas(steps)

    def rescale_guided(self, guided: Tensor, cond: Tensor) -> Tensor:
        """Returns the guided output with the norm that the conditional output has in each patch of 2 x 2 latents."""
        norms = [pack_latents(each).norm(dim=-1, keepdim=True) for each in (cond, guided)]  # [B, h/2 * w/2, 1]
        return unpack_latents(pack_latents(guided) * (norms[0] / norms[1]), *guided.shape[-2:])

    def encode(self, embeds: Sequence[PromptEmbeds], is_empty: bool) -> dict[str, Tensor]:
        """Returns {encoder_hidden_states [1, T, D], encoder_hidden_states_mask [1, T]}; T is that of the prompt."""
        mask = embeds[0].attention_mask
        assert mask is not None
        return {"encoder_hidden_states": embeds[0].prompt_embeds, "encoder_hidden_states_mask": mask}

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Returns the transformer's output, noise - x0, [B, C, h, w] in float32 for latents [B, C, h, w]."""
        dtype = self.transformer.proj_out.weight.dtype  # `transformer.dtype` is slow: it iterates over all parameters
        mask = conditioning["encoder_hidden_states_mask"]
        height, width = latents.shape[-2:]
        output: Tensor = self.transformer(
            pack_latents(latents.to(dtype)),  # [B, h/2 * w/2, 4 C]
            timestep=timestep.expand(len(latents)).to(dtype) / NUM_TRAIN_TIMESTEPS,
            encoder_hidden_states=conditioning["encoder_hidden_states"].to(dtype),
            encoder_hidden_states_mask=None if mask.is_meta or mask.all() else mask,
            img_shapes=[[(1, height // PATCH, width // PATCH)]] * len(latents),
            return_dict=False,
        )[0]
        return unpack_latents(output, height, width).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in float32, about 0 to 1, of latents [B, C, h, w]: a video of one frame."""
        mean, std = (
            latents.new_tensor(values)[:, None, None]
            for values in (self.vae.config.latents_mean, self.vae.config.latents_std)
        )
        frames = (latents * std + mean).to(self.vae.dtype)[:, :, None]  # [B, C, 1, h, w]
        image: Tensor = self.vae.decode(frames, return_dict=False)[0][:, :, 0]
        return image.float() / 2 + 0.5

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Returns pixels [B, 3, H, W] in [0, 1] encoded with the VAE and decoded again, in float32."""
        frames = (pixels * 2 - 1).to(device=self.vae.device, dtype=self.vae.dtype)[:, :, None]  # [B, 3, 1, H, W]
        latents = self.vae.encode(frames).latent_dist.mode()
        image: Tensor = self.vae.decode(latents, return_dict=False)[0][:, :, 0]
        return image.float() / 2 + 0.5
