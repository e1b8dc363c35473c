"""CLIP guidance in the pipeline: its effect on images, reproducibility, errors and the record."""

from __future__ import annotations

import random
import shutil

import numpy
import pytest
import tiny
import torch
from PIL import Image
from transformers import CLIPModel

from clipgen import Pipeline, Settings, SettingsError, Step
from clipgen.errors import Cancelled, ImageFileError, ModelNotFound
from clipgen.guidance.pick import candidate_seeds
from clipgen.models.ids import BUNDLED
from clipgen.train.latent_head import build_latent_head

STORYBOOK = pytest.mark.skipif(not BUNDLED["storybook"].is_dir(), reason="no weights of storybook here")


@pytest.fixture(scope="module")
def pipe(tiny_v):
    return Pipeline.from_pretrained(str(tiny_v))


@pytest.fixture(scope="module")
def storybook():
    return Pipeline.from_pretrained("storybook")


def draw(pipe, **settings):
    return pipe.run(Settings(**{"prompt": "a fox in snow", "seed": 3, "steps": 6, "guidance": "clip", **settings}))


def similarity(results):
    return sum(result.clip.similarity for result in results) / len(results)


@STORYBOOK
def test_a_higher_scale_increases_similarity_without_saturated_colours(storybook):
    """Uses a subject with a low similarity; an easy subject is already near the maximum of the CLIP."""
    plain, *guided = [
        draw(storybook, prompt="an owl at night", steps=10, images=16, cutouts=2, clip_guidance_scale=scale)
        for scale in (0, 0.1, 0.25, 0.5)
    ]
    means = [similarity(results) for results in (plain, *guided)]
    assert means == sorted(means)
    assert means[0] < means[2]
    for measure in (saturation, clipped):
        assert measure(guided[1]) <= 1.2 * measure(plain) + 1e-3


def saturation(results):
    pixels = torch.stack([result.pixels for result in results])
    return float((pixels.amax(1) - pixels.amin(1)).mean())


def clipped(results):
    pixels = torch.stack([result.pixels for result in results])
    return float(((pixels <= 0) | (pixels >= 1)).float().mean())


def test_scale_zero_equals_guidance_off(pipe):
    (off,), (zero,) = draw(pipe, guidance="off"), draw(pipe, clip_guidance_scale=0)
    assert torch.equal(off.pixels, zero.pixels)


@pytest.mark.parametrize("more", [{}, {"through_unet": True}, {"guidance_every": 2, "scheduler": "dpm++_2m"}])
def test_a_guided_image_is_reproducible_alone_and_in_a_batch(pipe, more):
    (alone,), (again,) = draw(pipe, seed=5, **more), draw(pipe, seed=5, **more)
    assert torch.equal(alone.pixels, again.pixels)
    assert not torch.equal(alone.pixels, draw(pipe, seed=5, guidance="off", **more)[0].pixels)
    off = (draw(pipe, images=4, **more)[2].pixels - alone.pixels).abs() > 1 / 255
    assert off.float().mean() <= 0.001


def test_global_random_state_is_unchanged(pipe):
    def states():
        return torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()

    before = states()
    draw(pipe)
    assert states() == before


def test_an_image_as_target_changes_the_result(pipe, tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "red.png")
    (plain,), (red,) = draw(pipe), draw(pipe, like=[f"{tmp_path}/red.png:2"], clip_guidance_scale=1)
    assert not torch.equal(plain.pixels, red.pixels)
    assert red.metadata["settings"]["like"] == ["./red.png:2"]
    with pytest.raises(ImageFileError, match=r"none\.png' cannot be opened: No such file"):
        draw(pipe, like=[f"{tmp_path}/none.png"])


def test_the_score_is_marked_if_the_same_clip_guided(pipe, tiny_v, tmp_path):
    assert draw(pipe)[0].clip.self_graded
    assert not draw(pipe, guidance="off")[0].clip.self_graded
    # the CLIP of the model, under another name
    assert draw(pipe, clip_models=[str(tiny_v / "clip")])[0].clip.self_graded
    other = tiny.clip(tiny.tokenizer(32))
    other.visual_projection.weight.data.neg_()
    other.save_pretrained(tmp_path)
    tiny.tokenizer(32).save_pretrained(tmp_path)
    assert not draw(pipe, clip_models=[str(tmp_path)])[0].clip.self_graded


def test_a_guided_image_has_a_curve_and_warnings_of_the_guard(pipe):
    (plain,), (guided,) = draw(pipe, guidance="off"), draw(pipe)
    assert plain.clip.curve == ()
    assert [step for step, _, _ in guided.clip.curve] == [1, 2, 3, 4]  # the steps from 0.1 to 0.7 of six
    assert guided.metadata["clip"]["curve"] == [list(point) for point in guided.clip.curve]
    assert all(note.code == "guidance-overoptimised" for note in guided.warnings)
    assert draw(pipe, guard="off")[0].warnings == ()


def test_pick_returns_a_good_candidate_that_is_reproducible(pipe):
    (picked,) = draw(pipe, guidance="pick", candidates=4, steps=8)
    pool = [draw(pipe, guidance="off", seed=seed, steps=8)[0] for seed in candidate_seeds(3, 4)]
    (same,) = [result for result in pool if result.seed == picked.seed]
    assert torch.allclose(same.pixels, picked.pixels, atol=1 / 255)
    assert picked.clip.similarity >= sorted(result.clip.similarity for result in pool)[1]
    assert picked.settings.guidance == "off"
    assert [note.code for note in picked.warnings] == ["picked"]
    assert picked.clip.self_graded
    assert torch.equal(pipe.run(picked.settings)[0].pixels, same.pixels)


def test_with_few_steps_all_candidates_are_compared_at_the_end(pipe):
    (picked,) = draw(pipe, guidance="pick", candidates=4, steps=3)
    pool = [draw(pipe, guidance="off", seed=seed, steps=3)[0] for seed in candidate_seeds(3, 4)]
    assert picked.seed == max(pool, key=lambda result: result.clip.similarity).seed


def test_each_image_of_a_run_has_its_own_candidates(pipe):
    run = draw(pipe, guidance="clip+pick", candidates=2, images=2, steps=8)
    alone = [draw(pipe, guidance="clip+pick", candidates=2, seed=seed, steps=8)[0] for seed in (3, 4)]
    assert [result.seed for result in run] == [result.seed for result in alone]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(run, alone, strict=True))
    assert all(result.settings.guidance == "clip" and result.clip.curve for result in run)


def test_pick_has_one_event_per_step(pipe):
    events = pipe.generate(Settings("a fox", guidance="pick", steps=8, seed=1))
    steps = [event for event in events if isinstance(event, Step)]
    assert [(step.image, step.index) for step in steps] == [(0, index) for index in range(8)]
    assert steps[0].preview().size == (128, 128)


def test_guidance_of_a_model_without_clip_needs_clip_models(tiny_epsilon, tiny_v):
    bare = Pipeline.from_pretrained(str(tiny_epsilon))
    with pytest.raises(SettingsError, match="has none: name one with clip_models"):
        draw(bare)
    (guided,) = draw(bare, clip_models=[str(tiny_v / "clip")])
    assert not torch.equal(guided.pixels, draw(bare, guidance="off")[0].pixels)


def test_two_keys_need_two_clips(pipe, tiny_v):
    with pytest.raises(SettingsError, match="two-key needs a second CLIP"):
        draw(pipe, guard="two-key")
    assert draw(pipe, guard="two-key", clip_models=[str(tiny_v / "clip")])
    with pytest.raises(ModelNotFound):
        draw(pipe, clip_models=["./nowhere"])


def test_an_unavailable_guide_decoder_is_an_error(pipe):
    with pytest.raises(SettingsError, match="guide_decoder 'latent' is not available for this model"):
        draw(pipe, guide_decoder="latent")


def test_the_settings_of_a_guided_image_reproduce_it(pipe):
    (first,) = draw(pipe, guide=["snow:0.5"])
    (again,) = pipe.run(first.settings)
    assert torch.equal(first.pixels, again.pixels)


STEER_SETTINGS = {"guidance": "steer", "eta": 1, "particles": 4, "steps": 10}


def test_particles_are_reproducible_and_keep_the_seed(pipe):
    (steered,), (again,) = draw(pipe, **STEER_SETTINGS), draw(pipe, **STEER_SETTINGS)
    assert torch.equal(steered.pixels, again.pixels)
    assert (steered.seed, steered.settings.guidance, steered.warnings) == (3, "steer", ())
    assert steered.clip.self_graded
    (plain,) = draw(pipe, **{**STEER_SETTINGS, "guidance": "off"})
    assert not torch.equal(steered.pixels, plain.pixels)
    assert torch.equal(pipe.run(steered.settings)[0].pixels, steered.pixels)


def test_each_image_of_a_run_has_its_own_particles(pipe):
    run = draw(pipe, images=2, **STEER_SETTINGS)
    alone = [draw(pipe, **STEER_SETTINGS, seed=seed)[0] for seed in (3, 4)]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(run, alone, strict=True))


def test_particles_need_a_stochastic_scheduler(pipe, tiny_v):
    with pytest.raises(SettingsError, match="needs a scheduler that draws noise, and 'ddim' draws none"):
        draw(pipe, guidance="steer")
    settings = [Settings("a fox", guidance="steer", scheduler="dpm++_2m")]
    with pytest.raises(SettingsError, match="'dpm\\+\\+_2m' draws none"):
        Pipeline.from_pretrained(str(tiny_v), settings=settings)
    assert draw(pipe, guidance="steer", scheduler="euler_ancestral", steps=4)


OPTIMISE_SETTINGS = {"guidance": "optimise", "steps": 2, "iterations": 6}


def test_noise_optimisation_increases_similarity_and_is_reproducible(tiny_epsilon, tiny_v):
    bare, clip = Pipeline.from_pretrained(str(tiny_epsilon)), str(tiny_v / "clip")
    options = {"clip_models": [clip], "guide_decoder": "full", **OPTIMISE_SETTINGS}
    (plain,), (optimised,), (again,) = draw(bare, guidance="off", steps=2), draw(bare, **options), draw(bare, **options)
    encoder = bare.encoder(clip)
    with torch.no_grad():
        features = encoder.image_features(torch.stack([plain.pixels, optimised.pixels]))
        before, after = (features @ encoder.text_features(["a fox in snow"])[0]).tolist()
    assert after > before + 0.05
    assert torch.equal(optimised.pixels, again.pixels)
    assert optimised.seed == 3
    assert torch.equal(bare.run(optimised.settings)[0].pixels, optimised.pixels)


def test_the_curve_of_noise_optimisation_has_one_point_per_iteration(pipe):
    (plain,), (optimised,) = draw(pipe, guidance="off", steps=2), draw(pipe, **OPTIMISE_SETTINGS)
    assert [number for number, _, _ in optimised.clip.curve] == list(range(6))
    assert optimised.clip.curve[0][1] == pytest.approx(plain.clip.similarity, abs=0.01)
    assert optimised.clip.similarity >= plain.clip.similarity
    assert optimised.clip.self_graded


def test_iterations_of_noise_optimisation_are_step_events(pipe):
    events = pipe.generate(Settings("a fox", seed=1, **OPTIMISE_SETTINGS))
    first = next(events)
    assert (first.index, first.steps) == (0, 8)
    assert first.preview().size == (128, 128)
    indices = [event.index for event in events if isinstance(event, Step)]
    assert indices == sorted(indices)
    assert indices[-2:] == [6, 7]


def test_noise_optimisation_is_limited_to_few_steps(pipe, tiny_v):
    message = "needs a model of 1-4 steps; '.*' runs 5. Use pick."
    with pytest.raises(SettingsError, match=message):
        draw(pipe, guidance="optimise", steps=5)
    with pytest.raises(SettingsError, match=message):
        Pipeline.from_pretrained(str(tiny_v), settings=[Settings("a fox", guidance="optimise", steps=5)])


def test_a_budget_is_resolved_to_guidance_settings(pipe):
    (result,) = draw(pipe, guidance="off", budget=30, steps=10)
    assert result.settings.budget is None
    assert result.settings.guidance == "clip+pick".replace("+pick", "")  # the settings of the best candidate
    (note,) = [note for note in result.warnings if note.code == "budget"]
    assert note.message.startswith("Budget 30x: guidance clip+pick, through_unet false, candidates 16, ")
    settings, notes = pipe.resolve_budget(Settings("a fox", budget="30x", steps=10))
    assert notes == [note]
    assert pipe.resolve_budget(settings) == (settings, ())
    (plain,), (nothing,) = draw(pipe, guidance="off"), draw(pipe, guidance="off", budget=1)
    assert torch.equal(plain.pixels, nothing.pixels)


def test_a_budget_without_a_clip_is_an_error(tiny_epsilon):
    with pytest.raises(SettingsError, match="budget 2x needs a CLIP"):
        draw(Pipeline.from_pretrained(str(tiny_epsilon)), guidance="off", budget=2)


def test_the_guide_decoder_does_not_change_the_final_ranking(pipe):
    """The guide decoder ranks candidates during denoising; finished ones use the full decoder."""
    rough, own = (draw(pipe, guidance="pick", steps=3, guide_decoder=name)[0] for name in ("linear", "tiny"))
    assert rough.seed == own.seed


def is_last_step(event):
    return isinstance(event, Step) and event.index == event.steps - 1


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpm++_2m"])
def test_adaptive_projection_reduces_the_norm_at_a_high_scale(pipe, scheduler):
    options = {"guidance": "off", "guidance_scale": 12, "scheduler": scheduler, "steps": 8, "images": 4, "seed": 3}
    plain, projected = (
        torch.stack([step.x0 for step in pipe.generate(Settings("a fox", apg=apg, **options)) if is_last_step(step)])
        for apg in (False, True)
    )
    assert projected.square().mean() < plain.square().mean()
    projected = draw(pipe, apg=True, **options)
    alone = draw(pipe, guidance="off", guidance_scale=12, scheduler=scheduler, apg=True, seed=5, steps=8)[0]
    assert torch.allclose(projected[2].pixels, alone.pixels, atol=1 / 255)


def test_pick_with_adaptive_projection_is_reproducible(pipe):
    (picked,) = draw(pipe, guidance="pick", candidates=8, steps=10, apg=True)
    assert torch.allclose(pipe.run(picked.settings)[0].pixels, picked.pixels, atol=1 / 255)


@pytest.fixture(scope="module")
def pipe_with_head(tiny_v, tmp_path_factory):
    """The tiny model with a latent head."""
    folder = tmp_path_factory.mktemp("models") / "tiny-head"
    shutil.copytree(tiny_v, folder)
    torch.manual_seed(0)
    build_latent_head(CLIPModel.from_pretrained(folder / "clip"), 8, 16).save_pretrained(folder / "latent_head")
    return Pipeline.from_pretrained(str(folder))


def test_the_latent_head_is_the_default_where_it_is_supported(pipe_with_head, tiny_v):
    variants = ({}, {"guide_decoder": "latent"}, {"cutouts": 1, "guide_decoder": "tiny"})
    (head,), (named,), (decoded,) = (draw(pipe_with_head, clip_guidance_scale=1, **more) for more in variants)
    assert torch.equal(head.pixels, named.pixels)
    assert not torch.equal(head.pixels, decoded.pixels)
    assert [step for step, _, _ in head.clip.curve] == [1, 2, 3, 4]
    assert head.clip.self_graded
    for more in ({"through_unet": True}, {"guard": "two-key", "clip_models": [str(tiny_v / "clip")]}):
        with pytest.raises(SettingsError, match="'latent' works with the model's own CLIP only"):
            draw(pipe_with_head, guide_decoder="latent", **more)
    assert draw(pipe_with_head, through_unet=True)[0].clip.curve
    assert draw(pipe_with_head, guidance="pick", candidates=2, steps=3, guide_decoder="latent")


def test_guidance_increases_the_similarity_that_a_latent_head_predicts(pipe_with_head):
    similarities = [
        draw(pipe_with_head, clip_guidance_scale=scale, steps=12)[0].clip.curve[-1][1] for scale in (0.01, 1)
    ]
    assert similarities[1] > similarities[0]


def test_a_latent_head_changes_the_guidance_of_a_budget(pipe_with_head, pipe):
    (by_head,), (by_decoder,) = (
        p.resolve_budget(Settings("a fox", budget=64, steps=20))[1] for p in (pipe_with_head, pipe)
    )
    assert by_head.message != by_decoder.message


@pytest.mark.parametrize("settings", [{"guidance": "pick", "candidates": 16, "steps": 8}, {"guidance": "clip"}])
def test_a_run_can_be_cancelled_within_a_step(pipe, settings):
    calls = []

    def is_cancelled():
        calls.append(None)
        return len(calls) > 5

    events = pipe.generate(Settings("a fox in snow", seed=3, **settings), is_cancelled)
    steps = []
    with pytest.raises(Cancelled):
        steps.extend(events)
    assert (len(calls), len(steps) < 5) == (6, True)
    assert draw(pipe, steps=2)[0].pixels.isfinite().all()


def test_loading_reports_progress_in_bytes(tiny_v):
    loaded = []
    Pipeline.from_pretrained(str(tiny_v), progress=lambda done, total: loaded.append((done, total)))
    assert [done for done, _ in loaded] == sorted(done for done, _ in loaded)
    assert loaded[-1][0] == loaded[-1][1]
    assert len({total for _, total in loaded}) == 1
