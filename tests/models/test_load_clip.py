from __future__ import annotations

import json
import shutil

import pytest
import tiny
import tiny_siglip
import torch

from clipgen.errors import ModelError, ModelNotFound, SettingsError
from clipgen.models import load_encoder

CPU = torch.device("cpu")
PIXELS = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def siglip(tmp_path):
    return tiny_siglip.save(tmp_path / "tiny-siglip", "siglip")


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
def test_a_siglip_folder_loads_with_the_weights_of_the_file(kind, tmp_path):
    encoder = load_encoder(str(tiny_siglip.save(tmp_path / "tiny", kind)), CPU)
    assert (encoder.kind, encoder.name, encoder.image_size) == (kind, "tiny", 32)
    saved = tiny_siglip.model(kind).state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in encoder.model.state_dict().items())
    assert encoder.image_features(PIXELS).shape == (2, 32)
    assert torch.equal(encoder.text_features(["A fox"]), encoder.text_features(["a fox"]))
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())


def test_a_transformers_folder_and_the_clip_of_a_model_folder_load_equally(tiny_v, tmp_path):
    words = tiny.tokenizer(32)
    tiny.clip(words).save_pretrained(tmp_path / "plain")
    words.save_pretrained(tmp_path / "plain")
    model_folder = shutil.copytree(tiny_v, tmp_path / "tiny-v")
    words.save_pretrained(model_folder / "clip")
    plain, nested = load_encoder(str(tmp_path / "plain"), CPU), load_encoder(str(model_folder), CPU)
    assert (plain.name, nested.name) == ("plain", "tiny-v/clip")
    assert torch.equal(plain.image_features(PIXELS), nested.image_features(PIXELS))
    assert torch.equal(plain.text_features(["a fox"]), nested.text_features(["a fox"]))


def test_float16_files_load_in_float32(siglip):
    tiny_siglip.model("siglip").half().save_pretrained(siglip)
    assert {tensor.dtype for tensor in load_encoder(str(siglip), CPU).model.state_dict().values()} == {torch.float32}


def test_a_missing_model_raises_a_one_line_error(tmp_path):
    with pytest.raises(ModelNotFound, match=r"is not a CLIP folder: it has no config.json\.$"):
        load_encoder(str(tmp_path), CPU)
    with pytest.raises(
        ModelNotFound, match=r"^Model 'org/clip' is not on this machine, and HF_HUB_OFFLINE forbids the download\.$"
    ):
        load_encoder("org/clip", CPU, offline=True)
    with pytest.raises(SettingsError, match="Unknown model 'vit'"):
        load_encoder("vit", CPU)


def test_an_unsupported_model_type_raises_an_error(siglip):
    (siglip / "config.json").write_text(json.dumps({"model_type": "blip"}))
    with pytest.raises(ModelError, match=r"has the model_type 'blip'\. Works: clip, siglip, siglip2\.$"):
        load_encoder(str(siglip), CPU)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_foreign_code_raises_an_error(siglip, name):
    config = json.loads((siglip / name).read_text())
    (siglip / name).write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(ModelError, match="'auto_map' would load foreign code"):
        load_encoder(str(siglip), CPU)


def test_pickles_and_missing_tokenizers_raise_errors(siglip):
    (siglip / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer.json\.$"):
        load_encoder(str(siglip), CPU)
    (siglip / "model.safetensors").rename(siglip / "pytorch_model.bin")
    with pytest.raises(ModelError, match="is a pickle"):
        load_encoder(str(siglip), CPU)
