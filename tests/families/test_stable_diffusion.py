from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipgen.errors import ModelError
from clipgen.families import LAYOUTS, load_family
from clipgen.families.shared import scheduler_name
from clipgen.models import ModelFolder, load_components, preflight
from clipgen.sampling.schedulers import SCHEDULERS

CPU = torch.device("cpu")


@pytest.fixture
def folder(tiny_epsilon, tmp_path):
    return shutil.copytree(tiny_epsilon, tmp_path / "model", copy_function=os.link)


def check(folder):
    return preflight(ModelFolder("./model", folder, "folder"), LAYOUTS)


def rename(path, change):
    tensors = {change(name): tensor.clone() for name, tensor in load_file(path).items()}
    path.unlink()
    save_file(tensors, path)
    return tensors


def test_weights_with_old_names_load_equally(folder):
    """As in the files of SD 1.5: the prefix text_model., the names query, key and value, and a position_ids buffer."""
    new = load_components(check(folder), CPU, torch.float32)
    text = folder / "text_encoder" / "model.safetensors"
    rename(text, lambda name: f"text_model.{name}")
    tensors = {**load_file(text), "text_model.embeddings.position_ids": torch.arange(77)[None]}
    text.unlink()
    save_file(tensors, text)
    old_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def to_old_name(name):
        for new_part, old_part in old_names.items():
            name = name.replace(f"attentions.0.{new_part}.", f"attentions.0.{old_part}.")
        return name

    renamed = rename(folder / "vae" / "diffusion_pytorch_model.safetensors", to_old_name)
    assert any(".query." in name for name in renamed)
    old = load_components(check(folder), CPU, torch.float32)
    for part in ("text_encoder", "vae"):
        assert all(torch.equal(tensor, old[part].state_dict()[key]) for key, tensor in new[part].state_dict().items())


def edit(path, **changes):
    values = json.loads(path.read_text()) | changes
    path.unlink()
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("scheduler", "name"),
    [
        ({"_class_name": "PNDMScheduler", "skip_prk_steps": True}, "pndm"),
        ({"_class_name": "DDIMScheduler", "clip_sample": False}, "ddim"),
        ({"_class_name": "EulerDiscreteScheduler"}, "euler"),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}, "euler_karras"),
        ({"_class_name": "DPMSolverMultistepScheduler"}, "dpm++_2m"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}, "dpm++_2m_karras"),
        ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}, "dpm++_2m_sde"),
        ({"_class_name": "LMSDiscreteScheduler"}, "euler"),
        ({"_class_name": "LCMScheduler"}, "lcm"),
    ],
)
def test_scheduler_configs_map_to_names(scheduler, name):
    assert scheduler_name(scheduler) == name


def test_every_supported_scheduler_class_has_a_name():
    for name in LAYOUTS["StableDiffusionPipeline"].schedulers:
        assert scheduler_name({"_class_name": name}) in SCHEDULERS


def test_defaults_come_from_the_model_folder(folder):
    family, _ = load_family(check(folder), CPU, torch.float32)
    assert family.defaults == {
        "steps": 30,
        "width": 32,
        "height": 32,
        "scheduler": "dpm++_2m_karras",
        "guidance_scale": 7.5,
        "eta": 0.0,
    }
    assert family.latent_shape(96, 64) == (4, 32, 48)
    assert family.prediction_type == "epsilon"


def test_the_scheduler_class_comes_from_the_model_index(folder):
    edit(folder / "scheduler" / "scheduler_config.json", _class_name="Evil")
    assert load_family(check(folder), CPU, torch.float32)[0].defaults["scheduler"] == "dpm++_2m_karras"


def test_a_unet_with_extra_input_channels_raises_an_error(folder):
    import tiny

    shutil.rmtree(folder / "unet")
    tiny.unet(9).save_pretrained(folder / "unet")
    with pytest.raises(ModelError, match="unet takes 9 channels and the vae gives 4: a model that needs an image"):
        check(folder)


def test_a_text_encoder_of_another_width_raises_an_error(folder):
    import tiny
    from transformers import CLIPTextConfig, CLIPTextModel

    shutil.rmtree(folder / "text_encoder")
    config = {**tiny._tower(tiny.tokenizer()), "hidden_size": 64}
    CLIPTextModel(CLIPTextConfig(**config)).save_pretrained(folder / "text_encoder")
    with pytest.raises(ModelError, match="unet expects prompt_embeds of size 32, the text encoders give 64"):
        check(folder)


def test_an_unsupported_prediction_type_raises_an_error(folder):
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="velocity")
    with pytest.raises(ModelError, match="'velocity' is not supported"):
        check(folder)
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="flow_prediction")
    with pytest.raises(ModelError, match="is made for flow; models of the family stable_diffusion predict epsilon or"):
        check(folder)


def test_the_decoder_runs_channels_last(folder):
    family, _ = load_family(check(folder), CPU, torch.float32)
    weights = family.vae.decoder.conv_in.weight
    assert weights.is_contiguous(memory_format=torch.channels_last)
