"""Checkpoints in one file: the images of their folder, what is refused, and where configs and tokenizers come from."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import tiny
import torch
from hub_cache import add_repository, hub_cache  # noqa: F401 - a fixture
from parity import clipgen_images, diffusers_images, max_difference
from safetensors.torch import load_file, save_file
from single_files import original_flux, original_open_clip, original_unet, original_vae, save_single_file, text_model

from clipgen import Pipeline
from clipgen.errors import ModelError, ModelNotFound
from clipgen.families import LAYOUTS
from clipgen.hashing import sha256_of
from clipgen.models import find_model, preflight
from clipgen.models.convert import convert_flux
from clipgen.models.header import Entry
from clipgen.models.single_file import SingleFile, detect_kind

BUILDERS = {"sd1": tiny.save_epsilon, "sd2": tiny.save_epsilon, "sdxl": tiny.save_xl, "flux": tiny.save_flux}
EXTRAS = {"sd1": "model_ema.decay", "sd2": "betas", "sdxl": "denoiser.sigmas", "flux": "vae.loss.weight"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """By kind: a model folder and the same model as a single file, with a tensor that is not used."""
    root = tmp_path_factory.mktemp("single")
    models = {}
    for kind, build in BUILDERS.items():
        folder = build(root / f"{kind}-folder")
        models[kind] = (
            folder,
            save_single_file(folder, root / f"{kind}.safetensors", kind, **{EXTRAS[kind]: torch.ones(1)}),
        )
    return models


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_single_file_gives_the_images_of_its_folder(models, kind):
    folder, file = models[kind]
    one, other = (Pipeline.from_pretrained(str(path), "cpu", offline=True) for path in (folder, file))
    assert torch.equal(clipgen_images(one, guidance_scale=3.0), clipgen_images(other, guidance_scale=3.0))
    assert other.origin.hash() == sha256_of(file)


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_diffusers_reads_the_same_file(models, kind):
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from transformers import CLIPTextModelWithProjection

    folder, file = models[kind]
    reference_class, more = StableDiffusionPipeline, {}
    if kind == "sdxl":  # diffusers tells its two text encoders apart by their widths, which are equal here
        text_encoder_2 = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2")
        reference_class, more = StableDiffusionXLPipeline, {"text_encoder_2": text_encoder_2}
    config = str(file.with_suffix(""))
    reference = reference_class.from_single_file(str(file), config=config, local_files_only=True, **more)
    expected = diffusers_images(reference, guidance_scale=3.0)
    images = clipgen_images(Pipeline.from_pretrained(str(file), "cpu"), guidance_scale=3.0)
    assert max_difference(images, expected) < 1 / 255


def test_flux_is_converted_as_diffusers_does():
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    width = 3072  # the only width that diffusers' conversion supports
    narrow = tiny.transformer_flux(True).state_dict()
    rows = {32: width, 96: 3 * width, 128: 4 * width, 64: 2 * width, 192: 6 * width, 160: 5 * width}
    wide = {
        key: torch.randn(rows.get(len(tensor), len(tensor)), *([1] * (tensor.ndim - 1)))
        for key, tensor in narrow.items()
    }
    original = {f"model.diffusion_model.{key}": tensor for key, tensor in original_flux(wide).items()}
    own = {key.removeprefix("model.diffusion_model."): tensor for key, tensor in original.items()}
    expected = convert_flux_transformer_checkpoint_to_diffusers(original)
    converted = convert_flux(own, {"num_attention_heads": 24, "attention_head_dim": 128})
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[key], expected[key]) for key in expected)


PARAMETERS = {  # of the published checkpoints
    "sd1": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sd2": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sdxl": {"unet": 2_567_463_684, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840},
    "flux_dev": {"transformer": 11_901_408_320, "text_encoder_2": 4_762_310_656},
    "flux_schnell": {"transformer": 11_891_178_560},
}


@pytest.mark.parametrize("kind", PARAMETERS)
def test_bundled_configs_describe_the_published_networks(kind):
    import diffusers
    import transformers

    configs = json.loads((files("clipgen.models") / "configs" / f"{kind}.json").read_text())
    assert configs["model_index"]["_class_name"] in LAYOUTS
    for name, expected in PARAMETERS[kind].items():
        library, class_name = configs["model_index"][name]
        network = getattr({"diffusers": diffusers, "transformers": transformers}[library], class_name)
        with torch.device("meta"):
            module = (
                network(network.config_class.from_dict(configs[name]))
                if library == "transformers"
                else network.from_config(configs[name])
            )
        assert sum(parameter.numel() for parameter in module.parameters()) == expected


def test_bundled_configs_and_a_cached_tokenizer_are_enough(tmp_path, hub_cache):  # noqa: F811
    """A file of the published sizes whose tensors take no space: the preflight reads only headers."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    configs = json.loads((files("clipgen.models") / "configs" / "sd1.json").read_text())
    with torch.device("meta"):
        networks = {
            "model.diffusion_model.": original_unet(UNet2DConditionModel.from_config(configs["unet"]).state_dict(), 2),
            "first_stage_model.": original_vae(AutoencoderKL.from_config(configs["vae"]).state_dict()),
            "cond_stage_model.transformer.": text_model(
                CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])).state_dict()
            ),
        }
    path = tmp_path / "real.safetensors"
    write_empty(path, {prefix + key: t for prefix, part in networks.items() for key, t in part.items()})
    source = find_model(str(path))
    with pytest.raises(ModelNotFound, match=r"'real.safetensors' has no tokenizer, .* clipgen models pull openai/clip"):
        preflight(source, LAYOUTS)
    words = tiny.tokenizer()
    words.save_pretrained(tmp_path / "words")
    add_repository(hub_cache, "openai/clip-vit-large-patch14", tmp_path / "words")
    checked = preflight(source, LAYOUTS)
    assert (checked.layout.family, checked.networks.keys()) == ("stable_diffusion", {"unet", "vae", "text_encoder"})
    assert sum(p.numel() for p in checked.networks["unet"].module.parameters()) == PARAMETERS["sd1"]["unet"]


def write_empty(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Writes a safetensors file whose tensor data are a hole in a sparse file."""
    header, end = {}, 0
    for key, tensor in tensors.items():
        start, end = end, end + 2 * tensor.numel()
        header[key] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    data = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(data).to_bytes(8, "little") + data)
        file.truncate(8 + len(data) + end)


def test_flux_takes_what_its_file_lacks_from_the_hub_cache(models, tmp_path, hub_cache):  # noqa: F811
    folder, file = models["flux"]
    path = tmp_path / "transformer.safetensors"
    prefix = "model.diffusion_model."
    save_file({k.removeprefix(prefix): t for k, t in load_file(file).items() if k.startswith(prefix)}, path)
    with pytest.raises(ModelNotFound, match="is not on this machine: clipgen models pull"):
        Pipeline.from_pretrained(str(path), "cpu", offline=True)
    shutil.copytree(folder / "transformer", tmp_path / "transformer" / "transformer")  # its config
    add_repository(hub_cache, "black-forest-labs/FLUX.1-dev", folder)
    pipe = Pipeline.from_pretrained(str(path), "cpu", offline=True)
    assert pipe.scorer is None
    assert pipe.family.denoiser.config.num_layers == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["lora_unet_x.lora_down.weight"], "is a LoRA, not a model: use it with --lora"),
        (["decoder.up.0.block.0.conv1.weight", "encoder.conv_in.weight"], "is a VAE, not a model: use it with --vae"),
        (["x"], "is not a checkpoint that clipgen knows. Works: Stable Diffusion 1 and 2, SDXL, Flux"),
        (["double_blocks.0.img_attn.qkv.weight", "distilled_guidance_layer.in_proj.bias"], "is a Chroma model"),
    ],
)
def test_other_files_are_refused_by_what_they_are(names, message):
    with pytest.raises(ModelError, match=message):
        detect_kind("x.safetensors", dict.fromkeys(names, Entry("F32", (4, 4))))


def test_an_inpainting_model_is_refused(models):
    _, file = models["sd1"]
    header = dict(SingleFile(file, file.with_suffix("")).header)
    header["model.diffusion_model.input_blocks.0.0.weight"] = Entry("F32", (32, 9, 3, 3))
    with pytest.raises(ModelError, match="takes 9 channels: it needs an image or a mask in addition"):
        detect_kind("x.safetensors", header)


def test_a_missing_or_misshaped_tensor_is_one_line(models, tmp_path):
    _, file = models["sd1"]
    path = tmp_path / "x.safetensors"
    shutil.copytree(file.with_suffix(""), path.with_suffix(""))
    tensors = load_file(file)
    del tensors["model.diffusion_model.out.2.bias"]
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"unet: 1 of its tensors are missing: conv_out.bias"):
        preflight(find_model(str(path)), LAYOUTS)
    tensors = {k: t for k, t in tensors.items() if ".mid.attn_1.q." not in k}
    tensors["first_stage_model.encoder.mid.attn_1.q.weight"] = torch.ones(3)
    save_file(tensors, path)
    with pytest.raises(ModelError) as error:
        preflight(find_model(str(path)), LAYOUTS)
    assert "\n" not in str(error.value)


def test_pickles_and_missing_files_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"'x.ckpt' is a pickle, which can run code: convert it to .safetensors"):
        find_model(str(tmp_path / "x.ckpt"))
    with pytest.raises(ModelNotFound, match="There is no file"):
        find_model("nowhere.safetensors")
    (tmp_path / "fake.safetensors").write_bytes(b"\x80\x04pickle" * 100)
    with pytest.raises(ModelError, match="is not a safetensors file, or is truncated"):
        preflight(find_model(str(tmp_path / "fake.safetensors")), LAYOUTS)


def test_v_prediction_is_marked_by_tensors(models, tmp_path):
    _, file = models["sdxl"]
    path = tmp_path / "v.safetensors"
    save_file({**load_file(file), "v_pred": torch.ones(1), "ztsnr": torch.ones(1)}, path)
    scheduler = SingleFile(path, path.with_suffix("")).scheduler()
    assert (scheduler["prediction_type"], scheduler["rescale_betas_zero_snr"]) == ("v_prediction", True)


def test_open_clip_layers_beyond_the_config_are_left_out(models):
    folder, _ = models["sd2"]
    tensors = load_file(folder / "text_encoder" / "model.safetensors")
    from clipgen.models.convert import convert_open_clip

    names = original_open_clip(tensors)
    more = {**names, "transformer.resblocks.2.ln_1.weight": torch.ones(32), "text_projection": torch.eye(32)}
    config = {"num_hidden_layers": 2, "hidden_size": 32}
    assert convert_open_clip(more, config).keys() == convert_open_clip(names, config).keys()
