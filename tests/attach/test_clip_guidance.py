"""ClipGuidance on diffusers pipelines: it raises similarity, equals the loop, and restores the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from attach.support import outcome, similarity, state_of
from attach.tiny_pipelines import PROMPT
from parity import SEEDS, clipgen_images, diffusers_images, max_difference
from PIL import Image

from clipgen import ClipGuidance, Pipeline, Settings, SettingsError

OF_EACH_KIND = {  # one pipeline per VAE recipe, latent layout, scheduler kind and form of the denoiser's output
    "Flux2KleinPipeline": "batch norm in the VAE; tokens, one per latent",
    "ErnieImagePipeline": "batch norm in the VAE; patches as channels",
    "QwenImagePipeline": "a video VAE on one frame; tokens; renormalised guidance",
    "Cosmos2TextToImagePipeline": "5-D latents; the sample is part of the model output",
    "KandinskyV22Pipeline": "MoVQ; learned variance",
    "WuerstchenDecoderPipeline": "Paella VQ-GAN; its own scheduler",
    "LDMSuperResolutionPipeline": "VQ-GAN",
    "SanaSprintPipeline": "deep compression VAE; TrigFlow",
    "ZImagePipeline": "lists of images, negated",
}


@pytest.fixture(scope="module")
def clip(tiny_v: Path) -> str:
    return str(tiny_v / "clip")


def without_progress_bar(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_epsilon: Path, tiny_v: Path) -> dict[str, Path]:
    made = {"epsilon": tiny_epsilon, "v": tiny_v}
    for name, save in (("xl", tiny.save_xl), ("sd3", tiny.save_sd3), ("flux", tiny.save_flux)):
        made[name] = save(tmp_path_factory.mktemp("attach") / name)
    return made


def load(folder: Path, task: str = "Text2Image") -> Any:
    import diffusers

    return without_progress_bar(getattr(diffusers, f"AutoPipelineFor{task}").from_pretrained(folder))


KINDS = ("epsilon", "v", "xl", "sd3", "flux", "image-to-image", "inpainting")


@pytest.fixture(scope="module", params=KINDS)
def pipe_and_draw(request: pytest.FixtureRequest, folders: dict[str, Path]) -> tuple[Any, Callable[[], torch.Tensor]]:
    """Returns a pipeline, and a function that generates two images with it, [2, 3, H, W]."""
    kind = request.param
    name = {"image-to-image": "epsilon", "inpainting": "epsilon"}.get(kind, kind)
    task = "Image2Image" if "image-to-image" in kind else "Inpainting" if kind == "inpainting" else "Text2Image"
    pipe = load(folders[name], task)
    arguments: dict[str, Any] = {"num_inference_steps": 6, "num_images_per_prompt": 2}
    arguments |= {"image": Image.new("RGB", (64, 64), "teal"), "strength": 0.8} if task != "Text2Image" else {}
    arguments |= {"mask_image": Image.new("L", (64, 64), 255)} if task == "Inpainting" else {}
    arguments |= {} if task == "Image2Image" else {"width": 64, "height": 64}
    arguments |= {"max_sequence_length": 32} if name in ("sd3", "flux") else {}

    def draw() -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
        images = pipe(PROMPT, generator=generators, output_type="np", **arguments).images  # [2, H, W, 3]
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    return pipe, draw


def test_guidance_raises_similarity_and_restores_the_pipeline(
    pipe_and_draw: tuple[Any, Callable[[], torch.Tensor]], clip: str
) -> None:
    pipe, draw = pipe_and_draw
    plain, before = draw(), state_of(pipe)
    with ClipGuidance(pipe, PROMPT, scale=1.0, clip_models=[clip], guidance_stop=1.0, guide_decoder="full") as guidance:
        guided, again = draw(), draw()
    assert torch.equal(guided, again)
    assert not torch.equal(guided, plain)
    assert similarity(clip, guided) > similarity(clip, plain)
    assert len(guidance.curve(1)) >= 4
    assert state_of(pipe) == before
    assert torch.equal(draw(), plain)


@pytest.mark.parametrize("name", OF_EACH_KIND)
@pytest.mark.filterwarnings("ignore")
def test_pipelines_of_each_kind_are_guided(clip: str, name: str) -> None:
    status, details = outcome(name, clip)
    assert status == "guided", details


def test_a_scheduler_replaced_inside_is_guided_and_restored(folders: dict[str, Path], clip: str) -> None:
    import diffusers

    pipe = load(folders["epsilon"])
    first, second = pipe.scheduler, diffusers.DDIMScheduler.from_config(pipe.scheduler.config)

    def draw() -> Any:
        return pipe(PROMPT, num_inference_steps=3, generator=torch.Generator().manual_seed(1), output_type="np").images

    with ClipGuidance(pipe, PROMPT, scale=1, clip_models=[clip], guidance_start=0) as guidance:
        pipe.scheduler = second
        replaced = draw()
        assert len(guidance.curve()) == 3
    assert not {"step"} & (vars(first).keys() | vars(second).keys())
    assert (draw() != replaced).any()

    with ClipGuidance(pipe, PROMPT, clip_models=[clip]):
        pipe.scheduler = diffusers.EDMEulerScheduler()
        with pytest.raises(SettingsError, match="Scheduler 'EDMEuler' cannot be guided"):
            draw()


@pytest.mark.parametrize("kind", ["group", "sequential"])
def test_offloaded_pipelines_are_guided(folders: dict[str, Path], clip: str, kind: str) -> None:
    import accelerate

    def draw(pipe: Any) -> Any:
        return pipe(PROMPT, num_inference_steps=3, generator=torch.Generator().manual_seed(1), output_type="np").images

    plain, offloaded = load(folders["epsilon"]), load(folders["epsilon"])
    with ClipGuidance(plain, PROMPT, scale=1, clip_models=[clip]):
        expected = draw(plain)
    if kind == "group":
        offloaded.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    else:
        for name in ("unet", "vae", "text_encoder"):
            accelerate.cpu_offload(getattr(offloaded, name), torch.device("cpu"))
    before = state_of(offloaded)
    with ClipGuidance(offloaded, PROMPT, scale=1, clip_models=[clip]):
        assert abs(draw(offloaded) - expected).max() < 1e-5
    assert state_of(offloaded) == before


def test_a_scheduler_that_clips_x0_is_noted(folders: dict[str, Path], clip: str) -> None:
    import diffusers

    pipe = load(folders["epsilon"])
    for clips, codes in ((True, ["clip-sample"]), (False, [])):
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=clips)
        with ClipGuidance(pipe, PROMPT, clip_models=[clip]) as guidance:
            pipe(PROMPT, num_inference_steps=2, output_type="latent")
        assert [note.code for note in guidance.notes()] == codes


def test_scale_zero_changes_nothing(folders: dict[str, Path], clip: str) -> None:
    pipe = load(folders["v"])

    def draw() -> Any:
        return pipe(PROMPT, num_inference_steps=3, generator=torch.Generator().manual_seed(1), output_type="np").images

    plain = draw()
    with ClipGuidance(pipe, PROMPT, scale=0, clip_models=[clip]):
        assert (draw() == plain).all()


@pytest.mark.parametrize("scheduler", ["PNDM", "EulerDiscrete", "HeunDiscrete", "UniPCMultistep", "DDIM"])
def test_attached_guidance_equals_the_loop(folders: dict[str, Path], clip: str, scheduler: str) -> None:
    import diffusers

    names = {"PNDM": "pndm", "EulerDiscrete": "euler", "HeunDiscrete": "heun", "DDIM": "ddim"}
    guided = {"clip_models": [clip], "cutouts": 2, "guidance_stop": 0.9}
    loop = Pipeline.from_pretrained(str(folders["epsilon"]))
    scale = {"guidance": "clip", "clip_guidance_scale": 0.5}
    shared = {"steps": 8, "width": 64, "height": 64, "seed": 5, "guidance_scale": 5.0}
    settings = Settings(PROMPT, scheduler=names.get(scheduler, "unipc"), **shared, **scale, **guided)
    (result,) = loop.run(settings)
    pipe = load(folders["epsilon"])
    config = {**pipe.scheduler.config, "use_karras_sigmas": False}
    from clipgen.sampling.make_scheduler import make_scheduler

    named = make_scheduler(settings.scheduler, {**config, "_class_name": "PNDMScheduler"}, 8, torch.device("cpu"))
    pipe.scheduler = getattr(diffusers, type(named).__name__).from_config(named.config)
    with ClipGuidance(pipe, PROMPT, scale=0.5, seed=5, **guided):
        (image,) = pipe(
            PROMPT, num_inference_steps=8, width=64, height=64, guidance_scale=5.0, output_type="np",
            generator=torch.Generator().manual_seed(5),
        ).images  # fmt: skip
    assert torch.allclose(result.pixels, torch.from_numpy(image).permute(2, 0, 1), atol=2e-3)


@pytest.mark.parametrize("kind", ["xl", "sd3", "flux"])
def test_attached_guidance_equals_the_loop_for_each_family(folders: dict[str, Path], clip: str, kind: str) -> None:
    fields: dict[str, Any] = {"clip_models": [clip], "cutouts": 2, "guidance_start": 0, "guidance_stop": 1}
    lengths = {} if kind == "xl" else {"max_sequence_length": 32}
    loop, pipe = Pipeline.from_pretrained(str(folders[kind])), load(folders[kind])
    guided = clipgen_images(loop, guidance="clip", clip_guidance_scale=0.5, guidance_scale=3.5, **fields)
    with ClipGuidance(pipe, PROMPT, scale=0.5, seed=SEEDS[0], **fields):
        image = diffusers_images(pipe, guidance_scale=3.5, **lengths)
    assert max_difference(guided, image) < 2e-3 < max_difference(guided, clipgen_images(loop, guidance_scale=3.5))


def test_pipeline_is_restored_after_an_exception(folders: dict[str, Path], clip: str) -> None:
    pipe = load(folders["epsilon"])
    before = state_of(pipe)

    def broken(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"), ClipGuidance(pipe, PROMPT, clip_models=[clip]):
        pipe(PROMPT, num_inference_steps=2, callback_on_step_end=broken)
    assert state_of(pipe) == before


def test_nested_guidance_restores_its_own_step(folders: dict[str, Path], clip: str) -> None:
    pipe = load(folders["v"])
    before = state_of(pipe)
    with ClipGuidance(pipe, PROMPT, clip_models=[clip]):
        outer = pipe.scheduler.step
        with ClipGuidance(pipe, "deep snow", clip_models=[clip]):
            assert pipe.scheduler.step is not outer
        assert pipe.scheduler.step is outer
    assert state_of(pipe) == before


def test_each_prompt_has_its_own_target(folders: dict[str, Path], clip: str) -> None:
    pipe, prompts = load(folders["v"]), ["a fox", "an owl at night"]

    def draw(*which: int) -> Any:
        generators = [torch.Generator().manual_seed(seed) for seed in which]
        texts = [prompts[seed] for seed in which]
        return pipe(texts, num_inference_steps=4, generator=generators, output_type="np").images

    with ClipGuidance(pipe, prompts, scale=1, clip_models=[clip]):
        both = draw(0, 1)
        with pytest.raises(SettingsError, match="ClipGuidance has 2 prompts, and the pipeline draws 1 pictures"):
            draw(0)
    with ClipGuidance(pipe, prompts[1], scale=1, seed=1, clip_models=[clip]):
        assert abs(draw(1)[0] - both[1]).max() < 1 / 255


def test_inference_mode_raises(folders: dict[str, Path], clip: str) -> None:
    pipe = load(folders["v"])
    with torch.inference_mode(), pytest.raises(SettingsError, match=r"which torch\.inference_mode forbids"):
        ClipGuidance(pipe, PROMPT, clip_models=[clip]).__enter__()
    assert "step" not in vars(pipe.scheduler)


@pytest.mark.parametrize(
    "fields, line",
    [
        ({"through_unet": True}, "ClipGuidance takes no through_unet. It takes: cutouts, "),
        ({"scale": 2}, "clip_guidance_scale must be 0 to 1, got '2'"),
        (
            {"guide_decoder": "tiny"},
            "guide_decoder 'tiny' is not available for this model. Works: auto, linear, pooled, full",
        ),
        ({"guard": "two-key"}, "guidance 'clip' needs a CLIP, and model 'StableDiffusionPipeline' has none"),
    ],
)
def test_invalid_fields_raise_at_construction(
    folders: dict[str, Path], clip: str, fields: dict[str, Any], line: str
) -> None:
    with pytest.raises(SettingsError) as error:
        ClipGuidance(load(folders["epsilon"]), PROMPT, **{"clip_models": [clip], **fields})
    assert str(error.value).startswith(line)
