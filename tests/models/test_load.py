from __future__ import annotations

import pytest
import tiny
import torch
from parity import assert_rejected, check, copy_with_changes
from safetensors.torch import load_file, save_file

from clipgen.models import load_components
from clipgen.models.load import RESERVE, choose_places

CPU = torch.device("cpu")
SHARED, EMBED_TOKENS = "shared.weight", "encoder.embed_tokens.weight"


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    return tiny.save_flux(tmp_path_factory.mktemp("models") / "tiny-flux")


@pytest.mark.parametrize("names", [(SHARED,), (EMBED_TOKENS,), (SHARED, EMBED_TOKENS)])
def test_t5_embeddings_load_under_either_name(flux, tmp_path, names):
    from transformers import T5EncoderModel

    folder = copy_with_changes(flux, tmp_path / "model", "model_index.json")
    weights = folder / "text_encoder_2" / "model.safetensors"
    tensors = load_file(weights)
    table = tensors.pop(SHARED)
    weights.unlink()
    save_file({**tensors, **{name: table.clone() for name in names}}, weights)
    loaded = load_components(check(folder), CPU, torch.float32)["text_encoder_2"]
    reference = T5EncoderModel.from_pretrained(flux / "text_encoder_2", local_files_only=True)
    ids = torch.tensor([[5, 9, 1, 0]])
    assert torch.allclose(loaded(ids).last_hidden_state, reference(ids).last_hidden_state, atol=1e-5)
    assert loaded.shared.weight.data_ptr() == loaded.encoder.embed_tokens.weight.data_ptr() or len(names) == 2


def test_t5_without_embeddings_raises_an_error(flux, tmp_path):
    folder = copy_with_changes(flux, tmp_path / "model", "model_index.json")
    weights = folder / "text_encoder_2" / "model.safetensors"
    tensors = load_file(weights)
    del tensors[SHARED]
    weights.unlink()
    save_file(tensors, weights)
    assert_rejected(folder, "text_encoder_2/config.json: vocab_size is 100, but the weights allow 37")


def test_t5_output_projections_stay_float32_in_float16(flux):
    t5 = load_components(check(flux), CPU, torch.float16)["text_encoder_2"]
    float32_names = {name for name, parameter in t5.named_parameters() if parameter.dtype == torch.float32}
    assert float32_names == {f"encoder.block.{k}.layer.1.DenseReluDense.wo.weight" for k in (0, 1)}
    assert t5(torch.tensor([[5, 9, 1]])).last_hidden_state.dtype == torch.float16
    in_bfloat16 = load_components(check(flux), CPU, torch.bfloat16)["text_encoder_2"]
    assert {parameter.dtype for parameter in in_bfloat16.parameters()} == {torch.bfloat16}


def test_text_encoders_wait_on_the_cpu_if_a_model_does_not_fit_whole():
    sizes, cuda = {"transformer": 8, "text_encoder": 1, "text_encoder_2": 4, "vae": 1}, torch.device("cuda:0")
    assert set(choose_places(sizes, cuda, 14 + RESERVE).values()) == {cuda}
    places = choose_places(sizes, cuda, 13 + RESERVE)
    assert [name for name, place in places.items() if place == CPU] == ["text_encoder", "text_encoder_2"]
    assert set(choose_places(sizes, CPU, 0).values()) == {CPU}


def test_each_tokenizer_has_its_class(flux):
    parts = load_components(check(flux), CPU, torch.float32)
    assert type(parts["tokenizer"]).__name__ == "CLIPTokenizer"
    assert type(parts["tokenizer_2"]).__name__ == "T5Tokenizer"
