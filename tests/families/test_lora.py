from __future__ import annotations

import json
import os

import diffusers
import pytest
import tiny
import tiny_lora
import torch
from parity import clipgen_images, clipgen_results, max_difference
from safetensors.torch import load_file, save_file

from clipgen import ModelError, ModelNotFound, Pipeline, PromptError, Settings, SettingsError

FORMS = ("kohya", "diffusers", "peft")


@pytest.mark.parametrize("form", FORMS)
def test_images_equal_those_of_diffusers_and_without_the_lora_are_as_before(model, form, tmp_path):
    file = tiny_lora.save(tmp_path / f"{form}.safetensors", model.reference, form)
    ours = clipgen_images(model.pipe, lora=[f"{file}:0.8"], guidance_scale=5.0)
    assert max_difference(ours, model.theirs((file, 0.8), guidance_scale=5.0)) <= 1e-4
    assert max_difference(ours, model.plain) > 4 / 255
    assert torch.equal(clipgen_images(model.pipe), model.plain)


def test_two_loras_at_once_by_file_and_by_tag(model, private_home):
    folder = private_home / "loras"
    one = tiny_lora.save(folder / "one.safetensors", model.reference, "kohya")
    two = tiny_lora.save(folder / "sub" / "two words.safetensors", model.reference, "peft", seed=9, text=False)
    theirs = model.theirs((one, 0.5), (two, -0.7))
    both = {"prompt": "a fox in snow <lora:two words:-0.7>", "lora": ["one:0.25", f"{one}:0.25"]}
    assert max_difference(clipgen_images(model.pipe, **both), theirs) <= 1e-4
    results = clipgen_results(model.pipe, "<lora:two words:-0.7>a fox in snow", lora=["one:0.5"])
    assert max_difference(torch.stack([result.pixels for result in results]), theirs) <= 1e-4
    record = results[0].metadata
    assert record["settings"]["lora"] == ["one:0.5"]
    assert set(record["inputs"]) == {"lora:one.safetensors", "lora:two words.safetensors"}
    assert torch.equal(clipgen_images(model.pipe), model.plain)


def test_the_rank_scale_of_a_file_of_peft_itself(models, tmp_path):
    """PEFT's own files hold one network and have alpha in a second file."""
    model = models["sd"]
    state = tiny_lora.tensors(model.reference, "peft", text=False)
    diffusers_file, peft_file = tmp_path / "diffusers.safetensors", tmp_path / "adapter_model.safetensors"
    save_file(state, diffusers_file)
    save_file({key.replace("unet.", "base_model.model."): value for key, value in state.items()}, peft_file)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 2}))
    ours = clipgen_images(model.pipe, lora=[str(peft_file)])
    assert max_difference(ours, model.theirs((diffusers_file, 0.5))) <= 1e-4


def test_a_file_that_diffusers_wrote_with_its_metadata(models, tmp_path):
    from peft import LoraConfig

    model = models["sd"]
    unet = model.reference.unet
    torch.manual_seed(1)
    unet.add_adapter(LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=["to_q", "to_v"]), "x")
    metadata = {"unet_lora_adapter_metadata": unet.peft_config["x"].to_dict()}
    from peft.utils import get_peft_model_state_dict

    model.reference.save_lora_weights(tmp_path, get_peft_model_state_dict(unet, adapter_name="x"), **metadata)
    unet.unload_lora()
    file = tmp_path / "pytorch_lora_weights.safetensors"
    ours = clipgen_images(model.pipe, lora=[f"{file}:0.1"])
    assert max_difference(ours, model.theirs((file, 0.1))) <= 1e-4
    assert max_difference(ours, model.plain) > 1 / 255


def test_runs_that_alternate_keep_their_own_loras(models, tmp_path):
    pipe = models["sd"].pipe
    file = tiny_lora.save(tmp_path / "one.safetensors", models["sd"].reference)
    runs = [Settings(prompt="a fox", seed=3, steps=3, lora=lora) for lora in ((f"{file}:0.5",), (), (f"{file}:1",))]
    alone = [pipe.run(run)[0].pixels for run in runs]
    generators = [pipe.generate(run) for run in runs]
    last = [[next(generator) for generator in generators] for _ in range(4)][-1]
    assert all(torch.equal(result.pixels, expected) for result, expected in zip(last, alone, strict=True))
    assert not torch.equal(alone[0], alone[2])


def test_a_choice_in_the_prompt_can_choose_the_lora(models, private_home):
    model = models["sd"]
    tiny_lora.save(private_home / "loras" / "one.safetensors", model.reference)
    run = Settings(prompt="a fox {<lora:one:0.5>|}", seed=3, images=4, steps=2)
    results = model.pipe.run(run)
    assert [result.index for result in results] == [0, 1, 2, 3]
    assert {bool(result.metadata["inputs"]) for result in results} == {True, False}
    alone = [model.pipe.run(result.settings)[0].pixels for result in results]
    assert all(max_difference(result.pixels, pixels) <= 1e-4 for result, pixels in zip(results, alone, strict=True))


def test_clip_guidance_through_the_unet_with_a_lora(tiny_v, tmp_path):
    pipe = Pipeline.from_pretrained(str(tiny_v))
    reference = diffusers.StableDiffusionPipeline.from_pretrained(tiny_v, dtype=torch.float32, local_files_only=True)
    file = tiny_lora.save(tmp_path / "one.safetensors", reference)
    settings = Settings(prompt="a fox", seed=1, guidance="clip", through_unet=True, lora=[f"{file}:0.3"])
    (result,) = pipe.run(settings)
    assert result.clip is not None
    assert not any(parameter.requires_grad for parameter in pipe.family.denoiser.parameters())
    costs = pipe.model_costs(settings.with_defaults(pipe.defaults))
    assert costs == Pipeline.from_pretrained(str(tiny_v)).model_costs(settings.with_defaults(pipe.defaults))


def change(path, **tensors):
    """Writes a copy of a LoRA file with other tensors; None removes one."""
    state = {**load_file(path), **tensors}
    copy = path.with_stem("changed")
    save_file({key: value for key, value in state.items() if value is not None}, copy)
    return copy


def refused(model, lora, match, error=ModelError):
    """Asserts that a loaded model, and one whose weights are not loaded yet, refuse a LoRA in one line."""
    settings = Settings(prompt="a fox", lora=[str(lora)], width=64, height=64)
    with pytest.raises(error, match=match) as loaded:
        model.pipe.run(settings)
    with pytest.raises(error, match=match) as unloaded:
        Pipeline.from_pretrained(str(model.folder), settings=[settings], dtype="float32")
    assert "\n" not in str(loaded.value) + str(unloaded.value)
    assert loaded.value.field == "lora"


def test_a_lora_of_another_architecture_is_refused(models, tmp_path):
    sd, xl = models["sd"], models["xl"]
    file = tiny_lora.save(tmp_path / "sd.safetensors", sd.reference)
    refused(xl, file, "LoRA 'sd.safetensors' is made for cross-attention to text of width 32 and does not fit model")
    file = tiny_lora.save(tmp_path / "xl.safetensors", xl.reference, "peft")
    refused(sd, file, r"does not fit model '.*', a stable_diffusion model with cross-attention to text of width 32: it")
    width = torch.zeros(4, 2048)
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    save_file({f"{name}.lora_down.weight": width, f"{name}.lora_up.weight": torch.zeros(640, 4)}, file)
    refused(sd, file, "is made for Stable Diffusion XL and does not fit")
    save_file({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": width}, file)
    refused(sd, file, "is made for Flux and does not fit")
    assert torch.equal(clipgen_images(sd.pipe), sd.plain)


def test_damaged_and_foreign_files_are_refused(models, tmp_path):
    model = models["sd"]
    file = tiny_lora.save(tmp_path / "good.safetensors", model.reference, "peft")
    key = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    a, b = f"{key}.lora_A.weight", f"{key}.lora_B.weight"
    refused(model, change(file, unknown=torch.zeros(1)), "it has no layer 'unknown'")
    refused(model, change(file, **{a: torch.zeros(4, 63)}), "has 64 inputs, not 63")
    refused(model, change(file, **{a: torch.zeros(1025, 64), b: torch.zeros(64, 1025)}), "rank 1,025 is over 1,024")
    refused(model, change(file, **{f"{key}.hada_w1_a": torch.zeros(1)}), "is LoHa, which is not supported; plain LoRA")
    refused(model, change(file, **{f"{key}.dora_scale": torch.zeros(1)}), "is DoRA, which is not supported")
    with pytest.raises(ModelError, match="holds numbers that are not finite"):
        model.pipe.run(Settings(prompt="a", lora=[str(change(file, **{a: torch.full((4, 64), torch.nan)}))]))
    data = file.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-4])
    refused(model, tmp_path / "cut.safetensors", "does not match its header")
    (tmp_path / "evil.pt").write_bytes(b"x")
    refused(model, tmp_path / "evil.pt", "'evil.pt' is a pickle, which can run code")
    save_file({}, tmp_path / "empty.safetensors")
    refused(model, tmp_path / "empty.safetensors", "holds no tensor")
    refused(model, tmp_path / "none.safetensors", "There is no LoRA file", ModelNotFound)
    os.truncate(tmp_path / "cut.safetensors", 5 * 2**30)
    refused(model, tmp_path / "cut.safetensors", "is larger than 4,294,967,296 bytes")


def test_a_name_that_no_folder_has_lists_those_that_it_has(models, private_home):
    model = models["sd"]
    tiny_lora.save(private_home / "loras" / "one.safetensors", model.reference)
    refused(
        model, "two", r"There is no LoRA 'two' in ./loras or loras in the data folder. They hold: one.", ModelNotFound
    )
    (private_home / "loras" / "old.ckpt").write_bytes(b"x")
    refused(model, "old", "'old.ckpt' is a pickle")


def test_models_without_lora_and_pipelines_of_diffusers_say_so(models, tmp_path):
    model = models["sd"]
    file = tiny_lora.save(tmp_path / "one.safetensors", model.reference)
    settings = Settings(prompt="a fox", lora=[str(file)], width=64, height=64)
    with pytest.raises(SettingsError, match="own load_lora_weights"):
        Pipeline.from_diffusers(model.reference).run(settings)
    folder = tiny.save_unclip(tmp_path / "unclip")
    with pytest.raises(SettingsError, match="takes no LoRA: its family is stable_unclip"):
        Pipeline.from_pretrained(str(folder), settings=[settings.replace(vary="x.png")])
    with pytest.raises(PromptError, match="belongs in the prompt"):
        model.pipe.run(Settings(prompt="a fox", negative_prompt="<lora:one>", width=64, height=64))
