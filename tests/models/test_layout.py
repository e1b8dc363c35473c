from __future__ import annotations

import json

import pytest
import tiny
import torch
from parity import assert_rejected, check, copy_with_changes
from safetensors.torch import load_file, save_file

from clipgen import Pipeline, Settings, SettingsError
from clipgen.errors import ModelError
from clipgen.models import SizeLimits


def test_an_invalid_size_raises_a_one_line_error():
    with pytest.raises(SettingsError) as error:
        SizeLimits(16).check(136, 128, "storybook")
    assert str(error.value) == "width must be a multiple of 16 for model 'storybook', got '136'"
    assert (error.value.field, error.value.exit_code) == ("width", 2)
    with pytest.raises(SettingsError, match="height must be at most 96 for model 'x', got '112'") as error:
        SizeLimits(16, max_size=96).check(96, 112, "x")
    assert error.value.field == "height"


def test_missing_and_valid_sizes_pass():
    SizeLimits(16, max_size=96).check(None, None, "x")
    SizeLimits(16, max_size=96).check(96, None, "x")
    SizeLimits(8).check(2048, 64, "x")


def test_size_limits_come_from_the_vae(tiny_epsilon, tiny_v):
    assert check(tiny_epsilon).size_limits == SizeLimits(2)
    assert check(tiny_v).size_limits == SizeLimits(8)


@pytest.fixture(scope="module")
def factor_16(tmp_path_factory):
    """A model whose VAE has scale factor 16, as storybook's."""
    from diffusers import AutoencoderTiny, DDIMScheduler

    levels = 5
    torch.manual_seed(0)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8,) * levels,
        decoder_block_out_channels=(8,) * levels,
        num_encoder_blocks=(1,) * levels,
        num_decoder_blocks=(1,) * levels,
        latent_channels=8,
    )
    folder = tmp_path_factory.mktemp("models") / "deep"
    scheduler = DDIMScheduler(**tiny.BETAS, clip_sample=False)
    return tiny.save(folder, tiny.tokenizer(), tiny.unet(8), vae, scheduler, {"steps": 2})


def test_an_invalid_size_raises_before_the_weights_are_loaded(factor_16, tmp_path):
    """The weights contain a NaN, for which loading raises another error."""
    folder = copy_with_changes(factor_16, tmp_path / "model", "model_index.json")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights) | {"conv_in.bias": torch.full((32,), torch.nan)}
    weights.unlink()
    save_file(tensors, weights)
    valid, invalid = (Settings(prompt="a fox", width=width, height=64) for width in (128, 136))
    with pytest.raises(SettingsError, match=r"width must be a multiple of 16 for model '.*', got '136'"):
        Pipeline.from_pretrained(str(folder), settings=[valid, invalid])
    with pytest.raises(ModelError, match="not finite"):
        Pipeline.from_pretrained(str(folder), settings=[valid])


def test_an_invalid_size_raises_before_the_first_step(factor_16):
    pipe = Pipeline.from_pretrained(str(factor_16))
    with pytest.raises(SettingsError, match="height must be a multiple of 16"):
        next(pipe.generate(Settings(prompt="a fox", width=64, height=72)))
    assert len(pipe.run(Settings(prompt="a fox", width=80, height=64, seed=1))) == 1


def test_an_invalid_default_size_raises_an_error(factor_16, tmp_path):
    folder = copy_with_changes(factor_16, tmp_path / "model", "clipgen.json", settings={"width": 136})
    assert json.loads((folder / "clipgen.json").read_text()) == {"settings": {"width": 136}}
    assert_rejected(folder, r"clipgen.json: width must be a multiple of 16 for model './model', got '136'")
