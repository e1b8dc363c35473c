from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from clipgen.errors import ModelError, OutOfMemory
from clipgen.families import LAYOUTS
from clipgen.models import ModelFolder, load_components, preflight, verify


@pytest.fixture
def folder(tiny_v, tmp_path):
    """A copy of the tiny v model for tests to modify; its files are hard links."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_v, copy, copy_function=os.link)
    return copy


def check(folder):
    return preflight(ModelFolder("./model", folder, "folder"), LAYOUTS)


def edit(path, **changes):
    """Changes keys of a JSON file; None removes a key."""
    values = json.loads(path.read_text()) | changes
    path.unlink()
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def rewrite(path, change):
    """Applies `change` to the dict of tensors of a weight file and saves the file."""
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    path.unlink()
    save_file(tensors, path)


def assert_rejected(folder, message):
    with pytest.raises(ModelError, match=message) as error:
        check(folder)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1


def test_a_valid_model_passes_on_the_meta_device(folder):
    checked = check(folder)
    assert checked.layout.family == "stable_diffusion"
    assert checked.networks.keys() == {"unet", "vae", "text_encoder", "clip"}
    assert all(
        tensor.is_meta for network in checked.networks.values() for tensor in network.module.state_dict().values()
    )
    assert checked.defaults == {"steps": 4, "guidance_scale": 4.0, "scheduler": "ddim", "width": 128, "height": 128}


def test_clip_is_optional(folder):
    shutil.rmtree(folder / "clip")
    assert check(folder).networks.keys() == {"unet", "vae", "text_encoder"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "KolorsPipeline"}, "'KolorsPipeline' is not supported. Works: StableDiffusionPipeline"),
        ({"_class_name": ["os", "system"]}, "is not supported"),
        ({"unet": ["os", "system"]}, r"'unet' is os.system; clipgen loads diffusers.UNet2DConditionModel there"),
        ({"unet": ["my_module", "UNet2DConditionModel"]}, "'unet' is my_module"),
        ({"scheduler": ["diffusers", "EDMEulerScheduler"]}, r"'scheduler' is diffusers.EDMEulerScheduler"),
        ({"controlnet": ["diffusers", "ControlNetModel"]}, "'controlnet' is .* clipgen loads nothing there"),
        ({"safety_checker": ["evil", "Checker"]}, "'safety_checker' is evil.Checker"),
        ({"vae": ["diffusers"]}, "'vae' is diffusers"),
        ({"vae": [["diffusers", "AutoencoderKL"], 3]}, "'vae' is"),
        ({"text_encoder": None}, "names no text_encoder"),
        ({"text_encoder": [None, None]}, "names no text_encoder"),
        ({"auto_map": {"x": "y"}}, "would load foreign code"),
    ],
)
def test_unsupported_index_entries_raise_errors(folder, changes, message):
    edit(folder / "model_index.json", **changes)
    assert_rejected(folder, message)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet/config.json", {"layers_per_block": 3000}, "layers_per_block is 3000, but the weights allow"),
        ("unet/config.json", {"block_out_channels": [32000, 64000]}, "block_out_channels is .*000, but the weights"),
        ("unet/config.json", {"layers_per_block": -1}, "layers_per_block is -1"),
        ("unet/config.json", {"block_out_channels": [32, 32]}, "unet: .* of its tensors are"),
        ("unet/config.json", {"in_channels": 9}, "unet: 1 of its tensors are of another shape: conv_in.weight"),
        ("unet/config.json", {"down_block_types": ["EvilBlock", "DownBlock2D"]}, "not a valid config"),
        ("unet/config.json", {"attention_head_dim": "x"}, "is not a valid config of UNet2DConditionModel"),
        ("unet/config.json", {"norm_num_groups": 0}, "is not a valid config of UNet2DConditionModel"),
        (
            "unet/config.json",
            {"addition_embed_type": "image"},
            "not a valid config|tensors are|addition_embed_type is set",
        ),
        ("text_encoder/config.json", {"num_hidden_layers": 3000}, "num_hidden_layers is 3000"),
        ("text_encoder/config.json", {"num_hidden_layers": 1}, "tensors are unexpected"),
        ("text_encoder/config.json", {"num_attention_heads": 5}, "is not a valid config of CLIPTextModel"),
        ("text_encoder/config.json", {"hidden_size": "wide"}, "is not a valid config of CLIPTextModel"),
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "x.Y"}}, "'auto_map' would load foreign code"),
        ("clip/config.json", {"_attn_implementation_internal": "x/y"}, "would load foreign code"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "num_train_timesteps must be"),
        ("scheduler/scheduler_config.json", {"trained_betas": 5}, "num_train_timesteps must be"),
        (
            "tokenizer/tokenizer_config.json",
            {"model_max_length": 10**30},
            "more than 20 digits|model_max_length must be",
        ),
        ("tokenizer/tokenizer_config.json", {"model_max_length": None}, "model_max_length must be"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 77}, "tokenizer gives 77 tokens, text_encoder has 32"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {}}, "would load foreign code"),
        ("clipgen.json", {"settings": {"prompt": "x"}}, "'settings' may hold steps"),
        ("clipgen.json", {"settings": {"steps": 0}}, "steps must be 1 to 150"),
        ("clipgen.json", {"settings": [1]}, "'settings' may hold steps"),
        ("clipgen.json", {"vocabulary": "small"}, "'vocabulary' must be storybook or storybook-large, got 'small'"),
        ("clipgen.json", {"vocabulary": ["storybook"]}, "'vocabulary' must be storybook"),
    ],
)
def test_inconsistent_configs_raise_errors(folder, file, changes, message):
    edit(folder / file, **changes)
    assert_rejected(folder, message)


@pytest.mark.parametrize(
    "file",
    ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"],
)
def test_the_error_names_a_missing_file(folder, file):
    (folder / file).unlink()
    assert_rejected(folder, f"{file.rpartition('/')[2]} is missing")


def test_a_clip_with_another_vocabulary_raises_an_error(folder):
    shutil.rmtree(folder / "clip")
    words = tiny.tokenizer(32)
    words.add_tokens(["fox"])
    tiny.clip(words).save_pretrained(folder / "clip")
    assert_rejected(folder, r"clip/config\.json: vocab_size is 515, that of text_encoder 514")


def test_a_pickle_is_never_loaded(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.with_name("diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    weights.unlink()
    assert_rejected(folder, "is a pickle")
    weights.write_bytes(pickle.dumps(Bomb()))
    assert_rejected(folder, "not a safetensors file")
    assert not (tmp_path / "ran").exists()


def test_truncated_weights_raise_an_error(folder):
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(data[: len(data) // 2])
    assert_rejected(folder, "does not match its header")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("conv_in.bias"), "1 of its tensors are missing: conv_in.bias"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "1 of its tensors are unexpected: extra"),
        (lambda tensors: tensors.update({"conv_in.bias": torch.zeros(5)}), "1 of its tensors are of another shape"),
    ],
)
def test_weights_of_another_network_raise_an_error(folder, change, message):
    rewrite(folder / "unet" / "diffusion_pytorch_model.safetensors", change)
    assert_rejected(folder, message)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_raise_at_load(folder, number):
    def set_bias(tensors):
        tensors["conv_in.bias"][3] = number

    rewrite(folder / "unet" / "diffusion_pytorch_model.safetensors", set_bias)
    checked = check(folder)
    with pytest.raises(ModelError, match=r"'conv_in.bias' holds numbers that are not finite"):
        load_components(checked, torch.device("cpu"), torch.float32)


def test_weights_beyond_the_range_of_float16_raise_at_load(folder):
    rewrite(folder / "unet" / "diffusion_pytorch_model.safetensors", lambda tensors: tensors["conv_in.bias"].fill_(1e6))
    with pytest.raises(ModelError, match=r"not finite in torch.float16"):
        load_components(check(folder), torch.device("cpu"), torch.float16)


def test_a_tokenizer_must_have_a_vocabulary_that_fits_its_encoder(folder):
    path = folder / "tokenizer" / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"]["vocab"]["new"] = 9_999
    path.unlink()
    path.write_text(json.dumps(values))
    assert_rejected(folder, "tokenizer has token ids up to 9,999, text_encoder embeds only 514")
    path.write_text(json.dumps({**values, "model": {"vocab": {}}}))
    assert_rejected(folder, "tokenizer has no valid vocabulary")
    path.unlink()
    assert_rejected(folder, r"tokenizer has no vocabulary \(tokenizer.json, vocab.json or spiece.model\)")


def test_a_broken_tokenizer_raises_a_one_line_error(folder):
    path = folder / "tokenizer" / "tokenizer.json"
    path.unlink()
    path.write_text('{"version": "1.0", "model": {"type": "Evil", "vocab": {"a": 0}}}')
    with pytest.raises(ModelError, match="tokenizer cannot be read") as error:
        load_components(check(folder), torch.device("cpu"), torch.float32)
    assert "\n" not in str(error.value)


def test_too_little_memory_raises_before_loading(folder):
    """The meta device needs no memory, so that only the check detects a network larger than the memory."""
    checked = check(folder)
    checked.networks["unet"].module.register_parameter(
        "huge", torch.nn.Parameter(torch.empty(2**50, device="meta"), requires_grad=False)
    )
    with pytest.raises(OutOfMemory, match=r"Model './model' needs .* GiB of memory"):
        load_components(checked, torch.device("cpu"), torch.float32)


def test_networks_equal_those_of_from_pretrained(folder):
    from diffusers import AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPModel, CLIPTextModel

    parts = load_components(check(folder), torch.device("cpu"), torch.float32)
    classes = {"unet": UNet2DConditionModel, "vae": AutoencoderTiny, "text_encoder": CLIPTextModel, "clip": CLIPModel}
    for name, network in classes.items():
        reference = network.from_pretrained(folder / name, local_files_only=True)
        loaded = dict(parts[name].named_parameters()) | dict(parts[name].named_buffers())
        expected = dict(reference.named_parameters()) | dict(reference.named_buffers())
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[key], expected[key]) for key in loaded)
        assert not parts[name].training
        assert not any(parameter.requires_grad for parameter in parts[name].parameters())
    assert parts["tokenizer"]("a fox").input_ids[0] == parts["tokenizer"].bos_token_id


def test_all_networks_but_clip_have_the_requested_dtype(folder):
    parts = load_components(check(folder), torch.device("cpu"), torch.bfloat16)
    assert {name: parts[name].dtype for name in ("unet", "vae", "text_encoder")} == dict.fromkeys(
        ("unet", "vae", "text_encoder"), torch.bfloat16
    )
    assert parts["clip"].dtype == torch.float32


def test_sharded_weights_equal_a_single_file(folder):
    parts = load_components(check(folder), torch.device("cpu"), torch.float32)
    single_file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(single_file)
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in halves.items():
        save_file({key: tensors[key].clone() for key in keys}, folder / "unet" / file)
    weight_map = {key: file for file, keys in halves.items() for key in keys}
    single_file.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": weight_map})
    )
    single_file.unlink()
    sharded = load_components(check(folder), torch.device("cpu"), torch.float32)
    assert all(
        torch.equal(tensor, sharded["unet"].state_dict()[key]) for key, tensor in parts["unet"].state_dict().items()
    )


def test_verify_detects_a_flipped_bit(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    source = ModelFolder("./model", folder, "folder")
    with pytest.raises(ModelError, match="no SHA256SUMS"):
        verify(source)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}" for path in files]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    assert verify(source) == len(files)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.unlink()
    weights.write_bytes(data)
    check(folder)
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model.safetensors .* does not match its SHA256SUMS"):
        verify(source)
