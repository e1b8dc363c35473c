"""The setting `vae`: a folder, a file or a hub id replaces the VAE of a model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hub_cache import add_repository, hub_cache  # noqa: F401 - a fixture
from parity import clipgen_images, clipgen_results
from safetensors.torch import load_file, save_file
from single_files import original_vae, save_single_file
from torch import Tensor

from clipgen import Pipeline, Settings
from clipgen.errors import ModelError, ModelNotFound, SettingsError
from clipgen.hashing import sha256_of


@pytest.fixture(scope="module")
def pipe(tiny_epsilon: Path) -> Pipeline:
    return Pipeline.from_pretrained(str(tiny_epsilon), "cpu", offline=True)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of another VAE."""
    network = tiny.vae_kl()
    torch.manual_seed(1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("vae") / "other"
    network.save_pretrained(folder)
    return folder


def weights_of(folder: Path) -> Path:
    return folder / "diffusion_pytorch_model.safetensors"


def images_of(pipe: Pipeline, **settings: Any) -> Tensor:
    return clipgen_images(pipe, images=1, steps=1, guidance_scale=1.0, **settings)


def test_a_folder_a_file_a_checkpoint_and_a_hub_id_give_the_same_images(
    pipe,
    vae,
    tiny_epsilon,
    tmp_path,
    hub_cache,  # noqa: F811
):
    own = images_of(pipe)
    folder = tmp_path / "model"
    shutil.copytree(tiny_epsilon, folder)
    shutil.copytree(vae, folder / "vae", dirs_exist_ok=True)
    expected = images_of(Pipeline.from_pretrained(str(folder), "cpu"))
    assert not torch.equal(own, expected)

    save_file({**original_vae(load_file(weights_of(vae))), "loss.x": torch.ones(1)}, tmp_path / "vae.safetensors")
    shutil.copy(weights_of(vae), tmp_path / "diffusers.safetensors")
    checkpoint = save_single_file(folder, tmp_path / "checkpoint.safetensors", "sd1")
    add_repository(hub_cache, "org/vae", vae)
    names = [vae, folder, tmp_path / "vae.safetensors", tmp_path / "diffusers.safetensors", checkpoint, "org/vae"]
    for name in map(str, names):
        assert torch.equal(images_of(pipe, vae=name), expected), name
    assert torch.equal(images_of(pipe), own)


def test_the_record_has_base_name_and_hash(pipe, vae):
    result = clipgen_results(pipe, images=1, vae=str(vae))[0]
    assert result.metadata["settings"]["vae"] == "./other"
    assert result.metadata["inputs"] == {"vae": sha256_of(weights_of(vae))}
    assert result.settings.vae == str(vae)


def refused(model: Path, vae: str, error: type[Exception], message: str, **more: Any) -> None:
    """Asserts that a VAE is refused, in one line, before the model is loaded."""
    with pytest.raises(error, match=message) as raised:
        Pipeline.from_pretrained(
            str(model), "cpu", offline=True, settings=[Settings("a", vae=vae, **more)], progress=pytest.fail
        )
    assert "\n" not in str(raised.value)
    assert raised.value.field == "vae" or error is ModelError


def test_vaes_that_do_not_fit_are_refused_before_anything_is_loaded(tiny_epsilon, tiny_v, vae, tmp_path):
    refused(tiny_epsilon, str(tiny_v), SettingsError, "has 8 latent channels, model .* needs 4")
    refused(tiny_epsilon, str(tiny_epsilon / "unet"), ModelError, "is of the class 'UNet2DConditionModel'. Works: Auto")
    refused(tiny_epsilon, str(tmp_path), ModelNotFound, "is not a VAE folder: it has no config.json")
    refused(tiny_epsilon, "./nowhere", ModelNotFound, "vae: There is no folder")
    refused(tiny_epsilon, "org/vae", ModelNotFound, "vae: Model 'org/vae' is not on this machine")
    refused(tiny_epsilon, "x.pt", ModelError, "vae: 'x.pt' is a pickle, which can run code")
    refused(tiny_epsilon, "x y", SettingsError, "vae: Unknown model 'x y'")

    pickled = tmp_path / "pickled"
    shutil.copytree(vae, pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    (pickled / "diffusion_pytorch_model.bin").write_bytes(b"\x80")
    refused(tiny_epsilon, str(pickled), ModelError, "is a pickle, which can run code")

    wider = tmp_path / "wider.safetensors"
    tensors = load_file(weights_of(vae))
    save_file({**tensors, "decoder.conv_in.weight": torch.ones(1, 1)}, wider)
    refused(tiny_epsilon, str(wider), ModelError, "of its tensors are of another shape: decoder.conv_in.weight")
    save_file({"decoder.conv_in.bias": torch.ones(64)}, wider)
    refused(tiny_epsilon, str(wider), ModelError, r"vae '.*wider.safetensors': \d+ of its tensors are missing")


def test_a_family_without_a_vae_refuses_one(tmp_path, vae):
    folder = tiny.save_kandinsky(tmp_path / "kandinsky")
    message = "vae cannot be replaced in model .*: its family, kandinsky_2_2, has none"
    refused(folder, str(vae), SettingsError, message, vary="fox.png")
