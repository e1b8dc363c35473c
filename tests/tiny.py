"""Builds tiny networks of the real classes with random weights, and saves them as diffusers model folders."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
ZERO_TERMINAL = {
    **BETAS,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


def tokenizer(length: int = 77) -> Any:
    """A CLIP tokenizer of 514 entries: the byte characters, with and without end-of-word suffix, 2 special tokens."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length)


def _tower(words: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": words.model_max_length,
        "projection_dim": 32,
        "hidden_act": "gelu",
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }


def text_encoder(words: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    return CLIPTextModel(CLIPTextConfig(**_tower(words))).eval()


def text_encoder_projected(words: Any) -> Any:
    """A CLIP text encoder with its projection, as in SDXL and SD3, with other weights than `text_encoder`."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(1)
    return CLIPTextModelWithProjection(CLIPTextConfig(**_tower(words))).eval()


def t5_tokenizer(length: int = 32) -> Any:
    """A T5 tokenizer of letters, digits and a few signs."""
    from transformers import T5TokenizerFast

    letters = string.ascii_letters + string.digits + ",.!?'"
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    vocab = special + [(letter, -3.0) for letter in letters]
    return T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=length)


def t5(width: int) -> Any:
    """A T5 encoder of hidden size `width` with the gated feed-forward of T5 v1.1."""
    from transformers import T5Config, T5EncoderModel

    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sizes = {"vocab_size": 100, "d_model": width, "d_ff": 37, "d_kv": 8, "num_layers": 2, "num_heads": 4}
    torch.manual_seed(0)
    return T5EncoderModel(T5Config(**sizes, **ids, feed_forward_proj="gated-gelu")).eval()


def clip(words: Any) -> Any:
    from transformers import CLIPConfig, CLIPModel

    vision = {key: value for key, value in _tower(words).items() if "token" not in key and key != "vocab_size"}
    del vision["max_position_embeddings"]
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=_tower(words), vision_config={**vision, "image_size": 32, "patch_size": 8}, projection_dim=32
    )
    return CLIPModel(config).eval()


def unet(channels: int = 4, guidance_dim: int | None = None) -> Any:
    """The UNet of SD 1; with `guidance_dim` that of a latent consistency model."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=32,
        time_cond_proj_dim=guidance_dim,
    ).eval()


def vae_kl() -> Any:
    """A VAE of factor 2: 32 x 32 pixels are 16 x 16 latents of 4 channels."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    ).eval()


def unet_xl() -> Any:
    """The UNet of SDXL: conditioned also on the pooled prompt and the image size."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 1),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 32,
        norm_num_groups=32,
    ).eval()


def transformer_sd3() -> Any:
    """The transformer of SD3, with patches of 2 x 2 and position embeddings for 24 x 24 of them."""
    from diffusers import SD3Transformer2DModel

    torch.manual_seed(0)
    return SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=24,
    ).eval()


def transformer_flux(guidance: bool) -> Any:
    """The transformer of Flux dev, or of schnell if `guidance` is false."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance,
    ).eval()


def vae_shifted(levels: int) -> Any:
    """A VAE of factor 2^(levels - 1) whose latents are scaled and shifted, as SD3's and Flux's are."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def vae_tiny() -> Any:
    """An AutoencoderTiny of factor 8 with 8 latent channels, as a storybook model may have."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        latent_channels=8,
    ).eval()


def save(folder: Path, words: Any, network: Any, vae: Any, scheduler: Any, settings: dict[str, Any]) -> Path:
    """Saves a StableDiffusionPipeline folder with a `clipgen.json` of its default settings."""
    from diffusers import StableDiffusionPipeline

    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder(words),
        tokenizer=words,
        unet=network,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    (folder / "clipgen.json").write_text(json.dumps({"settings": settings}), "utf-8")
    return folder


def save_epsilon(folder: Path) -> Path:
    """Saves a model like SD 1: epsilon, AutoencoderKL, DPM++ 2M Karras, no CLIP; 64 x 64 pixels by default."""
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(**BETAS, use_karras_sigmas=True)
    return save(folder, tokenizer(), unet(), vae_kl(), scheduler, {"steps": 4, "width": 64, "height": 64})


def save_lcm(folder: Path) -> Path:
    """Saves a latent consistency model: the guidance scale is an input of the UNet."""
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

    words = tokenizer()
    LatentConsistencyModelPipeline(
        vae=vae_kl(),
        text_encoder=text_encoder(words),
        tokenizer=words,
        unet=unet(guidance_dim=15),
        scheduler=LCMScheduler(**{key: value for key, value in BETAS.items() if key != "steps_offset"}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def save_v(folder: Path) -> Path:
    """Saves a model like storybook: v, zero terminal SNR, 8 latent channels, 32 tokens, and a CLIP."""
    from diffusers import DDIMScheduler

    words = tokenizer(32)
    defaults = {"steps": 4, "guidance_scale": 4.0, "scheduler": "ddim", "width": 128, "height": 128}
    save(folder, words, unet(8), vae_tiny(), DDIMScheduler(**ZERO_TERMINAL), defaults)
    clip(words).save_pretrained(folder / "clip")
    processor = {
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "CLIPImageProcessor",
        "resample": 3,
        "size": {"shortest_edge": 32},
    }
    (folder / "clip" / "preprocessor_config.json").write_text(json.dumps(processor), "utf-8")
    return folder


def save_xl(folder: Path) -> Path:
    """Saves a model like SDXL: epsilon, Euler with leading steps, an empty negative prompt that is zeros."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    words = tokenizer()
    StableDiffusionXLPipeline(
        vae=vae_kl(),
        text_encoder=text_encoder(words),
        text_encoder_2=text_encoder_projected(words),
        tokenizer=words,
        tokenizer_2=words,
        unet=unet_xl(),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def save_sd3(folder: Path, *, with_t5: bool = True) -> Path:
    """Saves a model like SD3: flow matching with shift 3, factor 4, patches of 2; T5 has the width of both CLIPs."""
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    words = tokenizer()
    StableDiffusion3Pipeline(
        transformer=transformer_sd3(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae_shifted(3),
        text_encoder=text_encoder_projected(words),
        tokenizer=words,
        text_encoder_2=text_encoder_projected(words),
        tokenizer_2=words,
        text_encoder_3=t5(64) if with_t5 else None,
        tokenizer_3=t5_tokenizer() if with_t5 else None,
    ).save_pretrained(folder)
    return folder


def save_flux(folder: Path, *, guidance: bool = True) -> Path:
    """Saves a model like Flux dev, or schnell if `guidance` is false: factor 8, patches of 2, 32 T5 tokens."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    words = tokenizer()
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if guidance else 1.0, use_dynamic_shifting=guidance),
        vae=vae_shifted(4),
        text_encoder=text_encoder(words),
        tokenizer=words,
        text_encoder_2=t5(32),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer_flux(guidance),
    ).save_pretrained(folder)
    return folder


def transformer_chroma() -> Any:
    """The transformer of Chroma: Flux's without CLIP and guidance, modulated by a small network."""
    from diffusers import ChromaTransformer2DModel

    torch.manual_seed(0)
    return ChromaTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=8,
        approximator_hidden_dim=32,
        approximator_layers=1,
    ).eval()


def save_chroma(folder: Path) -> Path:
    """Saves a model like Chroma: factor 8, patches of 2, 32 T5 tokens."""
    from diffusers import ChromaPipeline, FlowMatchEulerDiscreteScheduler

    ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae_shifted(4),
        text_encoder=t5(32),
        tokenizer=t5_tokenizer(),
        transformer=transformer_chroma(),
    ).save_pretrained(folder)
    return folder


QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def qwen_tokenizer() -> Any:
    """A Qwen tokenizer of 261 entries, the bytes and 5 special tokens, with the chat template of Qwen3."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    vocab = {word: index for index, word in enumerate([*sorted(ByteLevel.alphabet()), *special])}
    words = Qwen2Tokenizer(vocab=vocab, merges=[], model_max_length=131072, extra_special_tokens=special[1:])
    words.chat_template = QWEN_CHAT
    return words


def _qwen_sizes(words: Any, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(words),
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "bos_token_id": words.pad_token_id,
        "eos_token_id": words.pad_token_id,
    }


def qwen3(words: Any, layers: int = 3) -> Any:
    """A Qwen3 of hidden size 16 with tied embeddings."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(**_qwen_sizes(words, layers), head_dim=8, tie_word_embeddings=True)
    return Qwen3ForCausalLM(config).eval()


def qwen_vl(words: Any) -> Any:
    """A Qwen2.5-VL of hidden size 16 with its vision tower, which no prompt uses."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    rope = {"rope_type": "default", "type": "mrope", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(text_config={**_qwen_sizes(words, 2), "rope_parameters": rope}, vision_config=vision)
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def save_qwen_image(folder: Path) -> Path:
    """Saves a model like Qwen-Image: factor 8, patches of 2, a shift that ends at 0.02."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )

    words = qwen_tokenizer()
    torch.manual_seed(0)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[-0.5, 0.1, 0.2, 0.0],
        latents_std=[2.0, 1.5, 1.0, 0.5],
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )
    QwenImagePipeline(
        scheduler=scheduler,
        vae=vae.eval(),
        text_encoder=qwen_vl(words),
        tokenizer=words,
        transformer=transformer.eval(),
    ).save_pretrained(folder)
    return folder


def save_z_image(folder: Path) -> Path:
    """Saves a model like Z-Image: factor 8, patches of 2, shift 6."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel

    words = qwen_tokenizer()
    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[512, 64, 64],
    )
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae_shifted(4),
        text_encoder=qwen3(words),
        tokenizer=words,
        transformer=transformer.eval(),
    ).save_pretrained(folder)
    return folder


def save_flux_2_klein(folder: Path, *, distilled: bool = True) -> Path:
    """Saves a model like FLUX.2 [klein]: factor 8, patches of 2, latents normalised by a batch norm."""
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )

    words = qwen_tokenizer()
    torch.manual_seed(0)
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    vae = AutoencoderKLFlux2(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=vae.eval(),
        text_encoder=qwen3(words, layers=28),
        tokenizer=words,
        transformer=transformer.eval(),
        is_distilled=distilled,
    ).save_pretrained(folder)
    return folder


def save_varying(folder: Path) -> Path:
    """Saves the model like storybook with a CoCa, so that it can make variations."""
    save_v(folder)
    coca(tokenizer(32)).save_pretrained(folder / "coca")
    return folder


def coca(words: Any, states: int = 32) -> Any:
    """A CoCa for the patch states of `clip`."""
    from transformers import GPT2Config

    from clipgen.captioning.coca import Coca, CocaConfig

    torch.manual_seed(0)
    decoder = GPT2Config(
        vocab_size=len(words),
        n_positions=34,
        n_embd=32,
        n_layer=1,
        n_head=4,
        add_cross_attention=True,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    model = Coca(CocaConfig(states=states, queries=4, decoder=decoder)).eval()
    with torch.no_grad():
        model.decoder.transformer.h[0].crossattention.c_proj.weight.mul_(40)  # otherwise all inputs give the same text
    return model


def unet_unclip() -> Any:
    """The UNet of Stable unCLIP: conditioned on an image embedding [B, 32] and a noise level embedding [B, 32]."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=(2, 4),
        class_embed_type="projection",
        projection_class_embeddings_input_dim=64,
        use_linear_projection=True,
    ).eval()


def vision_encoder() -> Any:
    """The vision tower of a CLIP with its projection."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=32,
        hidden_act="gelu",
    )
    return CLIPVisionModelWithProjection(config).eval()


def save_unclip(folder: Path) -> Path:
    """Saves a model like Stable unCLIP: v, DDIM, a normaliser, a noise schedule for the embedding."""
    from diffusers import DDIMScheduler, DDPMScheduler, StableUnCLIPImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer
    from transformers import CLIPImageProcessorPil

    words, normalizer = tokenizer(), StableUnCLIPImageNormalizer(embedding_dim=32)
    torch.manual_seed(0)
    normalizer.mean.data.normal_()
    normalizer.std.data.uniform_(0.5, 2)
    StableUnCLIPImg2ImgPipeline(
        feature_extractor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        image_encoder=vision_encoder(),
        image_normalizer=normalizer,
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=words,
        text_encoder=text_encoder(words),
        unet=unet_unclip(),
        scheduler=DDIMScheduler(**BETAS, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False),
        vae=vae_kl(),
    ).save_pretrained(folder)
    return folder


def unet_kandinsky() -> Any:
    """The UNet of Kandinsky 2.2: conditioned on an image embedding [B, 32]; predicts noise and variance."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=8,
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(32, 64),
        layers_per_block=1,
        encoder_hid_dim=32,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=32,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type=None,
    ).eval()


def movq() -> Any:
    """The autoencoder of Kandinsky: its decoder has spatial norms conditioned on the latents."""
    from diffusers import VQModel

    torch.manual_seed(0)
    return VQModel(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        layers_per_block=1,
        norm_type="spatial",
        num_vq_embeddings=12,
        latent_channels=4,
        vq_embed_dim=4,
    ).eval()


def save_kandinsky(folder: Path) -> Path:
    """Saves a model like Kandinsky 2.2, prior and decoder in one folder; factor 2."""
    from diffusers import DDIMScheduler, KandinskyV22CombinedPipeline, PriorTransformer, UnCLIPScheduler
    from transformers import CLIPImageProcessorPil

    words = tokenizer()
    torch.manual_seed(0)
    KandinskyV22CombinedPipeline(
        unet=unet_kandinsky(),
        scheduler=DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False),
        movq=movq(),
        prior_prior=PriorTransformer(num_attention_heads=2, attention_head_dim=12, embedding_dim=32, num_layers=1),
        prior_image_encoder=vision_encoder(),
        prior_text_encoder=text_encoder_projected(words),
        prior_tokenizer=words,
        prior_scheduler=UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample"),
        prior_image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    ).save_pretrained(folder)
    return folder
