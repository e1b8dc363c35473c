"""Builds diffusers pipelines with tiny networks of random weights: PIPELINES, by class name.

Most pipelines take `prompt_embeds`, so the large text encoders of this year's models are left out.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import tiny
import torch
from PIL import Image

PROMPT = "a fox in snow"
SIZE = 64  # of the images, in pixels
TOKENS, WIDTH = 8, 32  # of prompt_embeds [1, TOKENS, WIDTH]
Components = dict[str, Any]
Builder = Callable[[], tuple[Components, dict[str, Any]]]  # components of __init__, arguments of __call__
PIPELINES: dict[str, Builder] = {}


def embeds(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))


def picture(mode: str = "RGB", colour: Any = "teal", side: int = SIZE) -> Image.Image:
    return Image.new(mode, (side, side), colour)


def random_init(network: Any) -> Any:
    """Returns a network in eval mode whose zero-initialised layers are random too: else some outputs are constant."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in network.named_parameters():
        if weight.numel() > 1 and float(weight.detach().abs().max()) == 0 and "bias" not in name:
            weight.data = 0.05 * torch.randn(weight.shape, generator=generator)
    return network.eval()


def make(class_name: str, **sizes: Any) -> Any:
    """Returns a network of diffusers with these sizes and seed 0."""
    import diffusers

    torch.manual_seed(0)
    return random_init(getattr(diffusers, class_name)(**sizes))


def common_arguments(steps: int = 3) -> dict[str, Any]:
    """Values for arguments of a pipeline's call by name; each pipeline gets those that it takes."""
    return {
        "prompt": None,
        "negative_prompt": None,
        "prompt_embeds": embeds(TOKENS, WIDTH),
        "negative_prompt_embeds": embeds(TOKENS, WIDTH, seed=1),
        "pooled_prompt_embeds": embeds(WIDTH),
        "negative_pooled_prompt_embeds": embeds(WIDTH, seed=1),
        "prompt_attention_mask": torch.ones(1, TOKENS),
        "negative_prompt_attention_mask": torch.ones(1, TOKENS),
        "prompt_embeds_mask": torch.ones(1, TOKENS, dtype=torch.long),
        "negative_prompt_embeds_mask": torch.ones(1, TOKENS, dtype=torch.long),
        "image": picture(),
        "mask_image": picture("L", 255),
        "control_image": picture(),
        "control_mask": picture("L", 255),
        "strength": 0.99,
        "height": SIZE,
        "width": SIZE,
        "num_inference_steps": steps,
        "guidance_scale": 4.0,
        "true_cfg_scale": 4.0,
        "clean_caption": False,
        "use_resolution_binning": False,
        "output_type": "pt",
    }


def build(name: str, steps: int = 3) -> tuple[Any, Callable[[], torch.Tensor]]:
    """Returns the pipeline of that class, and a function that generates one image with it, [1, 3, H, W] in [0, 1]."""
    import diffusers

    components, own = PIPELINES[name]()
    pipeline_class = getattr(diffusers, name)
    accepted = inspect.signature(pipeline_class.__init__).parameters
    required = [key for key, value in accepted.items() if value.default is value.empty and key != "self"]
    defaults = {"requires_safety_checker": False, "add_watermarker": False}
    values = dict.fromkeys(required) | {key: value for key, value in defaults.items() if key in accepted}
    pipe = pipeline_class(**values | {key: value for key, value in components.items() if key in accepted})
    if name.startswith("QwenImageEdit"):  # they resize every image to a million pixels
        size = (SIZE, SIZE) if "Plus" in name else (SIZE, SIZE, None)
        vars(sys.modules[pipeline_class.__module__])["calculate_dimensions"] = lambda area, ratio: size
    pipe.set_progress_bar_config(disable=True)
    takes = inspect.signature(pipeline_class.__call__).parameters
    arguments = {key: value for key, value in (common_arguments(steps) | own).items() if key in takes}
    if own.get("prompt") is not None:
        arguments = {key: value for key, value in arguments.items() if key in own or "prompt" not in key}

    def draw() -> torch.Tensor:
        inputs = dict(arguments)
        if "generator" in takes:
            inputs["generator"] = torch.Generator().manual_seed(3)
        torch.manual_seed(3)
        output = pipe(**inputs)
        images = output["images"] if "images" in output else output["image"] if "image" in output else output[0]
        images = (
            torch.as_tensor(images)
            if not isinstance(images, list)
            else torch.stack([torch.as_tensor(i) for i in images])
        )
        images = images.float() if images.shape[-3] in (1, 3, 4, 6) else images.movedim(-1, -3).float()
        return images.reshape(-1, *images.shape[-3:])[:, :3]

    return pipe, draw


def add(names: str, builder: Callable[[str], tuple[Components, dict[str, Any]]]) -> None:
    """Adds pipelines, names separated by spaces, whose components `builder` makes from the name."""
    for name in names.split():
        PIPELINES[name] = cache(lambda name=name: builder(name))


# Stable Diffusion


def unet(**changes: Any) -> Any:
    sizes: dict[str, Any] = {
        "sample_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 8,
        "norm_num_groups": 32,
    }
    return make("UNet2DConditionModel", **sizes | changes)


def control_net(class_name: str = "ControlNetModel", **changes: Any) -> Any:
    sizes: dict[str, Any] = {
        "in_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 8,
        "conditioning_embedding_out_channels": (16, 32),
    }
    return make(class_name, **sizes | changes)


def image_processor() -> Any:
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def stable_diffusion(name: str) -> tuple[Components, dict[str, Any]]:
    from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, LCMScheduler

    words = tiny.tokenizer()
    components: Components = {
        "vae": tiny.vae_kl(),
        "text_encoder": tiny.text_encoder(words),
        "tokenizer": words,
        "unet": unet(),
        "scheduler": DDIMScheduler(**tiny.BETAS, clip_sample=False, set_alpha_to_one=False),
    }
    call: dict[str, Any] = {"prompt": PROMPT}
    if "Upscale" in name and "Latent" not in name:
        components |= {"unet": unet(in_channels=7, num_class_embeds=1000), "low_res_scheduler": DDPMScheduler()}
        call |= {"image": picture(side=32)}
    elif "LatentUpscale" in name:
        components |= {
            "unet": make(
                "UNet2DConditionModel", act_fn="gelu", attention_head_dim=8, norm_num_groups=None,
                block_out_channels=[32, 32, 64, 64], time_cond_proj_dim=160, conv_in_kernel=1, conv_out_kernel=1,
                cross_attention_dim=32, down_block_types=("KDownBlock2D", *["KCrossAttnDownBlock2D"] * 3),
                in_channels=8, mid_block_type=None, only_cross_attention=False, out_channels=5,
                resnet_time_scale_shift="scale_shift", time_embedding_type="fourier", timestep_post_act="gelu",
                up_block_types=(*["KCrossAttnUpBlock2D"] * 3, "KUpBlock2D"), sample_size=None, layers_per_block=1,
            ),
            "scheduler": EulerDiscreteScheduler(prediction_type="sample"),
        }  # fmt: skip
        call |= {"image": picture(side=32)}
    elif "Pix2Pix" in name:
        components["unet"] = unet(in_channels=8)
    elif "Depth2Img" in name:
        components["unet"] = unet(in_channels=5)
        call["depth_map"] = torch.rand(1, SIZE, SIZE)
    elif "ImageVariation" in name:
        components |= {"image_encoder": tiny.vision_encoder(), "feature_extractor": image_processor()}
    elif "LatentConsistency" in name:
        components |= {"unet": unet(time_cond_proj_dim=32), "scheduler": LCMScheduler(**tiny.BETAS)}
    elif "GLIGEN" in name:
        components["unet"] = unet(attention_type="gated", cross_attention_dim=32)
        call |= {"gligen_phrases": ["a fox"], "gligen_boxes": [[0.1, 0.1, 0.6, 0.6]]}
    elif "PaintByExample" in name:
        from diffusers.pipelines.deprecated.paint_by_example import PaintByExampleImageEncoder
        from transformers import CLIPVisionConfig

        config = CLIPVisionConfig(
            hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4, image_size=32,
            patch_size=8, projection_dim=32,
        )  # fmt: skip
        components |= {
            "unet": unet(in_channels=9),
            "image_encoder": PaintByExampleImageEncoder(config, proj_size=32).eval(),
            "feature_extractor": image_processor(),
        }
        call = {"example_image": picture(colour="orange")}
    elif "ControlNet" in name:
        components["controlnet"] = control_net()
    elif "Adapter" in name:
        components["unet"] = unet(
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")
        )
        components["adapter"] = make("T2IAdapter", channels=[32, 64], num_res_blocks=1, downscale_factor=2)
    if "UnCLIP" in name:
        from diffusers import PriorTransformer
        from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

        components |= {
            "unet": tiny.unet_unclip(),
            "image_normalizer": StableUnCLIPImageNormalizer(embedding_dim=32),
            "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
            "image_encoder": tiny.vision_encoder(),
            "feature_extractor": image_processor(),
            "prior": PriorTransformer(num_attention_heads=2, attention_head_dim=12, embedding_dim=32, num_layers=1),
            "prior_scheduler": DDPMScheduler(
                variance_type="fixed_small_log", prediction_type="sample", num_train_timesteps=1000
            ),
            "prior_tokenizer": words,
            "prior_text_encoder": tiny.text_encoder_projected(words),
        }
        call |= {"prior_num_inference_steps": 2}
    if "AttendAndExcite" in name:
        call |= {"token_indices": [2], "max_iter_to_alter": 0}
    if "SafeP" in name or name.endswith("Safe"):
        call |= {"sld_guidance_scale": 0}
    if "DiffEdit" in name:
        from diffusers import DDIMInverseScheduler

        components["inverse_scheduler"] = DDIMInverseScheduler(**tiny.BETAS, clip_sample=False)
        call |= {"image_latents": embeds(2, 4, 32, 32), "mask_image": torch.ones(1, 32, 32).numpy()}
    if "LDM3D" in name:
        components["vae"] = make(
            "AutoencoderKL", in_channels=6, out_channels=6, block_out_channels=(16, 16), norm_num_groups=8,
            down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        )  # fmt: skip
        call |= {"output_type": "np"}
    if "CycleDiffusion" in name:
        call |= {"source_prompt": "a dog", "eta": 0.1}
    return components, call


add(
    """StableDiffusionPipeline StableDiffusionImg2ImgPipeline StableDiffusionInpaintPipeline
    StableDiffusionInstructPix2PixPipeline StableDiffusionUpscalePipeline StableDiffusionLatentUpscalePipeline
    StableDiffusionDepth2ImgPipeline StableDiffusionImageVariationPipeline LatentConsistencyModelPipeline
    LatentConsistencyModelImg2ImgPipeline StableDiffusionControlNetPipeline StableDiffusionControlNetImg2ImgPipeline
    StableDiffusionControlNetInpaintPipeline StableDiffusionAdapterPipeline StableDiffusionPAGPipeline
    StableDiffusionPAGImg2ImgPipeline StableDiffusionPAGInpaintPipeline StableDiffusionControlNetPAGPipeline
    StableDiffusionControlNetPAGInpaintPipeline StableUnCLIPPipeline StableUnCLIPImg2ImgPipeline
    StableDiffusionSAGPipeline StableDiffusionPanoramaPipeline StableDiffusionAttendAndExcitePipeline
    StableDiffusionGLIGENPipeline PaintByExamplePipeline StableDiffusionDiffEditPipeline StableDiffusionLDM3DPipeline
    SemanticStableDiffusionPipeline StableDiffusionPipelineSafe CycleDiffusionPipeline""",
    stable_diffusion,
)


def stable_diffusion_xl(name: str) -> tuple[Components, dict[str, Any]]:
    from diffusers import EulerDiscreteScheduler

    words, is_kolors = tiny.tokenizer(), name.startswith("Kolors")
    pooled = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "cross_attention_dim": 64,
              "projection_class_embeddings_input_dim": 8 * 6 + 32, "attention_head_dim": (2, 4),
              "use_linear_projection": True, "transformer_layers_per_block": (1, 1)}  # fmt: skip
    components: Components = {
        "vae": tiny.vae_kl(),
        "unet": unet(**pooled, in_channels=8 if "Pix2Pix" in name else 4),
        "scheduler": EulerDiscreteScheduler(**tiny.BETAS, timestep_spacing="leading"),
    }
    call: dict[str, Any] = {
        "prompt_embeds": embeds(TOKENS, 64), "negative_prompt_embeds": embeds(TOKENS, 64, seed=1)
    }  # fmt: skip
    if not is_kolors:
        components |= {
            "text_encoder": tiny.text_encoder(words), "text_encoder_2": tiny.text_encoder_projected(words),
            "tokenizer": words, "tokenizer_2": words,
        }  # fmt: skip
        call = {"prompt": PROMPT}
    if "Union" in name:
        components["controlnet"] = control_net(
            "ControlNetUnionModel", **pooled, num_trans_channel=32, num_proj_channel=32, num_trans_head=2
        )
        call |= {"control_mode": [0], "control_image": [picture()]}
    elif "ControlNet" in name:
        components["controlnet"] = control_net(**pooled)
    elif "Adapter" in name:
        components["adapter"] = make(
            "T2IAdapter", channels=[32, 64], num_res_blocks=1, downscale_factor=4, adapter_type="full_adapter_xl"
        )
        components["unet"] = unet(**pooled)
    return components, call


add(
    """StableDiffusionXLPipeline StableDiffusionXLImg2ImgPipeline StableDiffusionXLInpaintPipeline
    StableDiffusionXLInstructPix2PixPipeline StableDiffusionXLControlNetPipeline
    StableDiffusionXLControlNetImg2ImgPipeline StableDiffusionXLControlNetInpaintPipeline
    StableDiffusionXLControlNetUnionPipeline StableDiffusionXLControlNetUnionImg2ImgPipeline
    StableDiffusionXLControlNetUnionInpaintPipeline StableDiffusionXLAdapterPipeline StableDiffusionXLPAGPipeline
    StableDiffusionXLPAGImg2ImgPipeline StableDiffusionXLPAGInpaintPipeline StableDiffusionXLControlNetPAGPipeline
    StableDiffusionXLControlNetPAGImg2ImgPipeline KolorsPipeline
    KolorsImg2ImgPipeline KolorsPAGPipeline""",
    stable_diffusion_xl,
)


# Transformers on the VAE of Stable Diffusion 3 or Flux


def flow_scheduler(**options: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**options)


def vae_shifted(channels: int) -> Any:
    """Returns the VAE of tiny.vae_shifted(3) with another number of latent channels."""
    sizes = {key: value for key, value in tiny.vae_shifted(3).config.items() if not key.startswith("_")}
    return make("AutoencoderKL", **sizes | {"latent_channels": channels})


def stable_diffusion_3(name: str) -> tuple[Components, dict[str, Any]]:
    channels = 16 if name == "StableDiffusion3InpaintPipeline" else 4  # it checks that there are 16
    sizes = {"sample_size": 32, "patch_size": 2, "in_channels": channels, "num_layers": 2, "attention_head_dim": 8,
             "num_attention_heads": 4, "joint_attention_dim": 32, "caption_projection_dim": 32,
             "pooled_projection_dim": 32, "out_channels": channels, "pos_embed_max_size": 32}  # fmt: skip
    components = {
        "transformer": make("SD3Transformer2DModel", **sizes),
        "scheduler": flow_scheduler(shift=3.0),
        "vae": vae_shifted(channels),
        "controlnet": make("SD3ControlNetModel", **sizes | {"num_layers": 1}),
    }
    if "ControlNetInpainting" in name:
        components["controlnet"] = make(
            "SD3ControlNetModel", **sizes | {"num_layers": 1, "extra_conditioning_channels": 1}
        )
    return components, {"control_mask": picture("L", 255)}


add(
    """StableDiffusion3Pipeline StableDiffusion3Img2ImgPipeline StableDiffusion3InpaintPipeline
    StableDiffusion3ControlNetPipeline StableDiffusion3ControlNetInpaintingPipeline StableDiffusion3PAGPipeline
    StableDiffusion3PAGImg2ImgPipeline""",
    stable_diffusion_3,
)


def flux(name: str) -> tuple[Components, dict[str, Any]]:
    channels = 16
    inputs = {"FluxFillPipeline": 16 + 16 + 16 * 4}.get(
        name, 32 if "FluxControlP" in name or "FluxControlI" in name else 16
    )
    if name == "FluxFillPipeline":
        inputs = 16 + 16 + 8 * 8 * 4  # latents, masked image, mask of 8 x 8 pixels per latent
    sizes = {"patch_size": 1, "in_channels": inputs, "out_channels": channels, "num_layers": 1, "num_single_layers": 1,
             "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 32,
             "pooled_projection_dim": 32, "axes_dims_rope": (4, 4, 8), "guidance_embeds": True}  # fmt: skip
    components = {
        "transformer": make("FluxTransformer2DModel", **sizes),
        "scheduler": flow_scheduler(use_dynamic_shifting=True),
        "vae": tiny.vae_shifted(4),
        "controlnet": make(
            "FluxControlNetModel", **{k: v for k, v in sizes.items() if k != "out_channels"} | {"in_channels": 16}
        ),
    }
    return components, {"max_area": SIZE * SIZE, "_auto_resize": False, "max_sequence_length": 32}


add(
    """FluxPipeline FluxImg2ImgPipeline FluxInpaintPipeline FluxFillPipeline FluxKontextPipeline
    FluxKontextInpaintPipeline FluxControlPipeline FluxControlImg2ImgPipeline FluxControlInpaintPipeline
    FluxControlNetPipeline FluxControlNetImg2ImgPipeline FluxControlNetInpaintPipeline""",
    flux,
)


def flux_like(name: str) -> tuple[Components, dict[str, Any]]:
    """Chroma, Bria and Ovis: tokens of 2 x 2 latents, as Flux."""
    sizes: dict[str, Any] = {"patch_size": 1, "in_channels": 16, "num_layers": 1, "num_single_layers": 1,
             "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 32,
             "axes_dims_rope": (4, 4, 8)}  # fmt: skip
    call: dict[str, Any] = {}
    if name.startswith("Chroma"):
        network = make("ChromaTransformer2DModel", **sizes, approximator_num_channels=64, approximator_hidden_dim=32,
                       approximator_layers=1)  # fmt: skip
        call = {
            name: torch.ones(1, TOKENS, dtype=torch.bool)
            for name in ("prompt_attention_mask", "negative_prompt_attention_mask")
        }
    elif name.startswith("Bria"):
        network = make("BriaTransformer2DModel", **sizes)
    else:
        network = make("OvisImageTransformer2DModel", **sizes, out_channels=16)
    components = {
        "transformer": network,
        "scheduler": flow_scheduler(use_dynamic_shifting=not name.startswith("Chroma")),
        "vae": tiny.vae_shifted(4),
    }
    return components, call


add(
    "ChromaPipeline ChromaImg2ImgPipeline BriaPipeline OvisImagePipeline",
    flux_like,
)


def flux_2(name: str) -> tuple[Components, dict[str, Any]]:
    vae = make(
        "AutoencoderKLFlux2", block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        sample_size=32,
    )  # fmt: skip
    vae.bn.running_mean.uniform_(-1, 1)
    vae.bn.running_var.uniform_(0.5, 2)
    components: Components = {"vae": vae, "scheduler": flow_scheduler(use_dynamic_shifting=True)}
    if name.startswith("Ernie"):
        components["transformer"] = make(
            "ErnieImageTransformer2DModel", hidden_size=32, num_attention_heads=2, num_layers=1, ffn_hidden_size=32,
            in_channels=16, out_channels=16, text_in_dim=32, rope_axes_dim=(4, 4, 8),
        )  # fmt: skip
        components["scheduler"] = flow_scheduler(shift=3.0)
        return components, {
            "prompt_embeds": [embeds(TOKENS, WIDTH)[0]], "negative_prompt_embeds": [embeds(TOKENS, WIDTH, seed=1)[0]],
            "use_pe": False,
        }  # fmt: skip
    components["transformer"] = make(
        "Flux2Transformer2DModel", in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds="Klein" not in name,
    )  # fmt: skip
    return components, {"image": picture() if "Inpaint" in name else None}


add("Flux2Pipeline Flux2KleinPipeline Flux2KleinInpaintPipeline Flux2KleinKVPipeline ErnieImagePipeline", flux_2)


# Transformers on video VAEs of one frame


def vae_normalised(class_name: str, **changes: Any) -> Any:
    sizes: dict[str, Any] = {
        "base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1,
        "temperal_downsample": [False, True, True], "latents_mean": [0.1, -0.2, 0.3, -0.4],
        "latents_std": [1.5, 0.7, 1.2, 0.9],
    }  # fmt: skip
    return make(class_name, **sizes | changes)


def qwen_image(name: str) -> tuple[Components, dict[str, Any]]:
    sizes = {"patch_size": 2, "in_channels": 16, "out_channels": 4, "num_layers": 1, "attention_head_dim": 16,
             "num_attention_heads": 2, "joint_attention_dim": 32, "axes_dims_rope": (4, 4, 8)}  # fmt: skip
    components = {
        "transformer": make("QwenImageTransformer2DModel", **sizes),
        "vae": vae_normalised("AutoencoderKLQwenImage"),
        "scheduler": flow_scheduler(use_dynamic_shifting=True),
        "controlnet": make(
            "QwenImageControlNetModel", **sizes | ({"extra_condition_channels": 4} if "Inpaint" in name else {})
        ),
    }
    call: dict[str, Any] = {}
    if "21" in name:
        components |= {
            "vae": vae_normalised("AutoencoderKLQwenImage21", decoder_base_dim=8, is_residual=False),
            "transformer": make(
                "QwenImage21Transformer2DModel", patch_size=1, in_channels=4, out_channels=4, num_layers=1,
                attention_head_dim=16, num_attention_heads=2, context_in_dim=32, axes_dims_rope=(4, 4, 8),
            ),
        }  # fmt: skip
        components["processor"] = TemplateProcessor()
        call = {"image": None}
    return components, call


class TemplateProcessor:
    """Stands for the processor of a large language model, which the pipeline asks for the length of its template."""

    def __init__(self) -> None:
        self.tokenizer = self

    def apply_chat_template(self, messages: Any, **options: Any) -> list[list[int]]:
        return [[0]]

    def encode(self, text: str) -> list[int]:
        return [0]


add(
    """QwenImagePipeline QwenImageImg2ImgPipeline QwenImageInpaintPipeline QwenImageEditPipeline
    QwenImageEditInpaintPipeline QwenImageEditPlusPipeline QwenImageControlNetPipeline
    QwenImageControlNetInpaintPipeline QwenImage21Pipeline QwenImageLayeredPipeline""",
    qwen_image,
)


def one_frame(name: str) -> tuple[Components, dict[str, Any]]:
    if name.startswith("Cosmos"):
        network = make(
            "CosmosTransformer3DModel", in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16,
            num_layers=1, text_embed_dim=32, adaln_lora_dim=4, max_size=(4, 32, 32), extra_pos_embed_type=None,
            concat_padding_mask=False,
        )  # fmt: skip
        scheduler = flow_scheduler(use_karras_sigmas=True)
        return {
            "transformer": network, "vae": vae_normalised("AutoencoderKLWan"), "scheduler": scheduler,
            "safety_checker": PassingChecker(),
        }, {}  # fmt: skip
    if name.startswith("Krea"):
        network = make(
            "Krea2Transformer2DModel", in_channels=16, num_layers=1, attention_head_dim=16, num_attention_heads=2,
            num_key_value_heads=2, intermediate_size=32, timestep_embed_dim=32, text_hidden_dim=32, num_text_layers=2,
            text_num_attention_heads=2, text_num_key_value_heads=2, text_intermediate_size=32,
            num_layerwise_text_blocks=1, num_refiner_text_blocks=1, axes_dims_rope=(4, 4, 8),
        )  # fmt: skip
        call = {"prompt_embeds": embeds(TOKENS, 2, WIDTH), "negative_prompt_embeds": embeds(TOKENS, 2, WIDTH, seed=1)}
        call |= {
            key: torch.ones(1, TOKENS, dtype=torch.bool)
            for key in ("prompt_embeds_mask", "negative_prompt_embeds_mask")
        }
    else:
        network = make(
            "NucleusMoEImageTransformer2DModel", in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 4, 8), moe_enabled=False,
        )  # fmt: skip
        call = {}
    components = {
        "transformer": network,
        "vae": vae_normalised("AutoencoderKLQwenImage"),
        "scheduler": flow_scheduler(use_dynamic_shifting=True),
    }
    return components, call


class PassingChecker(torch.nn.Module):
    """Stands for the safety checker of Cosmos, a large language model."""

    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, text: str) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video


add("Cosmos2TextToImagePipeline Krea2Pipeline NucleusMoEImagePipeline", one_frame)


# Transformers and UNets on images


def image_transformer(name: str) -> tuple[Components, dict[str, Any]]:
    from diffusers import (
        CogVideoXDDIMScheduler,
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        SCMScheduler,
    )

    components: Components = {"vae": tiny.vae_shifted(4), "scheduler": flow_scheduler()}
    call: dict[str, Any] = {}
    heads = {"attention_head_dim": 16, "num_attention_heads": 2, "num_layers": 1}
    if name.startswith("ZImage"):
        network = make(
            "ZImageTransformer2DModel", in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
            cap_feat_dim=32, axes_dims=[4, 4, 8], axes_lens=[256, 32, 32],
        )  # fmt: skip
        call = {
            "prompt_embeds": [embeds(TOKENS, WIDTH)[0]],
            "negative_prompt_embeds": [embeds(TOKENS, WIDTH, seed=1)[0]],
        }
        if "ControlNet" in name:
            components["controlnet"] = make(
                "ZImageControlNetModel", control_layers_places=[0], control_in_dim=9 if "Inpaint" in name else 4,
                dim=32, n_refiner_layers=1, n_heads=2, n_kv_heads=2, control_refiner_layers_places=[0],
            )  # fmt: skip
    elif name.startswith("Sana"):
        network = make(
            "SanaTransformer2DModel", in_channels=4, out_channels=4, **heads, num_cross_attention_heads=2,
            cross_attention_head_dim=16, cross_attention_dim=32, caption_channels=32, sample_size=8,
            guidance_embeds="Sprint" in name, qk_norm="rms_norm_across_heads" if "Sprint" in name else None,
        )  # fmt: skip
        components["vae"] = make(
            "AutoencoderDC", latent_channels=4, attention_head_dim=2, encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8), encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), ()), decoder_qkv_multiscales=((), ()), scaling_factor=0.41,
        )  # fmt: skip
        components["controlnet"] = make(
            "SanaControlNetModel", in_channels=4, out_channels=4, **heads, num_cross_attention_heads=2,
            cross_attention_head_dim=16, cross_attention_dim=32, caption_channels=32, sample_size=8,
        )  # fmt: skip
        components["scheduler"] = SCMScheduler() if "Sprint" in name else flow_scheduler(shift=3.0)
        call = {"intermediate_timesteps": None, "complex_human_instruction": None}
    elif name.startswith("PixArt"):
        network = make(
            "PixArtTransformer2DModel", in_channels=4, out_channels=8, **heads, cross_attention_dim=32, sample_size=8,
            caption_channels=32, use_additional_conditions=False,
        )  # fmt: skip
        components |= {"scheduler": DPMSolverMultistepScheduler(**tiny.BETAS), "pag_applied_layers": "blocks.0"}
    elif name == "DiTPipeline":
        network = make("DiTTransformer2DModel", in_channels=4, out_channels=8, **heads, sample_size=8,
                       num_embeds_ada_norm=1000)  # fmt: skip
        components["scheduler"] = DDIMScheduler(**tiny.BETAS, clip_sample=False)
        call = {"class_labels": [207], "output_type": "np"}
    elif name.startswith("HunyuanDiT"):
        sizes = {"in_channels": 4, "patch_size": 2, "sample_size": 8, "hidden_size": 32, "attention_head_dim": 16,
                 "num_attention_heads": 2, "cross_attention_dim": 32, "cross_attention_dim_t5": 32,
                 "pooled_projection_dim": 32, "text_len": TOKENS, "text_len_t5": TOKENS}  # fmt: skip
        network = make("HunyuanDiT2DModel", **sizes, num_layers=2)
        components |= {
            "scheduler": DDPMScheduler(**tiny.BETAS, clip_sample=False),
            "controlnet": make("HunyuanDiT2DControlNetModel", **sizes, transformer_num_layers=2),
        }
        call = {
            f"{key}_2": value
            for key, value in common_arguments().items()
            if key.endswith(("embeds", "mask")) and "pooled" not in key
        }
        components["pag_applied_layers"] = "blocks.1"
    elif name == "LuminaPipeline":
        network = make(
            "LuminaNextDiT2DModel", sample_size=8, in_channels=4, hidden_size=32, num_layers=1, num_attention_heads=2,
            num_kv_heads=2, multiple_of=16, cross_attention_dim=32,
        )  # fmt: skip
    elif name == "Lumina2Pipeline":
        network = make(
            "Lumina2Transformer2DModel", sample_size=8, in_channels=4, hidden_size=32, num_layers=1,
            num_refiner_layers=1, num_attention_heads=2, num_kv_heads=2, multiple_of=16, cap_feat_dim=32,
            axes_dim_rope=(4, 4, 8), axes_lens=(64, 32, 32),
        )  # fmt: skip
        masks = ("prompt_attention_mask", "negative_prompt_attention_mask")
        call = dict.fromkeys(masks, torch.ones(1, TOKENS, dtype=torch.long))
    elif name == "AuraFlowPipeline":
        network = make(
            "AuraFlowTransformer2DModel", sample_size=8, num_mmdit_layers=1, num_single_dit_layers=1,
            attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=32,
            pos_embed_max_size=256,
        )  # fmt: skip
    elif name.startswith("CogView"):
        sizes = {"patch_size": 2, "in_channels": 8 if "Control" in name else 4, "out_channels": 4, **heads,
                 "text_embed_dim": 32, "time_embed_dim": 32, "condition_dim": 8, "sample_size": 8}  # fmt: skip
        if name.startswith("CogView3"):
            network = make("CogView3PlusTransformer2DModel", **sizes, pos_embed_max_size=8)
            trailing = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "snr_shift_scale": 4.0}
            components["scheduler"] = CogVideoXDDIMScheduler(prediction_type="v_prediction", **trailing)
        else:
            network = make("CogView4Transformer2DModel", **sizes)
            components["scheduler"] = flow_scheduler(use_dynamic_shifting=True, time_shift_type="linear")
    elif name == "HiDreamImagePipeline":
        network = make(
            "HiDreamImageTransformer2DModel", patch_size=2, in_channels=4, out_channels=4, num_layers=1,
            num_single_layers=1, attention_head_dim=16, num_attention_heads=2, caption_channels=[32, 32],
            text_emb_dim=32, num_routed_experts=2, num_activated_experts=1, axes_dims_rope=(8, 4, 4),
            max_resolution=(32, 32), llama_layers=[0, 0], force_inference_output=True,
        )  # fmt: skip
        call = {
            "prompt_embeds_t5": embeds(TOKENS, WIDTH), "negative_prompt_embeds_t5": embeds(TOKENS, WIDTH, seed=1),
            "prompt_embeds_llama3": embeds(1, TOKENS, WIDTH).movedim(0, 1),
            "negative_prompt_embeds_llama3": embeds(1, TOKENS, WIDTH, seed=1).movedim(0, 1),
        }  # fmt: skip
    elif name == "HunyuanImagePipeline":
        network = make(
            "HunyuanImageTransformer2DModel", in_channels=4, out_channels=4, num_attention_heads=2,
            attention_head_dim=16, num_layers=1, num_single_layers=1, num_refiner_layers=1, patch_size=(1, 1),
            text_embed_dim=32, text_embed_2_dim=32, rope_axes_dim=(8, 8),
        )  # fmt: skip
        from diffusers import AdaptiveProjectedMixGuidance

        components |= {
            "vae": make(
                "AutoencoderKLHunyuanImage", in_channels=3, out_channels=3, latent_channels=4,
                block_out_channels=(32, 32, 32), layers_per_block=1, spatial_compression_ratio=4, sample_size=32,
                scaling_factor=0.75, downsample_match_channel=False, upsample_match_channel=False,
            ),
            "guider": AdaptiveProjectedMixGuidance(), "ocr_guider": AdaptiveProjectedMixGuidance(),
        }  # fmt: skip
        call = {
            f"{key}_2": value
            for key, value in common_arguments().items()
            if key in ("prompt_embeds", "negative_prompt_embeds")
        }
        call |= {
            f"{key}_2": value
            for key, value in common_arguments().items()
            if key in ("prompt_embeds_mask", "negative_prompt_embeds_mask")
        }
    elif name == "PRXPipeline":
        network = make("PRXTransformer2DModel", in_channels=4, patch_size=2, context_in_dim=32, hidden_size=32,
                       num_heads=2, depth=1, axes_dim=[8, 8])  # fmt: skip
        call = {
            "prompt_attention_mask": torch.ones(1, TOKENS, dtype=torch.bool),
            "negative_prompt_attention_mask": torch.ones(1, TOKENS, dtype=torch.bool),
        }
    elif name == "Kandinsky5T2IPipeline":
        network = make(
            "Kandinsky5Transformer3DModel", in_visual_dim=4, in_text_dim=32, in_text_dim2=32, time_dim=32,
            out_visual_dim=4, model_dim=32, ff_dim=32, num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 4, 8),
        )  # fmt: skip
        call = {
            "prompt_embeds_qwen": embeds(TOKENS, WIDTH), "negative_prompt_embeds_qwen": embeds(TOKENS, WIDTH, seed=1),
            "prompt_embeds_clip": embeds(WIDTH), "negative_prompt_embeds_clip": embeds(WIDTH, seed=1),
            "prompt_cu_seqlens": torch.tensor([0, TOKENS]), "negative_prompt_cu_seqlens": torch.tensor([0, TOKENS]),
        }  # fmt: skip
    else:
        raise KeyError(name)
    components["transformer"] = network
    return components, call


add(
    """ZImagePipeline ZImageImg2ImgPipeline ZImageInpaintPipeline ZImageControlNetPipeline SanaPipeline
    SanaControlNetPipeline SanaPAGPipeline SanaSprintPipeline SanaSprintImg2ImgPipeline PixArtAlphaPipeline
    PixArtSigmaPipeline PixArtSigmaPAGPipeline DiTPipeline HunyuanDiTPipeline HunyuanDiTControlNetPipeline
    HunyuanDiTPAGPipeline LuminaPipeline Lumina2Pipeline AuraFlowPipeline CogView3PlusPipeline CogView4Pipeline
    CogView4ControlPipeline HiDreamImagePipeline HunyuanImagePipeline PRXPipeline Kandinsky5T2IPipeline""",
    image_transformer,
)


def kandinsky_unet(**changes: Any) -> Any:
    """Returns the UNet of Kandinsky 2.2 with some sizes changed."""
    sizes = {key: value for key, value in tiny.unet_kandinsky().config.items() if not key.startswith("_")}
    return make("UNet2DConditionModel", **sizes | changes)


def kandinsky(name: str) -> tuple[Components, dict[str, Any]]:
    from diffusers import DDIMScheduler, DDPMScheduler

    components: Components = {
        "movq": tiny.movq(),
        "unet": kandinsky_unet(),
        "scheduler": DDPMScheduler(**tiny.BETAS, clip_sample=False, variance_type="learned_range"),
    }
    call: dict[str, Any] = {
        "image_embeds": embeds(WIDTH), "negative_image_embeds": embeds(WIDTH, seed=1),
        "hint": torch.rand(1, 3, 256, 256),
        "mask_image": torch.ones(1, 1, 64, 64) if "Inpaint" in name else None,
    }  # fmt: skip
    if name.startswith("Kandinsky3"):
        components["unet"] = make(
            "Kandinsky3UNet", time_embedding_dim=32, groups=2, attention_head_dim=4, layers_per_block=3,
            block_out_channels=(16, 32), cross_attention_dim=32, encoder_hid_dim=32,
        )  # fmt: skip
        call = {"attention_mask": torch.ones(1, TOKENS), "negative_attention_mask": torch.ones(1, TOKENS)}
        components["scheduler"] = DDPMScheduler(**tiny.BETAS, clip_sample=False)
    elif "Controlnet" in name:
        components["unet"] = kandinsky_unet(in_channels=8, addition_embed_type="image_hint")
    elif "Inpaint" in name:
        components["unet"] = kandinsky_unet(in_channels=9)
        call["mask_image"] = torch.ones(64, 64).numpy()
    if "Combined" in name:
        from diffusers import PriorTransformer, UnCLIPScheduler

        words = tiny.tokenizer()
        components |= {
            "prior_prior": PriorTransformer(
                num_attention_heads=2, attention_head_dim=12, embedding_dim=32, num_layers=1
            ),
            "prior_image_encoder": tiny.vision_encoder(),
            "prior_text_encoder": tiny.text_encoder_projected(words),
            "prior_tokenizer": words,
            "prior_scheduler": UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample"),
            "prior_image_processor": image_processor(),
        }
        call |= {"prompt": PROMPT, "prior_num_inference_steps": 2}
    if not name.startswith(("Kandinsky3", "KandinskyV22")):
        from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP

        torch.manual_seed(0)
        config = MCLIPConfig(
            numDims=32, transformerDimensions=32, hidden_size=32, intermediate_size=37, num_attention_heads=4,
            num_hidden_layers=1, vocab_size=1100, transformerDimSize=32, imageDimSize=32,
        )  # fmt: skip
        components |= {
            "text_encoder": MultilingualCLIP(config).eval(), "tokenizer": tiny.tokenizer(),
            "scheduler": DDIMScheduler(**tiny.BETAS, clip_sample=False),
            "unet": kandinsky_unet(
                addition_embed_type="text_image", encoder_hid_dim_type="text_image_proj",
                in_channels=9 if "Inpaint" in name else 4,
            ),
        }  # fmt: skip
        call["prompt"] = PROMPT
    return components, call


add(
    """KandinskyPipeline KandinskyImg2ImgPipeline KandinskyInpaintPipeline KandinskyV22Pipeline
    KandinskyV22Img2ImgPipeline KandinskyV22InpaintPipeline KandinskyV22ControlnetPipeline
    KandinskyV22ControlnetImg2ImgPipeline KandinskyV22CombinedPipeline Kandinsky3Pipeline Kandinsky3Img2ImgPipeline""",
    kandinsky,
)


def latent_diffusion(name: str) -> tuple[Components, dict[str, Any]]:
    from diffusers import DDIMScheduler
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    scheduler = DDIMScheduler(**tiny.BETAS, clip_sample=False)
    if name == "LDMSuperResolutionPipeline":
        network = make(
            "UNet2DModel", sample_size=32, in_channels=6, out_channels=3, block_out_channels=(32, 64),
            layers_per_block=1, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        vae = make(
            "VQModel", block_out_channels=(32, 64), latent_channels=3, num_vq_embeddings=256,
            down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        )  # fmt: skip
        return {"vqvae": vae, "unet": network, "scheduler": scheduler}, {"image": picture(side=32)}
    torch.manual_seed(0)
    config = LDMBertConfig(vocab_size=600, encoder_layers=1, encoder_ffn_dim=37, encoder_attention_heads=4, head_dim=8,
                           d_model=32)  # fmt: skip
    components = {"vqvae": tiny.vae_kl(), "unet": unet(), "bert": LDMBertModel(config).eval(),
                  "tokenizer": tiny.tokenizer(), "scheduler": scheduler}  # fmt: skip
    return components, {"prompt": PROMPT}


add("LDMTextToImagePipeline LDMSuperResolutionPipeline", latent_diffusion)


def cascade(name: str) -> tuple[Components, dict[str, Any]]:
    from diffusers import DDPMWuerstchenScheduler
    from diffusers.pipelines.deprecated.wuerstchen import PaellaVQModel, WuerstchenDiffNeXt

    torch.manual_seed(0)
    vae = random_init(PaellaVQModel(levels=2, num_vq_embeddings=64, embed_dim=16, bottleneck_blocks=1))
    components: Components = {"vqgan": vae, "scheduler": DDPMWuerstchenScheduler()}
    if name.startswith("Stable"):
        components["decoder"] = make(
            "StableCascadeUNet", in_channels=4, out_channels=4, conditioning_dim=32, block_out_channels=(16, 32),
            num_attention_heads=(-1, 2), down_num_layers_per_block=(1, 1), up_num_layers_per_block=(1, 1),
            down_blocks_repeat_mappers=(1, 1), up_blocks_repeat_mappers=(1, 1), clip_text_pooled_in_channels=32,
            block_types_per_layer=(
                ("SDCascadeResBlock", "SDCascadeTimestepBlock"),
                ("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"),
            ), effnet_in_channels=4, clip_seq=1, dropout=(0.1, 0.1), switch_level=(False,),
            timestep_ratio_embedding_dim=8, patch_size=1, pixel_mapper_in_channels=3, self_attn=True,
        )  # fmt: skip
        call = {"image_embeddings": embeds(4, 4, 4), "prompt_embeds_pooled": embeds(1, WIDTH),
                "negative_prompt_embeds_pooled": embeds(1, WIDTH, seed=1)}  # fmt: skip
        return components, call
    words = tiny.tokenizer()
    components |= {
        "decoder": random_init(WuerstchenDiffNeXt(
            c_cond=32, c_hidden=[32], nhead=[2], blocks=[1], level_config=["CTA"], inject_effnet=[True], effnet_embd=4,
            clip_embd=32, c_r=16,
        )), "tokenizer": words, "text_encoder": tiny.text_encoder(words),
    }  # fmt: skip
    return components, {"prompt": PROMPT, "image_embeddings": embeds(4, 4, 4)}


add("StableCascadeDecoderPipeline WuerstchenDecoderPipeline", cascade)


# Pipelines that ClipGuidance refuses; their networks are never run


def not_an_image(name: str) -> tuple[Components, dict[str, Any]]:
    from diffusers import AmusedScheduler, DDIMScheduler, DDPMScheduler

    scheduler = DDIMScheduler(**tiny.BETAS)
    pixels = {
        "sample_size": 16, "in_channels": 3, "out_channels": 3, "block_out_channels": (32, 64), "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    if name in ("DDPMPipeline", "DDIMPipeline"):
        return {"unet": make("UNet2DModel", **pixels), "scheduler": DDPMScheduler()}, {}
    if name.startswith("IF"):
        return {"unet": unet(in_channels=3, out_channels=6), "scheduler": DDPMScheduler()}, {}
    if name.startswith("Amused"):
        return {"vqvae": tiny.movq(), "transformer": None, "scheduler": AmusedScheduler(mask_token_id=11)}, {}
    if name.startswith("Wan"):
        return {"vae": vae_normalised("AutoencoderKLWan"), "scheduler": flow_scheduler()}, {}
    return {"vae": tiny.vae_kl(), "unet": unet(), "scheduler": scheduler}, {}


add(
    """DDPMPipeline DDIMPipeline IFPipeline AmusedPipeline WanPipeline AnimateDiffPipeline TextToVideoSDPipeline
    StableVideoDiffusionPipeline MarigoldDepthPipeline AudioLDMPipeline MochiPipeline""",
    not_an_image,
)
