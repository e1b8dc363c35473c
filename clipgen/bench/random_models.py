"""Diffusers pipelines with the shapes of SD 1.5, SDXL and Flux 1 dev and with random weights, to measure speed.

The speed of dense arithmetic does not depend on the values of the weights, so nothing has to be downloaded. With `tiny`
the networks have the same classes and little of everything.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

SEED = 0
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
CLIP_TINY = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
CLIP_B = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
T5_TINY = {"d_model": 32, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
T5_XXL = {"d_model": 4096, "d_ff": 10_240, "d_kv": 64, "num_layers": 24, "num_heads": 64, "vocab_size": 32_128}
CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"


@dataclass(frozen=True)
class RandomModel:
    """A shape: its name, a function (tiny) -> pipeline, the image size in pixels, and the scale of guidance.

    `dtype` is the one that clipgen chooses on a CUDA card.
    """

    name: str
    build: Callable[[bool], Any]
    size: int
    guidance_scale: float
    dtype: torch.dtype


@contextmanager
def on_device(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Makes the networks that are built inside on this device and in this dtype, always with the same weights."""
    before = torch.get_default_dtype()
    torch.manual_seed(SEED)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def clip_tokenizer() -> Any:
    """Returns a CLIP tokenizer of the byte characters."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=77)


def t5_tokenizer() -> Any:
    """Returns a T5 tokenizer of letters and digits."""
    from transformers import T5TokenizerFast

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    vocab = special + [(letter, -3.0) for letter in string.ascii_letters + string.digits]
    return T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=512)


def _text_config(sizes: Mapping[str, int]) -> dict[str, Any]:
    words = clip_tokenizer()
    return {
        **sizes,
        "vocab_size": len(words),
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
        "projection_dim": sizes["hidden_size"],
    }


def clip_text(sizes: Mapping[str, int], *, projected: bool = False) -> Any:
    """Returns a CLIP text encoder; that of SDXL's second one has a projection."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    network = CLIPTextModelWithProjection if projected else CLIPTextModel
    return network(CLIPTextConfig(**_text_config(sizes))).eval()


def clip(*, tiny: bool) -> Any:
    """Returns a CLIP with the shape of ViT-B/32, which guides."""
    from transformers import CLIPConfig, CLIPModel

    text, vision = (CLIP_TINY, CLIP_TINY) if tiny else (CLIP_B, CLIP_L)
    image = {"image_size": 32, "patch_size": 8} if tiny else {"image_size": 224, "patch_size": 32}
    config = CLIPConfig(
        text_config=_text_config(text), vision_config={**vision, **image}, projection_dim=text["hidden_size"]
    )
    return CLIPModel(config).eval()


def vae(channels: int, tiny: bool, **options: Any) -> Any:
    """Returns an AutoencoderKL of factor 8; `options` are its scaling and shift."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8) if tiny else (128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1 if tiny else 2,
        latent_channels=channels,
        norm_num_groups=4 if tiny else 32,
        force_upcast=False,
        **options,
    ).eval()


def sd15(tiny: bool) -> Any:
    """Returns a StableDiffusionPipeline with the shape of SD 1.5."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8 if tiny else 64,
        block_out_channels=(8, 16) if tiny else (320, 640, 1280, 1280),
        down_block_types=(CROSS, PLAIN) if tiny else (CROSS, CROSS, CROSS, PLAIN),
        up_block_types=(PLAIN_UP, CROSS_UP) if tiny else (PLAIN_UP, CROSS_UP, CROSS_UP, CROSS_UP),
        cross_attention_dim=32 if tiny else 768,
        attention_head_dim=4 if tiny else 8,
        norm_num_groups=8 if tiny else 32,
        layers_per_block=1 if tiny else 2,
    ).eval()
    return StableDiffusionPipeline(
        vae=vae(4, tiny),
        text_encoder=clip_text(CLIP_TINY if tiny else CLIP_L),
        tokenizer=clip_tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(tiny: bool) -> Any:
    """Returns a StableDiffusionXLPipeline with the shape of SDXL base."""
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    width, pooled, time_dim = (64, 32, 8) if tiny else (2048, 1280, 256)
    unet = UNet2DConditionModel(
        sample_size=8 if tiny else 128,
        block_out_channels=(8, 16) if tiny else (320, 640, 1280),
        down_block_types=(PLAIN, CROSS) if tiny else (PLAIN, CROSS, CROSS),
        up_block_types=(CROSS_UP, PLAIN_UP) if tiny else (CROSS_UP, CROSS_UP, PLAIN_UP),
        cross_attention_dim=width,
        attention_head_dim=(2, 4) if tiny else (5, 10, 20),
        transformer_layers_per_block=1 if tiny else (1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=time_dim,
        projection_class_embeddings_input_dim=6 * time_dim + pooled,
        norm_num_groups=8 if tiny else 32,
        layers_per_block=1 if tiny else 2,
    ).eval()
    return StableDiffusionXLPipeline(
        vae=vae(4, tiny, scaling_factor=0.13025),
        text_encoder=clip_text(CLIP_TINY if tiny else CLIP_L),
        text_encoder_2=clip_text(CLIP_TINY if tiny else CLIP_G, projected=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False),
        add_watermarker=False,
    )


def flux(tiny: bool) -> Any:
    """Returns a FluxPipeline with the shape of Flux 1 dev."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    t5, text = (T5_TINY, CLIP_TINY) if tiny else (T5_XXL, CLIP_L)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16 if tiny else 64,
        num_layers=1 if tiny else 19,
        num_single_layers=1 if tiny else 38,
        attention_head_dim=16 if tiny else 128,
        num_attention_heads=2 if tiny else 24,
        joint_attention_dim=t5["d_model"],
        pooled_projection_dim=text["hidden_size"],
        axes_dims_rope=(4, 4, 8) if tiny else (16, 56, 56),
        guidance_embeds=True,
    ).eval()
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae(4 if tiny else 16, tiny, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=clip_text(text),
        tokenizer=clip_tokenizer(),
        text_encoder_2=T5EncoderModel(T5Config(**t5, **ids, feed_forward_proj="gated-gelu")).eval(),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    )


MODELS = (
    RandomModel("SD 1.5", sd15, 512, 7.5, torch.float16),
    RandomModel("SDXL", sdxl, 1024, 5.0, torch.float16),
    RandomModel("Flux", flux, 1024, 3.5, torch.bfloat16),
)
