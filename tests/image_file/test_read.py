"""Reads settings from images in the format of each app: two valid ones and an invalid one per app."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipgen.errors import ImageFileError
from clipgen.image_file import RestoredSettings, encode_image, read_chunks, read_settings, settings_from_text
from clipgen.settings.settings import Settings
from image_file.samples import FOX, MODEL, png, record_of, sample_image, with_comment, with_exif, with_tags

MAKE, MODEL_TAG, SOFTWARE, MAKER_NOTE, COMMENT = 0x010F, 0x0110, 0x0131, 0x927C, 0x9286
OTHER_NOISE = "Another app's noise differs; expect another picture."


def codes(restored: RestoredSettings) -> list[str]:
    return [note.code for note in restored.warnings]


def error_message(path: Path) -> str:
    with pytest.raises(ImageFileError) as caught:
        read_settings(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# A1111, Forge, SD.Next and similar apps

A1111 = """a (red:1.2) fox, {snow}, __forest__ <lora:detail:0.8>
second line
Negative prompt: blurry, (bad:1.3)
ugly
Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 3735928559, Size: 640x448, \
Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, VAE hash: 735e4c3a44, Denoising strength: 0.4, Clip skip: 2, \
Lora hashes: "detail: 7c6bad76eb54", Version: v1.10.1"""

OLD_A1111 = """fox
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: 7460a6fa"""

A1111_SETTINGS = Settings(
    prompt="a (red:1.2) fox, \\{snow\\}, \\_\\_forest\\_\\_ \nsecond line",
    negative_prompt="blurry, (bad:1.3)\nugly",
    steps=28,
    scheduler="dpm++_2m_karras",
    guidance_scale=6.5,
    seed=3735928559,
    width=640,
    height=448,
    clip_skip=1,
)


@pytest.mark.parametrize("name", ["fox.png", "fox.jpg", "fox.webp", "fox.txt"])
def test_a1111(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "fox.txt":
        path.write_text("\ufeff" + A1111, "utf-8")
    elif name == "fox.png":
        png({"parameters": A1111}, path)
    else:
        with_comment(A1111, path)
    restored = read_settings(path)
    assert restored.settings == A1111_SETTINGS
    assert (restored.source, restored.record) == ("A1111", None)
    assert restored.unknown == {
        "Model hash": "6ce0161689",
        "VAE hash": "735e4c3a44",
        "Denoising strength": "0.4",
        "Lora hashes": "detail: 7c6bad76eb54",
        "Version": "v1.10.1",
        "model": "v1-5-pruned-emaonly",
    }
    assert codes(restored) == ["clip-skip", "other-noise", "network-left-out", "model-not-used"]
    assert restored.warnings[1].message == OTHER_NOISE
    assert "<lora:detail:0.8>" in restored.warnings[2].message
    assert A1111 in restored.raw.values() or name == "fox.txt"


def test_a1111_long_prompts_loras_on_this_machine_and_clip_skip(tmp_path: Path, private_home: Path) -> None:
    (private_home / "loras").mkdir()
    (private_home / "loras" / "my__style.safetensors").write_bytes(b"")
    values = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
    tags = "<lora:my__style:0.5><lora:my__style:0.5:1><lora:my__style:9><lyco:my__style:1>"
    block = f"fox {tags} BREAK snow\nNegative prompt: <lora:my__style:1> rain\n{values}, Clip skip: 1"
    restored = read_settings(png({"parameters": block}, tmp_path / "fox.png"))
    assert restored.settings.prompt == "fox <lora:my__style:0.5> BREAK snow"
    assert restored.settings.negative_prompt == "rain"
    assert (restored.settings.long_prompt, restored.settings.clip_skip) == ("chunk", 0)
    restored = read_settings(png({"parameters": f"{'fox ' * 30}\n{values}, Clip skip: 40"}, tmp_path / "foxes.png"))
    assert (restored.settings.long_prompt, restored.settings.clip_skip) == ("chunk", 0)
    assert "clip_skip must be 0 to 11, got '39'" in restored.warnings[-1].message


def test_a1111_of_2022(tmp_path: Path) -> None:
    restored = read_settings(png({"parameters": OLD_A1111}, tmp_path / "fox.png"))
    assert restored.settings == Settings(
        prompt="fox", steps=20, scheduler="euler_ancestral", guidance_scale=7, seed=1, width=512, height=512
    )


def test_a1111_without_the_settings_line_is_not_recognised(tmp_path: Path) -> None:
    path = png({"parameters": A1111.rpartition("\n")[0]}, tmp_path / "fox.png")
    assert error_message(path) == "No settings of a known app in 'fox.png'; its texts: 'parameters'."


def test_a_text_file_next_to_the_image_is_the_last_source(tmp_path: Path) -> None:
    path = png({"Comment": "hello"}, tmp_path / "fox.png")
    (tmp_path / "fox.txt").write_text(A1111, "utf-8")
    assert read_settings(path).settings == A1111_SETTINGS
    (tmp_path / "fox.txt").write_text("a caption for training, three: words", "utf-8")
    assert "its texts: 'Comment'" in error_message(path)


@pytest.mark.parametrize(
    ("tail", "source"),
    [
        ("Version: f2.0.1v1.10.1-previous-659-gc055f2d4", "Forge"),
        ("App: SD.Next, Version: 8a2eb17", "SD.Next"),
        ("Version: ComfyUI", "ComfyUI"),
        ("Version: Fooocus v2.5.5", "Fooocus"),
        ("Version: v1.6.0", "A1111"),
        ("Hires upscaler: Latent", "A1111"),
    ],
)
def test_the_app_is_recognised_by_the_block(tail: str, source: str) -> None:
    assert settings_from_text(f"{OLD_A1111}, {tail}").source == source


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("Sampler: DPM++ 2M Karras", "dpm++_2m_karras"),
        ("Sampler: DPM++ 2M, Schedule type: Automatic", "dpm++_2m"),
        ("Sampler: Euler a", "euler_ancestral"),
        ("Sampler: UniPC", "unipc"),
        ("Sampler: dpmpp_2m_sde_gpu, Scheduler: karras", "dpm++_2m_sde_karras"),
    ],
)
def test_sampler_names_are_mapped_to_schedulers(sampler: str, expected: str) -> None:
    restored = settings_from_text(f"fox\nSteps: 20, {sampler}, Seed: 1")
    assert restored.settings.scheduler == expected
    assert codes(restored) == ["other-noise"]


def test_an_unknown_sampler_or_schedule_is_a_warning() -> None:
    restored = settings_from_text("fox\nSteps: 20, Sampler: Restart, Seed: 1")
    assert restored.settings.scheduler is None
    assert restored.warnings[1].message == "Unknown scheduler 'Restart': the current one stays."
    restored = settings_from_text("fox\nSteps: 20, Sampler: Euler a, Schedule type: Polyexponential, Seed: 1")
    assert restored.settings.scheduler == "euler_ancestral"
    assert codes(restored) == ["other-noise", "schedule-type-unknown"]


def test_only_values_outside_their_limits_are_dropped() -> None:
    restored = settings_from_text(
        "fox\nSteps: 500, Sampler: LCM, CFG scale: nan, Seed: -1, Size: 100x99999, Model: __import__('os')"
    )
    assert restored.settings == Settings(prompt="fox", scheduler="lcm")
    dropped = [note.field for note in restored.warnings if note.code == "value-dropped"]
    assert sorted(map(str, dropped)) == ["guidance_scale", "height", "seed", "steps", "width"]


def test_an_incompatible_value_is_dropped() -> None:
    restored = settings_from_text("fox\nSteps: 60, Sampler: LCM, Seed: 1, Size: 2048x2048")
    assert restored.settings == Settings(prompt="fox", scheduler="lcm", seed=1, width=2048, height=2048)
    assert codes(restored) == ["other-noise", "value-dropped"]


# stable-diffusion.cpp

SDCPP = (
    "a sunflower field\nNegative prompt: blue sky\nSteps: 30, CFG scale: 5.000000, Guidance: 3.500000, Eta: 0.000000, "
    "Seed: 1375127038, Size: 512x512, Model: v1-5-pruned-emaonly.safetensors, RNG: cuda, Sampler: dpm++2mv2 karras, "
    "Version: stable-diffusion.cpp"
)
SDCPP_TAIL = ', SDCPP: {"schema":"sdcpp.image.params/v1","seed":7,"prompt":{"positive":"x, Seed: 9, Steps: 1"}}'


@pytest.mark.parametrize("tail", ["", SDCPP_TAIL])
def test_stable_diffusion_cpp(tmp_path: Path, tail: str) -> None:
    restored = read_settings(png({"parameters": SDCPP + tail}, tmp_path / "fox.png"))
    assert restored.source == "stable-diffusion.cpp"
    assert restored.settings == Settings(
        prompt="a sunflower field",
        negative_prompt="blue sky",
        steps=30,
        guidance_scale=5,
        seed=1375127038,
        width=512,
        height=512,
        scheduler="dpm++_2m_karras",
    )
    assert restored.unknown.get("SDCPP", "") == tail.removeprefix(", SDCPP: ")
    assert codes(restored) == ["other-noise", "model-not-used"]


def test_stable_diffusion_cpp_writes_utf_8_into_text_chunks(tmp_path: Path) -> None:
    raw = f"parameters\0{SDCPP.replace('sunflower', '雪')}".encode()
    chunk = len(raw).to_bytes(4) + b"tEXt" + raw + (0).to_bytes(4)
    data = png({}, tmp_path / "fox.png").read_bytes()
    for check, readable in ((zlib.crc32(b"tEXt" + raw), True), (12345, False)):
        (tmp_path / "fox.png").write_bytes(data[:33] + chunk[:-4] + check.to_bytes(4) + data[33:])
        if readable:
            assert read_settings(tmp_path / "fox.png").settings.prompt == "a 雪 field"
        else:
            assert "it contains no text" in error_message(tmp_path / "fox.png")


def test_stable_diffusion_cpp_discrete_schedule() -> None:
    restored = settings_from_text(SDCPP.replace("dpm++2mv2 karras", "euler_a discrete"))
    assert restored.settings.scheduler == "euler_ancestral"


# ComfyUI


def comfy(**nodes: tuple[str, dict[str, Any]]) -> str:
    return json.dumps({id[1:]: {"class_type": kind, "inputs": inputs} for id, (kind, inputs) in nodes.items()})


TEXTS = {
    "_6": ("CLIPTextEncode", {"text": "a fox in snow", "clip": ["4", 1]}),
    "_7": ("CLIPTextEncode", {"text": "blurry", "clip": ["4", 1]}),
}
LATENT = ("EmptyLatentImage", {"width": 640, "height": 448, "batch_size": 1})
KSAMPLER = {
    "seed": 156680208700286, "steps": 20, "cfg": 8, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1,
    "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
}  # fmt: skip
PLAIN = comfy(
    _3=("KSampler", KSAMPLER),
    _4=("CheckpointLoaderSimple", {"ckpt_name": "sd_xl_base_1.0.safetensors"}),
    _5=LATENT,
    _8=("VAEDecode", {"samples": ["3", 0], "vae": ["4", 2]}),
    _9=("SaveImage", {"filename_prefix": "ComfyUI", "images": ["8", 0]}),
    _10=("LoraLoader", {"lora_name": "x", "model": ["4", 0], "clip": ["4", 1]}),
    **TEXTS,
)
COMFY_SETTINGS = Settings(
    prompt="a fox in snow",
    negative_prompt="blurry",
    seed=156680208700286,
    steps=20,
    guidance_scale=8,
    scheduler="dpm++_2m_karras",
    width=640,
    height=448,
)
CUSTOM = comfy(
    _1=("RandomNoise", {"noise_seed": ["40", 0]}),
    _2=("KSamplerSelect", {"sampler_name": "euler"}),
    _3=("BasicScheduler", {"scheduler": "normal", "steps": 12, "denoise": 0.5, "model": ["4", 0]}),
    _4=("UNETLoader", {"unet_name": "flux1-dev.safetensors"}),
    _5=("EmptySD3LatentImage", LATENT[1]),
    _6=("String Literal", {"string": "a fox in snow"}),
    _7=("CLIPTextEncode", {"text": ["6", 0], "clip": ["11", 0]}),
    _8=("FluxGuidance", {"guidance": 3.5, "conditioning": ["7", 0]}),
    _9=("ConditioningZeroOut", {"conditioning": ["7", 0]}),
    _12=("CFGGuider", {"cfg": 2.5, "model": ["4", 0], "positive": ["8", 0], "negative": ["9", 0]}),
    _13=("SamplerCustomAdvanced",
         {"noise": ["1", 0], "guider": ["12", 0], "sampler": ["2", 0], "sigmas": ["3", 0], "latent_image": ["5", 0]}),
    _40=("PrimitiveInt", {"value": 77}),
    _50=("SaveImage", {"images": ["13", 0]}),
)  # fmt: skip


@pytest.mark.parametrize("name", ["fox.png", "fox.jpg", "fox.webp"])
def test_comfyui(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "fox.png":
        png({"prompt": PLAIN, "workflow": "{}"}, path)
    else:
        with_tags({MODEL_TAG: f"prompt:{PLAIN}", MAKE: "workflow:{}"}, path)
    restored = read_settings(path)
    assert (restored.settings, restored.source) == (COMFY_SETTINGS, "ComfyUI")
    assert restored.unknown == {"model": "sd_xl_base_1.0.safetensors", "denoise": 1}
    assert codes(restored) == ["other-noise", "model-not-used"]


def test_comfyui_with_custom_sampling(tmp_path: Path) -> None:
    restored = read_settings(png({"prompt": CUSTOM}, tmp_path / "fox.png"))
    assert restored.settings == Settings(
        prompt="a fox in snow", seed=77, steps=12, guidance_scale=2.5, scheduler="euler", width=640, height=448
    )
    assert restored.unknown == {"model": "flux1-dev.safetensors", "denoise": 0.5}


def test_invalid_comfyui_graphs(tmp_path: Path) -> None:
    assert "broken JSON" in error_message(png({"prompt": PLAIN[:-3]}, tmp_path / "fox.png"))
    no_text = comfy(_3=("KSampler", KSAMPLER), _9=("SaveImage", {"images": ["3", 0]}))
    assert "No settings of a known app" in error_message(png({"prompt": no_text}, tmp_path / "fox.png"))


def test_nan_in_a_comfyui_graph(tmp_path: Path) -> None:
    path = png({"prompt": PLAIN.replace('"denoise": 1', '"denoise": NaN, "is_changed": [NaN]')}, tmp_path / "fox.png")
    assert read_settings(path).settings == COMFY_SETTINGS


def test_the_first_sampler_of_a_saved_image_is_used(tmp_path: Path) -> None:
    nodes = json.loads(PLAIN)
    nodes["2"] = {"class_type": "KSampler", "inputs": {**KSAMPLER, "seed": 2}}  # no node saves its image
    nodes["20"] = {"class_type": "KSampler", "inputs": {**KSAMPLER, "seed": 20, "latent_image": ["3", 0]}}
    nodes["8"]["inputs"]["samples"] = ["20", 0]
    path = png({"prompt": json.dumps(nodes)}, tmp_path / "fox.png")
    assert read_settings(path).settings == COMFY_SETTINGS


def test_prompts_are_resolved_through_control_nets_and_cycles(tmp_path: Path) -> None:
    nodes = json.loads(PLAIN)
    both = {"positive": ["6", 0], "negative": ["7", 0], "control_net": ["7", 0], "image": ["7", 0]}
    nodes["30"] = {"class_type": "ControlNetApplyAdvanced", "inputs": both}
    nodes["3"]["inputs"] |= {"positive": ["30", 0], "negative": ["30", 1]}
    nodes["6"]["inputs"] = {"text": ["31", 0], "clip": ["4", 1]}
    nodes["31"] = {"class_type": "StringConcat", "inputs": {"a": ["31", 0], "b": ["30", 0], "c": ["32", 0]}}
    nodes["32"] = {"class_type": "Primitive", "inputs": {"value": "a fox in snow"}}
    assert read_settings(png({"prompt": json.dumps(nodes)}, tmp_path / "fox.png")).settings == COMFY_SETTINGS


def test_a_graph_of_too_many_nodes_is_refused(tmp_path: Path) -> None:
    nodes = {str(i): {"class_type": "KSampler", "inputs": {}} for i in range(2_001)}
    assert "2,001 nodes" in error_message(png({"prompt": json.dumps(nodes)}, tmp_path / "fox.png"))


# InvokeAI

INVOKE = {
    "generation_mode": "sdxl_txt2img",
    "positive_prompt": "a (red fox)1.3 in snow++, {x}",
    "negative_prompt": "blur--",
    "width": 1024,
    "height": 768,
    "seed": 2614077547,
    "rand_device": "cpu",
    "cfg_scale": 7.5,
    "steps": 30,
    "scheduler": "dpmpp_2m_k",
    "model": {"key": "a", "hash": "blake3:b", "name": "Dreamshaper", "base": "sd-1", "type": "main"},
    "app_version": "5.6.0",
}
INVOKE_SETTINGS = Settings(
    prompt="a (red fox:1.3) in (snow:1.21), \\{x\\}",
    negative_prompt="(blur:0.81)",
    width=1024,
    height=768,
    seed=2614077547,
    guidance_scale=7.5,
    steps=30,
    scheduler="dpm++_2m_karras",
)


def test_invokeai(tmp_path: Path) -> None:
    path = png({"invokeai_metadata": json.dumps(INVOKE), "invokeai_graph": "{}"}, tmp_path / "fox.png")
    restored = read_settings(path)
    assert (restored.settings, restored.source) == (INVOKE_SETTINGS, "InvokeAI")
    assert restored.unknown == {
        "generation_mode": "sdxl_txt2img",
        "rand_device": "cpu",
        "app_version": "5.6.0",
        "model": "Dreamshaper",
    }


def test_invokeai_3(tmp_path: Path) -> None:
    old = {
        "positive_prompt": "a fox",
        "model": {"model_name": "stable-diffusion-v1-5", "base_model": "sd-1", "model_type": "main"},
        "scheduler": "euler_a",
        "steps": None,
        "clip_skip": 0,
    }
    restored = read_settings(png({"invokeai_metadata": json.dumps(old)}, tmp_path / "fox.png"))
    assert restored.settings == Settings(prompt="a fox", scheduler="euler_ancestral")
    assert restored.unknown == {"model": "stable-diffusion-v1-5"}


def test_invalid_invokeai_metadata(tmp_path: Path) -> None:
    assert "broken JSON" in error_message(png({"invokeai_metadata": json.dumps(INVOKE)[:-1]}, tmp_path / "fox.png"))
    empty = json.dumps({**INVOKE, "positive_prompt": ["a", "fox"]})
    assert "No settings of a known app" in error_message(png({"invokeai_metadata": empty}, tmp_path / "fox.png"))


# Fooocus

FOOOCUS = {
    "adm_guidance": "(1.5, 0.8, 0.3)",
    "base_model": "juggernautXL_v8Rundiffusion",
    "base_model_hash": "aeb7e9e689",
    "full_prompt": ["a fox", "cinematic still a fox . emotional"],
    "guidance_scale": 4,
    "loras": [["sd_xl_offset", 0.1, "hash"]],
    "metadata_scheme": "fooocus",
    "negative_prompt": "blurry",
    "performance": "Speed",
    "prompt": "a fox",
    "resolution": "(1152, 896)",
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "seed": "8593498424506543616",
    "sharpness": 2,
    "steps": 30,
    "styles": "['Fooocus V2', 'Fooocus Enhance']",
    "version": "Fooocus v2.5.5",
}
FOOOCUS_SETTINGS = Settings(
    prompt="a fox",
    negative_prompt="blurry",
    guidance_scale=4,
    width=1152,
    height=896,
    seed=8593498424506543616,
    steps=30,
    scheduler="dpm++_2m_sde_karras",
)


@pytest.mark.parametrize("name", ["fox.png", "fox.jpg", "fox.webp"])
def test_fooocus(tmp_path: Path, name: str) -> None:
    path, text = tmp_path / name, json.dumps(FOOOCUS)
    if name == "fox.png":
        png({"parameters": text, "fooocus_scheme": "fooocus"}, path)
    else:
        with_tags({COMMENT: text, SOFTWARE: "Fooocus v2.5.5", MAKER_NOTE: "fooocus"}, path)
    restored = read_settings(path)
    assert (restored.settings, restored.source) == (FOOOCUS_SETTINGS, "Fooocus")
    assert restored.unknown["model"] == "juggernautXL_v8Rundiffusion"
    assert restored.unknown["styles"] == "['Fooocus V2', 'Fooocus Enhance']"


def test_fooocus_with_labels_as_keys(tmp_path: Path) -> None:
    old = {
        "Prompt": "a fox",
        "Negative Prompt": "blurry",
        "Performance": "Speed",
        "Resolution": "('1152', '896')",
        "Guidance Scale": "4.0",
        "Sampler": "dpmpp_2m_sde_gpu",
        "Scheduler": "karras",
        "Seed": "8593498424506543616",
        "Steps": "30",
    }
    restored = read_settings(png({"parameters": json.dumps(old)}, tmp_path / "fox.png"))
    assert restored.settings == FOOOCUS_SETTINGS


def test_fooocus_in_the_a1111_format(tmp_path: Path) -> None:
    text = (
        "cinematic still a fox\nNegative prompt: blurry\nSteps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 5, "
        'Size: 1152x896, CFG scale: 4, ADM Guidance: "(1.5, 0.8, 0.3)", Model: juggernaut, Scheduler: karras, '
        "Raw prompt: a fox, Version: Fooocus v2.5.5"
    )
    restored = read_settings(with_tags({COMMENT: text}, tmp_path / "fox.jpg"))
    assert restored.source == "Fooocus"
    assert restored.settings.scheduler == "dpm++_2m_sde_karras"
    assert restored.unknown["ADM Guidance"] == "(1.5, 0.8, 0.3)"


def test_invalid_fooocus_metadata(tmp_path: Path) -> None:
    assert "broken JSON" in error_message(png({"parameters": json.dumps(FOOOCUS)[:-2]}, tmp_path / "fox.png"))
    odd = {**FOOOCUS, "resolution": "__import__('os').system('true')", "steps": [30], "seed": {"a": 1}}
    restored = read_settings(png({"parameters": json.dumps(odd)}, tmp_path / "odd.png"))
    assert restored.settings == FOOOCUS_SETTINGS.replace(width=None, height=None, steps=None, seed=None)


# clipgen


def test_an_invalid_record_falls_back_to_the_block_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    data = encode_image(sample_image(), record_of(), format="png")
    body = data[data.index(b"clipgen\0") - 4 :]
    chunk = body[: 4 + int.from_bytes(data[data.index(b"clipgen\0") - 8 :][:4])]
    spoiled = chunk.replace(b'"schema"', b'"schema\\')
    fixed = data.replace(chunk + zlib.crc32(chunk).to_bytes(4), spoiled + zlib.crc32(spoiled).to_bytes(4))
    path.write_bytes(fixed)
    restored = read_settings(path)
    assert (restored.settings, restored.record) == (FOX, None)
    assert codes(restored) == ["text-unreadable"]
    assert restored.warnings[0].message.startswith("The text 'clipgen' is not readable: broken JSON (")


def test_known_fields_of_a_newer_record_are_read(tmp_path: Path) -> None:
    record = record_of()
    record["schema"] = "clipgen/2"
    record["settings"] |= {"warp": 9, "steps": 9_999}
    path = tmp_path / "fox.png"
    path.write_bytes(encode_image(sample_image(), record, format="png"))
    restored = read_settings(path)
    assert restored.settings == FOX.replace(steps=None)
    assert restored.unknown == {"warp": 9}
    assert codes(restored) == ["newer-record", "value-dropped"]


def test_missing_and_invalid_sections_of_a_record_become_empty() -> None:
    record = {"schema": "clipgen/1", "settings": {"prompt": "fox"}, "clip": [], "model": {"hash": 1}, "seed": "x"}
    restored = settings_from_text(json.dumps(record))
    assert restored.settings == Settings(prompt="fox")
    assert restored.record == {
        "schema": "clipgen/1",
        "settings": {"prompt": "fox"},
        "seed": None,
        "job": None,
        "clip": None,
        "model": {"name": None, "hash": None, "family": None},
        "runtime": {},
        "inputs": {},
        "warnings": [],
    }


def test_a_record_is_read_from_a_json_file_or_a_string(tmp_path: Path) -> None:
    text = json.dumps(record_of())
    (tmp_path / "fox.json").write_text(text, "utf-8")
    for restored in (read_settings(tmp_path / "fox.json"), settings_from_text(text)):
        assert (restored.settings, restored.source) == (FOX, "clipgen")
        assert restored.record == record_of()


def test_the_prompt_of_a_clipgen_record_is_not_escaped() -> None:
    prompt = "a {red|blue} fox, __x__ <b:1>"
    record = record_of(FOX.replace(prompt=prompt), model={**MODEL, "hash": None})
    assert settings_from_text(json.dumps(record)).settings.prompt == prompt


# The texts of a file


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (b"UNICODE\0", "fox 雪".encode("utf-16-be")),
        (b"UNICODE\0", "fox 雪".encode("utf-16-le")),
        (b"UNICODE\0", "fox 雪".encode("utf-16")),
        (b"ASCII\0\0\0", "fox 雪".encode()),
        (b"\0" * 8, "fox 雪".encode()),
        (b"", "fox 雪".encode()),
    ],
)
@pytest.mark.parametrize("order", ["little", "big"])
def test_user_comments_in_every_encoding(tmp_path: Path, head: bytes, text: bytes, order: Any) -> None:
    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, order)

    value = head + text + b"\0\0"
    exif = {"little": b"II*\0", "big": b"MM\0*"}[order] + number(8, 4)
    exif += number(1, 2) + number(0x8769, 2) + number(4, 2) + number(1, 4) + number(26, 4) + number(0, 4)
    exif += number(1, 2) + number(0x9286, 2) + number(7, 2) + number(len(value), 4) + number(44, 4) + number(0, 4)
    for name in ("fox.jpg", "fox.webp"):
        path = with_exif(b"Exif\0\0" + exif + value, tmp_path / name)
        assert read_chunks(path)["exif:UserComment"] == "fox 雪"


def test_compressed_texts_and_texts_after_the_pixels_and_the_first_of_a_keyword(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("a", "first")
    info.add_text("a", "second")
    info.add_text("b", "packed " * 100, zip=True)
    info.add_itxt("c", "雪 " * 100, zip=True)
    info.add(b"teXt", b"", after_idat=True)
    path = tmp_path / "fox.png"
    sample_image().save(path, pnginfo=info)
    data = path.read_bytes()
    late = b"tEXtd\0late"
    path.write_bytes(data[:-12] + (6).to_bytes(4) + late + zlib.crc32(late).to_bytes(4) + data[-12:])
    assert read_chunks(path) == {"a": "first", "b": "packed " * 100, "c": "雪 " * 100, "d": "late"}


def test_exif_in_a_png_and_a_comment_in_a_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[SOFTWARE] = "x"
    sample_image().save(tmp_path / "fox.png", exif=exif)
    assert read_chunks(tmp_path / "fox.png") == {"exif:Software": "x"}
    sample_image().save(tmp_path / "fox.jpg", comment="fox é")
    assert read_chunks(tmp_path / "fox.jpg") == {"comment": "fox é"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("none.png", None, "Cannot read '.*none.png': No such file or directory."),
        ("none.json", None, "Cannot read '.*none.json': No such file or directory."),
        ("empty.png", b"", "'.*empty.png' is not a PNG, JPEG or WebP file."),
        ("x.png", b"GIF89a" + b"\0" * 40, "'.*x.png' is not a PNG, JPEG or WebP file."),
        ("bad.txt", b"\xff\xfe\x00 hello", "No settings of a known app in 'bad.txt'; its texts: 'text'."),
        ("big.txt", b"a" * (2**20 + 1), "'.*big.txt' is larger than 1,048,576 bytes."),
    ],
)
def test_missing_empty_and_unsupported_files(tmp_path: Path, name: str, data: bytes | None, message: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageFileError, match=f"^{message}$"):
        read_settings(tmp_path / name)


def test_a_folder_and_a_path_with_a_null_byte(tmp_path: Path) -> None:
    assert "Is a directory" in error_message(tmp_path)
    assert "null" in error_message(tmp_path / "a\0b.png")


def test_a_file_over_50_megabytes_is_refused(tmp_path: Path) -> None:
    path = png({}, tmp_path / "fox.png")
    os_file = path.open("r+b")
    os_file.truncate(50_000_001)
    os_file.close()
    assert error_message(path).endswith("has 50,000,001 bytes; at most 50,000,000 are read.")


def test_an_image_without_text(tmp_path: Path) -> None:
    assert (
        error_message(png({}, tmp_path / "fox.png")) == "No settings of a known app in 'fox.png'; it contains no text."
    )
