"""Guidance through the whole pipeline: what it raises, what it leaves alone, what it refuses and what it records."""

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
from clipgen.models.find import BUNDLED
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
def test_more_guidance_is_more_similarity_and_the_colours_stay(storybook):
    """On a thing that storybook draws badly; what it draws well is near the most that its CLIP gives."""
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


def test_a_scale_of_zero_is_off_bit_for_bit(pipe):
    (off,), (zero,) = draw(pipe, guidance="off"), draw(pipe, clip_guidance_scale=0)
    assert torch.equal(off.pixels, zero.pixels)


@pytest.mark.parametrize("more", [{}, {"through_unet": True}, {"guidance_every": 2, "scheduler": "dpm++_2m"}])
def test_a_guided_picture_is_the_same_twice_and_in_a_batch(pipe, more):
    (alone,), (again,) = draw(pipe, seed=5, **more), draw(pipe, seed=5, **more)
    assert torch.equal(alone.pixels, again.pixels)
    assert not torch.equal(alone.pixels, draw(pipe, seed=5, guidance="off", **more)[0].pixels)
    off = (draw(pipe, images=4, **more)[2].pixels - alone.pixels).abs() > 1 / 255
    assert off.float().mean() <= 0.001


def test_no_global_random_state_is_touched(pipe):
    def states():
        return torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()

    before = states()
    draw(pipe)
    assert states() == before


def test_a_picture_as_target_pulls_towards_it(pipe, tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "red.png")
    (plain,), (red,) = draw(pipe), draw(pipe, like=[f"{tmp_path}/red.png:2"], clip_guidance_scale=1)
    assert not torch.equal(plain.pixels, red.pixels)
    assert red.metadata["settings"]["like"] == ["./red.png:2"]
    with pytest.raises(ImageFileError, match=r"none\.png' cannot be opened: No such file"):
        draw(pipe, like=[f"{tmp_path}/none.png"])


def test_the_score_says_that_it_graded_itself(pipe, tiny_v, tmp_path):
    assert draw(pipe)[0].clip.self_graded
    assert not draw(pipe, guidance="off")[0].clip.self_graded
    assert draw(pipe, clip_models=[str(tiny_v / "clip")])[0].clip.self_graded  # the model's own, by another name
    other = tiny.clip(tiny.tokenizer(32))
    other.visual_projection.weight.data.neg_()
    other.save_pretrained(tmp_path)
    tiny.tokenizer(32).save_pretrained(tmp_path)
    assert not draw(pipe, clip_models=[str(tmp_path)])[0].clip.self_graded


def test_the_curve_and_the_guard_come_with_the_picture(pipe):
    (plain,), (guided,) = draw(pipe, guidance="off"), draw(pipe)
    assert plain.clip.curve == ()
    assert [step for step, _, _ in guided.clip.curve] == [1, 2, 3, 4]  # of six steps those from .1 to .7
    assert guided.metadata["clip"]["curve"] == [list(point) for point in guided.clip.curve]
    assert all(note.code == "guidance-overoptimised" for note in guided.warnings)
    assert draw(pipe, guard="off")[0].warnings == ()


def test_the_best_candidate_is_picked_and_draws_itself_again(pipe):
    (picked,) = draw(pipe, guidance="pick", candidates=4, steps=8)
    pool = [draw(pipe, guidance="off", seed=seed, steps=8)[0] for seed in candidate_seeds(3, 4)]
    (same,) = [result for result in pool if result.seed == picked.seed]
    assert torch.allclose(same.pixels, picked.pixels, atol=1 / 255)
    assert picked.clip.similarity >= sorted(result.clip.similarity for result in pool)[1]
    assert picked.settings.guidance == "off"
    assert [note.code for note in picked.warnings] == ["picked"]
    assert picked.clip.self_graded
    assert torch.equal(pipe.run(picked.settings)[0].pixels, same.pixels)


def test_few_steps_rank_every_candidate_in_the_end(pipe):
    (picked,) = draw(pipe, guidance="pick", candidates=4, steps=3)
    pool = [draw(pipe, guidance="off", seed=seed, steps=3)[0] for seed in candidate_seeds(3, 4)]
    assert picked.seed == max(pool, key=lambda result: result.clip.similarity).seed


def test_each_picture_of_a_run_picks_for_itself(pipe):
    run = draw(pipe, guidance="clip+pick", candidates=2, images=2, steps=8)
    alone = [draw(pipe, guidance="clip+pick", candidates=2, seed=seed, steps=8)[0] for seed in (3, 4)]
    assert [result.seed for result in run] == [result.seed for result in alone]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(run, alone, strict=True))
    assert all(result.settings.guidance == "clip" and result.clip.curve for result in run)


def test_events_of_a_choice_are_one_picture_a_step(pipe):
    events = pipe.generate(Settings("a fox", guidance="pick", steps=8, seed=1))
    steps = [event for event in events if isinstance(event, Step)]
    assert [(step.image, step.index) for step in steps] == [(0, index) for index in range(8)]
    assert steps[0].preview().size == (128, 128)


def test_a_model_without_clip_asks_for_one(tiny_epsilon, tiny_v):
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


def test_a_decoder_that_is_not_there_is_named(pipe):
    with pytest.raises(SettingsError, match="guide_decoder 'latent' is not available for this model"):
        draw(pipe, guide_decoder="latent")


def test_a_guided_picture_draws_itself_again(pipe):
    (first,) = draw(pipe, guide=["snow:0.5"])
    (again,) = pipe.run(first.settings)
    assert torch.equal(first.pixels, again.pixels)


STEERED = {"guidance": "steer", "eta": 1, "particles": 4, "steps": 10}


def test_the_best_particle_is_drawn_under_the_pictures_own_seed(pipe):
    (steered,), (again,) = draw(pipe, **STEERED), draw(pipe, **STEERED)
    assert torch.equal(steered.pixels, again.pixels)
    assert (steered.seed, steered.settings.guidance, steered.warnings) == (3, "steer", ())
    assert steered.clip.self_graded
    (plain,) = draw(pipe, **{**STEERED, "guidance": "off"})
    assert not torch.equal(steered.pixels, plain.pixels)
    assert torch.equal(pipe.run(steered.settings)[0].pixels, steered.pixels)


def test_each_picture_of_a_run_has_particles_of_its_own(pipe):
    run = draw(pipe, images=2, **STEERED)
    alone = [draw(pipe, **STEERED, seed=seed)[0] for seed in (3, 4)]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(run, alone, strict=True))


def test_particles_ask_for_a_scheduler_with_noise(pipe, tiny_v):
    with pytest.raises(SettingsError, match="needs a scheduler that draws noise, and 'ddim' draws none"):
        draw(pipe, guidance="steer")
    wanted = [Settings("a fox", guidance="steer", scheduler="dpm++_2m")]
    with pytest.raises(SettingsError, match="'dpm\\+\\+_2m' draws none"):
        Pipeline.from_pretrained(str(tiny_v), settings=wanted)
    assert draw(pipe, guidance="steer", scheduler="euler_ancestral", steps=4)


CLIMBED = {"guidance": "optimise", "steps": 2, "iterations": 6}


def test_an_ascent_starts_at_the_picture_without_it_and_ends_higher(tiny_epsilon, tiny_v):
    bare, clip = Pipeline.from_pretrained(str(tiny_epsilon)), str(tiny_v / "clip")
    options = {"clip_models": [clip], "guide_decoder": "full", **CLIMBED}
    (plain,), (climbed,), (again,) = draw(bare, guidance="off", steps=2), draw(bare, **options), draw(bare, **options)
    encoder = bare.encoder(clip)
    with torch.no_grad():
        seen = encoder.image_features(torch.stack([plain.pixels, climbed.pixels]))
        before, after = (seen @ encoder.text_features(["a fox in snow"])[0]).tolist()
    assert after > before + 0.05
    assert torch.equal(climbed.pixels, again.pixels)
    assert climbed.seed == 3
    assert torch.equal(bare.run(climbed.settings)[0].pixels, climbed.pixels)


def test_an_ascent_leaves_its_rounds_as_the_curve(pipe):
    (plain,), (climbed,) = draw(pipe, guidance="off", steps=2), draw(pipe, **CLIMBED)
    assert [number for number, _, _ in climbed.clip.curve] == list(range(6))
    assert climbed.clip.curve[0][1] == pytest.approx(plain.clip.similarity, abs=0.01)
    assert climbed.clip.similarity >= plain.clip.similarity
    assert climbed.clip.self_graded


def test_rounds_of_an_ascent_are_steps_that_can_be_watched_and_stopped(pipe):
    events = pipe.generate(Settings("a fox", seed=1, **CLIMBED))
    first = next(events)
    assert (first.index, first.steps) == (0, 8)
    assert first.preview().size == (128, 128)
    indices = [event.index for event in events if isinstance(event, Step)]
    assert indices == sorted(indices)
    assert indices[-2:] == [6, 7]


def test_an_ascent_is_for_few_steps(pipe, tiny_v):
    line = "needs a model of 1-4 steps; '.*' runs 5. Use pick."
    with pytest.raises(SettingsError, match=line):
        draw(pipe, guidance="optimise", steps=5)
    with pytest.raises(SettingsError, match=line):
        Pipeline.from_pretrained(str(tiny_v), settings=[Settings("a fox", guidance="optimise", steps=5)])


def test_a_budget_becomes_guidance_before_anything_is_drawn(pipe):
    (bought,) = draw(pipe, guidance="off", budget=30, steps=10)
    assert bought.settings.budget is None
    assert bought.settings.guidance == "clip+pick".replace("+pick", "")  # the winner's own settings
    (note,) = [note for note in bought.warnings if note.code == "budget"]
    assert note.message.startswith("Budget 30x: guidance clip+pick, through_unet false, candidates 16, ")
    settings, notes = pipe.resolve_budget(Settings("a fox", budget="30x", steps=10))
    assert notes == [note]
    assert pipe.resolve_budget(settings) == (settings, ())
    (plain,), (nothing,) = draw(pipe, guidance="off"), draw(pipe, guidance="off", budget=1)
    assert torch.equal(plain.pixels, nothing.pixels)


def test_a_budget_without_a_clip_asks_for_one(tiny_epsilon):
    with pytest.raises(SettingsError, match="budget 2x needs a CLIP"):
        draw(Pipeline.from_pretrained(str(tiny_epsilon)), guidance="off", budget=2)


def test_candidates_are_looked_at_through_the_guide_decoder(pipe):
    """On the way only: the finished ones are ranked as people see them."""
    rough, own = (draw(pipe, guidance="pick", steps=3, guide_decoder=name)[0] for name in ("linear", "tiny"))
    assert rough.seed == own.seed


def last(event):
    return isinstance(event, Step) and event.index == event.steps - 1


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpm++_2m"])
def test_adaptive_projection_tames_what_a_high_scale_does(pipe, scheduler):
    options = {"guidance": "off", "guidance_scale": 12, "scheduler": scheduler, "steps": 8, "images": 4, "seed": 3}
    plain, tamed = (
        torch.stack([step.x0 for step in pipe.generate(Settings("a fox", apg=apg, **options)) if last(step)])
        for apg in (False, True)
    )
    assert tamed.square().mean() < plain.square().mean()
    tamed = draw(pipe, apg=True, **options)
    alone = draw(pipe, guidance="off", guidance_scale=12, scheduler=scheduler, apg=True, seed=5, steps=8)[0]
    assert torch.allclose(tamed[2].pixels, alone.pixels, atol=1 / 255)


def test_a_pick_with_adaptive_projection_draws_itself_again(pipe):
    (picked,) = draw(pipe, guidance="pick", candidates=8, steps=10, apg=True)
    assert torch.allclose(pipe.run(picked.settings)[0].pixels, picked.pixels, atol=1 / 255)


@pytest.fixture(scope="module")
def with_head(tiny_v, tmp_path_factory):
    """The tiny model with a latent head."""
    folder = tmp_path_factory.mktemp("models") / "tiny-head"
    shutil.copytree(tiny_v, folder)
    torch.manual_seed(0)
    build_latent_head(CLIPModel.from_pretrained(folder / "clip"), 8, 16).save_pretrained(folder / "latent_head")
    return Pipeline.from_pretrained(str(folder))


def test_a_latent_head_guides_by_itself_wherever_it_can(with_head, tiny_v):
    ways = ({}, {"guide_decoder": "latent"}, {"cutouts": 1, "guide_decoder": "tiny"})
    (head,), (named,), (decoded,) = (draw(with_head, clip_guidance_scale=1, **more) for more in ways)
    assert torch.equal(head.pixels, named.pixels)
    assert not torch.equal(head.pixels, decoded.pixels)
    assert [step for step, _, _ in head.clip.curve] == [1, 2, 3, 4]
    assert head.clip.self_graded
    for more in ({"through_unet": True}, {"guard": "two-key", "clip_models": [str(tiny_v / "clip")]}):
        with pytest.raises(SettingsError, match="'latent' works with the model's own CLIP only"):
            draw(with_head, guide_decoder="latent", **more)
    assert draw(with_head, through_unet=True)[0].clip.curve
    assert draw(with_head, guidance="pick", candidates=2, steps=3, guide_decoder="latent")


def test_a_latent_head_is_told_the_noise_level_and_pulls_its_own_guess_up(with_head):
    guessed = [draw(with_head, clip_guidance_scale=scale, steps=12)[0].clip.curve[-1][1] for scale in (0.01, 1)]
    assert guessed[1] > guessed[0]


def test_a_head_is_cheaper_than_a_decoder(with_head, pipe):
    (by_head,), (by_decoder,) = (p.resolve_budget(Settings("a fox", budget=64, steps=20))[1] for p in (with_head, pipe))
    assert by_head.message != by_decoder.message


@pytest.mark.parametrize("settings", [{"guidance": "pick", "candidates": 16, "steps": 8}, {"guidance": "clip"}])
def test_it_stops_between_two_passes_of_one_step(pipe, settings):
    asked = []

    def is_cancelled():
        asked.append(None)
        return len(asked) > 5

    events = pipe.generate(Settings("a fox in snow", seed=3, **settings), is_cancelled)
    steps = []
    with pytest.raises(Cancelled):
        steps.extend(events)
    assert (len(asked), len(steps) < 5) == (6, True)
    assert draw(pipe, steps=2)[0].pixels.isfinite().all()


def test_loading_tells_how_many_bytes_are_in_place(tiny_v):
    loaded = []
    Pipeline.from_pretrained(str(tiny_v), progress=lambda done, total: loaded.append((done, total)))
    assert [done for done, _ in loaded] == sorted(done for done, _ in loaded)
    assert loaded[-1][0] == loaded[-1][1]
    assert len({total for _, total in loaded}) == 1
