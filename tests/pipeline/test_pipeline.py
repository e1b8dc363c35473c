from __future__ import annotations

import json
import random
import shutil
import threading

import accelerate
import diffusers
import numpy
import pytest
import torch

from clipgen import (
    BrokenImage,
    Cancelled,
    ModelError,
    OutOfMemory,
    Pipeline,
    PromptError,
    Result,
    Settings,
    SettingsError,
    Step,
    generate,
    generate_many,
)
from clipgen.image_file import encode_image
from clipgen.models.ids import BUNDLED

PLAIN = {"use_karras_sigmas": False}
DIFFUSERS_SCHEDULERS = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", PLAIN),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "dpm++_2m": ("DPMSolverMultistepScheduler", PLAIN),
    "unipc": ("UniPCMultistepScheduler", PLAIN),
}
STORYBOOK = BUNDLED["storybook"]
SMALL = {"width": 64, "height": 64}
MODELS = ["tiny_epsilon", "tiny_v", *(["storybook"] if STORYBOOK.is_dir() else [])]


@pytest.fixture(scope="module")
def folders(tiny_epsilon, tiny_v):
    return {"tiny_epsilon": tiny_epsilon, "tiny_v": tiny_v, "storybook": STORYBOOK}


@pytest.fixture(scope="module")
def pipes(folders):
    return {name: Pipeline.from_pretrained(str(folders[name])) for name in MODELS}


@pytest.fixture(scope="module")
def diffusers_pipelines(folders):
    """The pipelines of diffusers with the same models."""
    options = {"dtype": torch.float32, "local_files_only": True}
    return {name: diffusers.StableDiffusionPipeline.from_pretrained(folders[name], **options) for name in MODELS}


@pytest.fixture
def pipe(tiny_v):
    """A separate pipeline, for tests that modify it."""
    return Pipeline.from_pretrained(str(tiny_v))


def draw(pipe, prompt="a fox in snow", **settings):
    return [
        event
        for event in pipe.generate(Settings(prompt=prompt, **{"seed": 7, **settings}))
        if isinstance(event, Result)
    ]


def diffusers_images(
    reference_pipe, scheduler, seeds, *, steps, guidance_scale, prompt="a fox in snow", negative="", **options
):
    """Returns the images of diffusers, [B, 3, H, W] in 0 to 1."""
    name, config = DIFFUSERS_SCHEDULERS[scheduler]
    reference_pipe.scheduler = getattr(diffusers, name).from_config(reference_pipe.scheduler.config, **config)
    reference_pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    count = len(seeds)
    options |= {"prompt": [prompt] * count, "negative_prompt": [negative] * count, "generator": generators}
    images = reference_pipe(
        num_inference_steps=steps, guidance_scale=guidance_scale, output_type="np", **options
    ).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.mark.parametrize("scheduler", DIFFUSERS_SCHEDULERS)
@pytest.mark.parametrize("model", MODELS)
def test_images_equal_those_of_diffusers(pipes, diffusers_pipelines, model, scheduler):
    pipe = pipes[model]
    size = {side: pipe.defaults[side] for side in ("width", "height")}
    ours = torch.stack([r.pixels for r in draw(pipe, images=2, steps=6, scheduler=scheduler, guidance_scale=5.0)])
    theirs = diffusers_images(diffusers_pipelines[model], scheduler, (7, 8), steps=6, guidance_scale=5.0, **size)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1 / 255


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"guidance_scale": 1.0}, {"guidance_scale": 1.0}),
        ({"guidance_scale": 9.0, "guidance_rescale": 0.7}, {"guidance_scale": 9.0, "guidance_rescale": 0.7}),
        ({"guidance_scale": 5.0, "eta": 1.0}, {"guidance_scale": 5.0, "eta": 1.0}),
        ({"guidance_scale": 5.0, "negative_prompt": "rain"}, {"guidance_scale": 5.0, "negative": "rain"}),
        ({"guidance_scale": 5.0, "width": 192}, {"guidance_scale": 5.0, "width": 192}),
    ],
)
def test_options_act_as_in_diffusers(pipes, diffusers_pipelines, mine, theirs):
    ours = draw(pipes["tiny_v"], steps=4, **mine)[0].pixels
    size = {"width": 128, "height": 128}
    reference = diffusers_images(diffusers_pipelines["tiny_v"], "ddim", (7,), steps=4, **{**size, **theirs})[0]
    assert (ours - reference).abs().max() <= 1e-4


def nearly_equal(a, b):
    """Returns whether the images differ by at most 1/255, and in at most 0.1% of the values."""
    apart = ((a * 255).round() - (b * 255).round()).abs()
    return bool(apart.max() <= 1 and (apart > 0).float().mean() <= 0.001)


@pytest.mark.parametrize("scheduler", ["euler_ancestral", "dpm++_2m_sde", "ddim"])
@pytest.mark.parametrize("model", MODELS)
def test_each_image_of_a_run_equals_a_run_with_its_seed(pipes, model, scheduler):
    together = draw(pipes[model], images=4, steps=4, scheduler=scheduler)
    alone = [draw(pipes[model], seed=7 + k, steps=4, scheduler=scheduler)[0] for k in (0, 3)]
    assert [result.seed for result in together] == [7, 8, 9, 10]
    assert nearly_equal(together[0].pixels, alone[0].pixels)
    assert nearly_equal(together[3].pixels, alone[1].pixels)
    assert not nearly_equal(together[0].pixels, together[3].pixels)


def test_the_same_call_twice_gives_the_same_bytes(pipes):
    files = [encode_image(r.image, r.metadata, format="png") for _ in range(2) for r in draw(pipes["tiny_v"], eta=0.5)]
    assert files[0] == files[1]


def test_the_settings_of_a_result_reproduce_it(pipes):
    first = draw(pipes["tiny_v"], "a {red|blue|green|big} fox", images=3)[2]
    again = draw(pipes["tiny_v"], **first.settings.to_dict())[0]
    assert again.settings == first.settings
    assert torch.equal(again.pixels, first.pixels) or nearly_equal(again.pixels, first.pixels)


def test_global_random_state_is_unchanged(tiny_v):
    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tobytes()
    pipe = Pipeline.from_pretrained(str(tiny_v))
    draw(pipe, scheduler="euler_ancestral", seed=None)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), numpy.random.get_state()[1].tobytes()) == before[1:]


def test_events_are_steps_and_then_results(pipes):
    events = list(pipes["tiny_v"].generate(Settings(prompt="a fox", images=2, steps=3, seed=1)))
    kinds = [(type(e).__name__, e.image if isinstance(e, Step) else e.index) for e in events]
    assert kinds == [("Step", 0), ("Step", 1)] * 3 + [("Result", 0), ("Result", 1)]
    steps = [event for event in events if isinstance(event, Step)]
    assert [step.index for step in steps[::2]] == [0, 1, 2]
    assert {step.steps for step in steps} == {3}
    assert steps[0].eta is None
    assert steps[-1].eta > 0
    assert steps[0].latents.shape == steps[0].x0.shape == (8, 16, 16)


def test_preview_and_score_of_the_last_step_equal_the_result(pipes):
    """The last x0 of DDIM is the final image."""
    events = list(pipes["tiny_v"].generate(Settings(prompt="a fox", steps=4, seed=1)))
    last, result = events[-2:]
    assert last.preview().size == result.image.size == (128, 128)
    assert numpy.abs(numpy.asarray(last.preview(), int) - numpy.asarray(result.image, int)).max() <= 1
    assert last.similarity == pytest.approx(result.clip.similarity, abs=1e-4)
    assert last.percentile == pytest.approx(result.clip.percentile, abs=0.5)


def test_only_some_steps_have_a_similarity(pipes):
    steps = [e for e in pipes["tiny_v"].generate(Settings(prompt="a fox", steps=20, seed=1)) if isinstance(e, Step)]
    scored = [step.index for step in steps if step.similarity is not None]
    assert scored == [0, 3, 6, 9, 12, 15, 18, 19]


def test_settings_are_resolved_and_recorded(pipes, tiny_v):
    result = draw(pipes["tiny_v"], seed=None)[0]
    assert result.settings.replace(seed=0) == Settings(
        prompt="a fox in snow", model=str(tiny_v), seed=0, steps=4, width=128, height=128, scheduler="ddim",
        guidance_scale=4.0, eta=0.0,
    )  # fmt: skip
    assert 0 <= result.settings.seed < 2**32
    assert result.metadata["seed"] == result.seed == result.settings.seed
    assert result.metadata["model"] == {
        "name": "./tiny-v",
        "hash": result.origin.hash(),
        "family": "stable_diffusion",
    }
    assert result.metadata["runtime"].keys() == {"clipgen", "torch", "diffusers", "device", "dtype", "rng"}
    assert str(tiny_v.parent) not in json.dumps(result.metadata)
    assert result.path is None


def test_the_score_is_calibrated_and_none_without_a_clip(pipes):
    scored = draw(pipes["tiny_v"])[0]
    assert scored.clip.model == "tiny-v/clip"
    assert 0 <= scored.clip.percentile <= 100
    assert scored.clip.captions > 500
    assert scored.metadata["clip"] == scored.clip.to_dict()
    bare = draw(pipes["tiny_epsilon"])[0]
    assert bare.clip is bare.metadata["clip"] is None
    assert [note.code for note in bare.warnings] == ["no-clip"]


def test_wildcards_depend_on_the_seed_of_each_image(pipes):
    template = "a {red|blue|green|small|big|happy} fox"
    together = draw(pipes["tiny_v"], template, images=4)
    alone = [draw(pipes["tiny_v"], template, seed=7 + k)[0] for k in range(4)]
    assert [r.settings.prompt for r in together] == [r.settings.prompt for r in alone]
    assert len({r.settings.prompt for r in together}) > 1
    assert {r.settings.prompt_template for r in together} == {template}


def test_a_long_prompt_is_truncated_with_a_warning(pipes):
    words = " ".join(["word"] * 12)
    result = draw(pipes["tiny_v"], f"a fox {words}", negative_prompt=f"rain {words}")[0]
    assert [(note.code, note.field) for note in result.warnings] == [
        ("prompt-cut", "prompt"),
        ("prompt-cut", "negative_prompt"),
    ]
    with pytest.raises(PromptError, match="longer than the 30 tokens"):
        draw(pipes["tiny_v"], f"a fox {words}", long_prompt="error")


def test_a_warning_about_a_prompt_belongs_to_its_image(pipes):
    template = "a fox {in snow|" + "word " * 12 + "}"
    results = draw(pipes["tiny_v"], template, images=6)
    cut = [bool(result.warnings) for result in results]
    assert cut == ["word" in result.settings.prompt for result in results]
    assert len(set(cut)) == 2


def test_prompts_are_encoded_once(pipe):
    calls = []
    pipe.family.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    draw(pipe, images=3)
    draw(pipe, seed=50)
    assert len(calls) == 2


def test_closing_the_generator_stops_the_run(pipe):
    calls = []
    pipe.family.unet.register_forward_hook(lambda *_: calls.append(1))
    events = pipe.generate(Settings(prompt="a fox", steps=50, seed=1))
    next(events)
    next(events)
    events.close()
    assert len(calls) == 2
    assert draw(pipe)


def test_cancelled_has_the_finished_results(pipe):
    def show(step):
        if step.image == 8:
            raise Cancelled

    with pytest.raises(Cancelled) as stopped:
        pipe.run(Settings(prompt="a fox", images=9, steps=2, seed=1), on_step=show)
    assert [result.seed for result in stopped.value.results] == list(range(1, 9))


def test_run_returns_the_results_of_generate_as_a_list(pipes):
    steps = []
    results = pipes["tiny_v"].run(Settings(prompt="a fox", seed=1, images=2), on_step=steps.append)
    assert [result.index for result in results] == [0, 1]
    assert len(steps) == 8


def test_an_error_in_a_step_leaves_the_pipeline_usable(pipe):
    expected = draw(pipe)[0].pixels

    def fail(*_):
        raise KeyError("cable")

    handle = pipe.family.unet.register_forward_hook(fail)
    with pytest.raises(KeyError):
        draw(pipe)
    handle.remove()
    assert torch.equal(draw(pipe)[0].pixels, expected)


def test_threads_can_share_a_pipeline(pipe):
    expected = {seed: draw(pipe, seed=seed)[0].pixels for seed in (1, 2, 3)}
    results = {}
    threads = [
        threading.Thread(target=lambda seed=seed: results.update({seed: draw(pipe, seed=seed)[0].pixels}))
        for seed in expected
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(results[seed], expected[seed]) for seed in expected)


def test_two_runs_in_one_thread_can_alternate(pipes):
    pairs = list(zip(*(pipes["tiny_v"].generate(Settings(prompt="a fox", seed=seed)) for seed in (1, 2)), strict=True))
    assert [result.seed for result in pairs[-1]] == [1, 2]


def make_sample_nan(row, at_step):
    """Returns a hook that makes the denoiser output of sample `row` NaN after `at_step` calls."""
    calls = []

    def hook(module, args, output):
        calls.append(1)
        sample = output[0].clone()
        if len(calls) > at_step:
            sample[row :: len(sample) // 2] = torch.nan
        return (sample,)

    return hook


def test_a_broken_image_is_an_error_after_the_other_results(pipe):
    pipe.family.unet.register_forward_hook(make_sample_nan(1, at_step=2))
    seeds = []

    def collect():
        for event in pipe.generate(Settings(prompt="a fox", seed=7, images=3)):
            seeds.extend([event.seed] if isinstance(event, Result) else [])

    with pytest.raises(BrokenImage, match=r"seed 8 is broken .* by the denoiser at step 3 of 4") as error:
        collect()
    assert seeds == [7, 9]
    assert error.value.exit_code == 5


def test_a_constant_image_is_broken_by_the_decoder(pipe):
    with torch.no_grad():
        for weights in pipe.family.vae.decoder.parameters():
            weights.zero_()
    with pytest.raises(BrokenImage, match=r"2 images are broken. .*seed 7 .* by the decoder"):
        draw(pipe, images=2)


def test_nan_in_half_precision_is_repeated_in_float32(tiny_v):
    expected = draw(Pipeline.from_pretrained(str(tiny_v)))[0]
    pipe = Pipeline.from_pretrained(str(tiny_v), dtype="bfloat16")
    assert draw(pipe)[0].settings == expected.settings
    pipe.family.unet.register_forward_hook(
        lambda module, args, output: (output[0] * (torch.nan if module.dtype == torch.bfloat16 else 1),)
    )
    result = draw(pipe, negative_prompt="rain " * 40)[0]
    assert [note.code for note in result.warnings] == ["prompt-cut", "float32-retry"]
    result = draw(pipe)[0]  # the model stays in float32
    assert result.warnings == ()
    assert (result.pixels - expected.pixels).abs().mean() <= 2 / 255


def test_nan_in_float16_is_repeated_in_bfloat16_and_then_in_float32(tiny_v):
    pipe = Pipeline.from_pretrained(str(tiny_v), dtype="float16")
    broken = [torch.float16]
    pipe.family.unet.register_forward_hook(
        lambda module, args, output: (output[0] * (torch.nan if module.dtype in broken else 1),)
    )
    assert [note.code for note in draw(pipe)[0].warnings] == ["bfloat16-retry"]
    broken.append(torch.bfloat16)
    assert [note.code for note in draw(pipe)[0].warnings] == ["float32-retry"]
    assert pipe.family.unet.dtype == torch.float32


def test_a_size_far_from_the_default_is_a_warning(pipes):
    (note,) = draw(pipes["tiny_v"], steps=1, width=256, height=256)[0].warnings
    assert (note.code, note.field) == ("size", "width")
    assert note.message.startswith("256 x 256 is far from the model's own size, 128 x 128")
    assert draw(pipes["tiny_v"], steps=1, width=192)[0].warnings == ()


def test_pipelines_and_results_have_short_reprs(pipes, folders):
    name = str(folders["tiny_v"])
    assert repr(pipes["tiny_v"]) == f"Pipeline({name!r}, family='stable_diffusion', device='cpu', dtype='float32')"
    result = draw(pipes["tiny_v"], steps=1)[0]
    assert repr(result).startswith("Result('a fox in snow', seed=7, size=128x128")
    assert len(repr(result)) < 100


def test_a_pipeline_stays_on_its_device_and_refuses_an_unknown_one(pipe):
    assert pipe.to("cpu") is pipe
    with pytest.raises(SettingsError, match="Device 'gpu' is not available"):
        pipe.to("gpu")


def limit_batch_size(most):
    """Returns a hook that raises OutOfMemoryError for a batch of more than `most` samples."""

    def hook(module, args):
        if len(args[0]) > most:
            raise torch.OutOfMemoryError(f"Tried to allocate {len(args[0])}.00 GiB")

    return hook


def test_smaller_batches_after_out_of_memory_give_the_same_images(pipe):
    expected = draw(pipe, images=2)
    pipe.family.unet.register_forward_pre_hook(limit_batch_size(1))
    pipe.family.vae.decoder.register_forward_pre_hook(limit_batch_size(1))
    results = draw(pipe, images=2)
    assert all(nearly_equal(a.pixels, b.pixels) for a, b in zip(expected, results, strict=True))
    assert {note.code for note in results[0].warnings} == {"memory"}
    assert "denoising ran 1 at a time" in results[0].metadata["warnings"][0]["message"]


def test_out_of_memory_for_one_image_is_an_error_of_one_line(pipe):
    pipe.family.unet.register_forward_pre_hook(limit_batch_size(0))
    with pytest.raises(OutOfMemory, match=r"denoising of 128 x 128 does not fit .* Try 64 x 64") as error:
        draw(pipe)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("part", "message"), [("text_encoder", "The text encoder"), ("clip", "CLIP")])
def test_out_of_memory_in_the_text_encoder_or_clip_is_an_error(pipe, part, message):
    network = pipe.scorer.encoder.model.vision_model if part == "clip" else pipe.family.text_encoder

    def refuse(*_):
        raise torch.OutOfMemoryError("Tried to allocate 1.00 GiB")

    network.register_forward_pre_hook(refuse)
    with pytest.raises(OutOfMemory, match=f"{message} does not fit into the memory of cpu"):
        draw(pipe)


def test_from_diffusers_uses_a_loaded_pipeline(pipes, diffusers_pipelines):
    pipe = Pipeline.from_diffusers(diffusers_pipelines["tiny_v"])
    settings = {**pipes["tiny_v"].defaults, "steps": 3}
    ours, expected = draw(pipe, **settings)[0], draw(pipes["tiny_v"], **settings)[0]
    assert torch.equal(ours.pixels, expected.pixels)
    assert ours.metadata["model"]["hash"] is None
    assert ours.clip is None
    with pytest.raises(ModelError, match="'object' is not supported"):
        Pipeline.from_diffusers(object())


def weights_of(pipeline):
    """Returns the identity, memory format and dtype of all weights of a diffusers pipeline."""
    networks = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    return {
        f"{name}.{key}": (weight.data_ptr(), weight.stride(), weight.dtype)
        for name, network in networks.items()
        for key, weight in network.named_parameters()
    }


def test_from_diffusers_leaves_the_pipeline_as_it_is(folders):
    reference = diffusers.StableDiffusionPipeline.from_pretrained(folders["tiny_epsilon"], local_files_only=True)
    before = weights_of(reference)
    pipe = Pipeline.from_diffusers(reference)
    draw(pipe, steps=2, **SMALL)
    pipe.family.denoiser.half()
    assert pipe.family.decoder_to_float32() is False
    assert pipe.family.widen_denoiser() == torch.bfloat16
    assert weights_of(reference) == before


@pytest.mark.parametrize("kind", ["group", "sequential"])
def test_from_diffusers_takes_offloaded_pipelines(folders, pipes, kind):
    reference = diffusers.StableDiffusionPipeline.from_pretrained(folders["tiny_epsilon"], local_files_only=True)
    if kind == "group":
        reference.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    else:
        for name in ("unet", "vae", "text_encoder"):
            accelerate.cpu_offload(reference.components[name], torch.device("cpu"))
    pipe = Pipeline.from_diffusers(reference)
    expected = draw(pipes["tiny_epsilon"], steps=2, **SMALL)[0].pixels
    assert torch.equal(draw(pipe, steps=2, **SMALL)[0].pixels, expected)


def test_offloaded_networks_of_from_diffusers_are_not_converted(folders):
    options = {"dtype": torch.float16, "local_files_only": True}
    reference = diffusers.StableDiffusionPipeline.from_pretrained(folders["tiny_epsilon"], **options)
    reference.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    pipe = Pipeline.from_diffusers(reference)
    assert pipe.family.widen_denoiser() is None
    assert reference.unet.dtype == torch.float16


def test_from_diffusers_replaces_tcd_with_a_note_and_refuses_unknown_schedulers(folders):
    reference = diffusers.StableDiffusionPipeline.from_pretrained(folders["tiny_epsilon"], local_files_only=True)
    reference.scheduler = diffusers.TCDScheduler.from_config(reference.scheduler.config)
    pipe = Pipeline.from_diffusers(reference)
    (note,) = [note for note in draw(pipe, steps=2, **SMALL)[0].warnings if note.code == "scheduler-replaced"]
    assert note.message == "The model's scheduler is TCD; clipgen runs ddim instead."
    chosen = draw(pipe, steps=2, scheduler="euler", **SMALL)[0].warnings
    assert "scheduler-replaced" not in [note.code for note in chosen]
    reference.scheduler = diffusers.EDMEulerScheduler()
    with pytest.raises(ModelError, match="Scheduler 'EDMEulerScheduler' is not supported with StableDiffusionPipeline"):
        Pipeline.from_diffusers(reference)


def test_generate_returns_one_image(tiny_v, tmp_path):
    result = generate("a fox", model=str(tiny_v), seed=1, steps=2)
    assert result.save(tmp_path / "fox.png") == tmp_path / "fox.png" == result.path
    with pytest.raises(SettingsError, match="generate_many"):
        generate("a fox", model=str(tiny_v), images=2)


def test_generate_many_is_lazy_and_loads_the_model_once(tiny_v, tmp_path):
    folder = shutil.copytree(tiny_v, tmp_path / "model")
    results = generate_many(["a fox", "an owl"], model=str(folder), seed=1, steps=2)
    first = next(results)
    shutil.rmtree(folder)
    second = next(results)
    assert (first.settings.prompt, second.settings.prompt) == ("a fox", "an owl")
