from __future__ import annotations

import gc
import math
from dataclasses import replace

import pytest
import tiny
import tiny_siglip
import torch
import torch.nn.functional as F

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.views import views
from clipgen.guidance.classifier_free import classifier_free
from clipgen.guidance.clip_gradient import ClipGradient, angle_loss, corrected, rms, soft_clamp, trusted, without_growth
from clipgen.guidance.targets import ClipTarget
from clipgen.sampling.loop import Prediction, StepState, denoise, initial_noise, make_generators
from clipgen.sampling.make_scheduler import make_scheduler

CPU = torch.device("cpu")
SEEDS = (11, 12, 13, 14)
PROMPTS = ["a fox in snow", "an owl at night", "a red car", "two pizzas"]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build_clip_target(encoder, prompts):
    return ClipTarget(encoder, encoder.text_features(prompts)[:, None], torch.ones(1))


@pytest.fixture(scope="module")
def clip():
    words = tiny.tokenizer(32)
    return ClipEncoder("tiny", tiny.clip(words).requires_grad_(False), words, {})


@pytest.fixture(scope="module")
def vae():
    return tiny.vae_kl().requires_grad_(False)


@pytest.fixture(scope="module")
def unet():
    return tiny.unet().requires_grad_(False)


@pytest.fixture(scope="module")
def decode(vae):
    return lambda latents: vae.decode(latents).sample / 2 + 0.5


@pytest.fixture(scope="module")
def network(unet):
    def predict(latents, timestep, told):
        return unet(latents, timestep, **told, return_dict=False)[0]

    return predict


def moment(rows=4, **changes):
    """A step of a variance-preserving run, half of it noise; four rows of 16 x 16 latents."""
    x0 = draw(4, 4, 16, 16)[:rows]
    whole = StepState(
        latents=draw(4, 4, 16, 16, seed=1)[:rows],
        x0=x0,
        x0_cond=x0,
        x0_uncond=x0 - 0.3 * draw(4, 4, 16, 16, seed=2)[:rows],
        alpha=0.8,
        sigma=0.6,
        progress=0.3,
        index=3,
        steps=10,
        image_seeds=SEEDS[:rows],
    )
    return replace(whole, **changes)


def told_of(rows, seed):
    return {"encoder_hidden_states": draw(4, 8, 32, seed=seed)[:rows]}


def run(network, correction, steps=6, rows=2, scheduler="ddim", with_graph=None, scale=3.0):
    """Returns the last latents of a guided run of tiny networks."""
    predict = classifier_free(
        network, told_of(rows, 3), told_of(rows, 4), scale=scale, with_graph=with_graph or (lambda step_input: False)
    )
    if correction is not None:
        predict = corrected(predict, correction, SEEDS[:rows])
    made = make_scheduler(scheduler, {**tiny.BETAS, "_class_name": "DDIMScheduler"}, steps, CPU)
    generators = make_generators(SEEDS[:rows])
    for state in denoise(predict, made, initial_noise(generators, (4, 16, 16)), generators):
        last = state.latents
    return last


def similarity(latents, decode, encoder, guide):
    with torch.no_grad():
        features = encoder.image_features(decode(latents).clamp(0, 1))
    return float((features * guide.targets[:, 0]).sum(dim=-1).mean())


def relative(one, other):
    return float((one - other).norm() / other.norm())


# One step, piece by piece


def test_the_loss_is_half_the_square_of_the_angle():
    axes = torch.eye(3)
    views_, targets = axes[:2].expand(2, 2, 3), axes[None, :1].expand(2, 1, 3)
    assert angle_loss(views_, targets, torch.ones(1)) == pytest.approx([(0 + math.pi**2 / 8) / 2] * 2, abs=1e-6)
    away = angle_loss(axes[None, 1:2], axes[None, :2], torch.tensor([3.0, -1.0]))
    assert float(away) == pytest.approx(0.75 * math.pi**2 / 8, abs=1e-6)


def test_the_loss_keeps_a_finite_gradient_at_the_target_and_opposite_of_it():
    for sign in (1.0, -1.0):
        features = (sign * torch.eye(3)[None, :1]).requires_grad_()
        (gradient,) = torch.autograd.grad(angle_loss(features, torch.eye(3)[None, :1], torch.ones(1)).sum(), features)
        assert gradient.isfinite().all()


def test_burnt_pixels_keep_a_twentieth_of_their_gradient():
    pixels = torch.tensor([-1.0, 0.25, 3.0], requires_grad=True)
    held = soft_clamp(pixels)
    held.sum().backward()
    assert held.tolist() == pytest.approx([-0.05, 0.25, 1.1])
    assert pixels.grad.tolist() == pytest.approx([0.05, 1.0, 0.05])


@pytest.mark.parametrize(("alpha", "sigma", "part"), [(0.8, 0.6, 0.6), (1.0, 2.0, 2 / 5**0.5), (0.25, 0.75, 0.75)])
def test_the_trust_region_has_the_size_of_classifier_free_guidance_times_the_noise(alpha, sigma, part):
    """Variance preserving, variance exploding, flow."""
    here = moment(alpha=alpha, sigma=sigma)
    reference = rms(here.x0 - here.x0_uncond)
    assert torch.allclose(rms(trusted(draw(4, 4, 16, 16, seed=9), here, 0.5)), 0.5 * part * reference, rtol=1e-5)


def test_without_an_unconditional_half_the_trust_region_is_a_tenth_of_x0():
    here = moment(x0_uncond=None)
    assert torch.allclose(rms(trusted(here.latents, here, 1.0)), 0.6 * 0.1 * rms(here.x0), rtol=1e-5)


def test_contrast_does_not_grow():
    x0, correction = draw(2, 3, 4, 4), draw(2, 3, 4, 4, seed=1)
    correction[0] += x0[0]
    correction[1] -= x0[1]
    held = without_growth(correction, x0)
    assert float((held[0] * x0[0]).sum()) == pytest.approx(0, abs=1e-5)
    assert torch.equal(held[1], correction[1])


# The correction


def test_a_step_goes_down_the_loss(clip, decode):
    guide = build_clip_target(clip, PROMPTS)
    here = moment()
    correction = ClipGradient([guide], decode, scale=1.0)(here)

    def loss(x0):
        seen = views(soft_clamp(decode(x0)), SEEDS, 3, 4, 32)
        features = clip.image_features(seen.flatten(0, 1)).unflatten(0, (4, 4))
        return angle_loss(features, guide.targets, guide.weights)

    with torch.no_grad():
        assert (loss(here.x0 + 0.05 * correction) < loss(here.x0)).all()


@pytest.mark.parametrize(
    ("options", "active"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"start": 0.0, "stop": 1.0}, list(range(10))),
        ({"start": 0.15, "stop": 0.7, "every": 2}, [2, 4, 6]),
        ({"every": 4}, [1, 5]),
        ({"scale": 0.0}, []),
    ],
)
def test_steps_are_guided_in_the_interval_each_rth(clip, decode, options, active):
    correction = ClipGradient([build_clip_target(clip, PROMPTS)], decode, **{"scale": 1.0, **options})
    assert [step for step in range(10) if correction.active(step, 10)] == active
    inactive = next(step for step in range(10, -1, -1) if step not in active)
    assert correction(moment(index=inactive)) is None


def test_rarer_steps_are_as_much_stronger(clip, decode):
    guide = build_clip_target(clip, PROMPTS)
    once = ClipGradient([guide], decode, scale=0.2)(moment(index=1))
    thrice = ClipGradient([guide], decode, scale=0.2, every=3)(moment(index=1))
    assert relative(thrice, 3 * once) < 1e-5


def rough(latents):
    """A decoder without a convolution, whose rounding does not depend on the batch."""
    return F.interpolate(latents[:, :3] / 4 + 0.5, (32, 32), mode="bilinear")


@pytest.mark.parametrize(("network_decodes", "most"), [(False, 1e-6), (True, 1e-5)])
def test_a_pictures_correction_is_the_same_alone_and_in_a_batch(clip, decode, network_decodes, most):
    """Through a real decoder as nearly as its own convolutions, which round otherwise in another batch (4e-7 each)."""
    decode = decode if network_decodes else rough
    together = ClipGradient([build_clip_target(clip, PROMPTS)], decode, scale=0.3)(moment())
    for row, prompt in enumerate(PROMPTS):
        here = moment()
        alone = replace(
            here,
            **{name: getattr(here, name)[row : row + 1] for name in ("latents", "x0", "x0_cond", "x0_uncond")},
            image_seeds=SEEDS[row : row + 1],
        )
        correction = ClipGradient([build_clip_target(clip, [prompt])], decode, scale=0.3)(alone)
        assert relative(correction[0], together[row]) < most


def test_candidates_of_one_picture_share_its_targets(clip, decode):
    guide = build_clip_target(clip, PROMPTS[:1])
    correction = ClipGradient([guide], decode, scale=0.3)
    same = ClipGradient([ClipTarget(clip, guide.targets.expand(4, -1, -1), guide.weights)], decode, scale=0.3)
    assert torch.equal(correction(moment()), same(moment()))
    assert correction(moment(rows=3)).shape == (3, 4, 16, 16)


def test_the_same_call_gives_the_same_bits_and_leaves_the_global_generator_alone(clip, decode):
    correction, before = (
        ClipGradient([build_clip_target(clip, PROMPTS)], decode, scale=0.3),
        torch.random.get_rng_state(),
    )
    assert torch.equal(correction(moment()), correction(moment()))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_guides_count_equally(clip, decode):
    one, other = build_clip_target(clip, PROMPTS), build_clip_target(clip, PROMPTS[::-1])
    joined = ClipTarget(clip, torch.cat([one.targets, other.targets], dim=1), torch.ones(2))
    both, same = (ClipGradient(guides, decode, scale=0.3)(moment()) for guides in ([one, other], [joined]))
    assert relative(same, both) < 1e-5
    twice, once = (ClipGradient(guides, decode, scale=0.3)(moment()) for guides in ([one, one], [one]))
    assert relative(twice, once) < 1e-6


def test_a_negative_target_pushes_away(clip, decode):
    snow = clip.text_features(["snow"])[None]
    towards, away = (
        ClipGradient([ClipTarget(clip, snow, torch.tensor([weight]))], decode, scale=0.3, cutouts=1)(moment())
        for weight in (1.0, -1.0)
    )
    assert float(F.cosine_similarity(away.flatten(1), towards.flatten(1)).max()) < -0.9


def test_targets_count_by_their_share_of_the_weights(clip, decode):
    prompts, snow = build_clip_target(clip, PROMPTS).targets, clip.text_features(["snow"]).expand(4, 1, -1)
    both = torch.cat([prompts, snow], dim=1)
    small, large = (
        ClipGradient([ClipTarget(clip, both, torch.tensor([1.0, -0.5]) * factor)], decode, scale=0.3)(moment())
        for factor in (1, 8)
    )
    assert relative(small, large) < 1e-6
    silent = ClipGradient([ClipTarget(clip, both, torch.tensor([1.0, 0.0]))], decode, scale=0.3)(moment())
    assert relative(silent, ClipGradient([build_clip_target(clip, PROMPTS)], decode, scale=0.3)(moment())) < 1e-5


def test_with_two_keys_only_what_both_want_moves(clip, decode):
    guide = build_clip_target(clip, PROMPTS)
    against = ClipTarget(clip, guide.targets, -guide.weights)
    other = build_clip_target(clip, PROMPTS[::-1])
    options = {"scale": 0.3, "cutouts": 1}
    alone = ClipGradient([guide], decode, **options)(moment())
    assert torch.equal(ClipGradient([guide], decode, **options, two_key=guide)(moment()), alone)
    assert not ClipGradient([guide], decode, **options, two_key=against)(moment()).any()
    some = ClipGradient([guide], decode, **options, two_key=other)(moment())
    still = (some == 0).all(dim=1)
    assert 0.05 < float(still.float().mean()) < 0.95
    assert ((some * moment().x0).sum(dim=(1, 2, 3)) <= 1e-4).all()


def test_a_gradient_that_is_not_finite_stops_its_own_picture_and_is_counted(clip, decode):
    correction = ClipGradient([build_clip_target(clip, PROMPTS)], decode, scale=0.3, start=0.0, stop=1.0)
    whole = correction(moment())
    broken_x0 = moment().x0.clone()
    broken_x0[2, 0, 5, 5] = torch.nan
    broken = correction(moment(x0=broken_x0, index=4))
    sound = ClipGradient([build_clip_target(clip, PROMPTS)], decode, scale=0.3, start=0.0, stop=1.0)(moment(index=4))
    assert not broken[2].any()
    assert all(torch.equal(broken[row], sound[row]) for row in (0, 1, 3))
    (note,) = correction.notes()
    assert (note.code, note.field) == ("guidance-not-finite", "guidance")
    assert note.message == (
        "CLIP's gradient was not finite in 1 of 2 guided steps of the picture of seed 13; those went unguided."
    )
    assert whole[2].any()
    for step in (5, 6, 7):
        correction(moment(index=step))
    assert correction.notes() == []  # a fifth is not too much


def test_the_curve_is_the_overviews_similarity(clip, decode):
    guide = build_clip_target(clip, PROMPTS)
    correction = ClipGradient([guide], decode, scale=0.3)
    correction(moment())
    with torch.no_grad():
        overview = clip.image_features(soft_clamp(decode(moment().x0)))  # a square picture's overview is itself
    expected = (overview * guide.targets[:, 0]).sum(dim=-1).tolist()
    for seed, wanted in zip(SEEDS, expected, strict=True):
        ((step, seen),) = correction.curve(seed)
        assert step == 3
        assert seen == pytest.approx(wanted, abs=1e-5)
    assert correction.guides[0].similarity(decode(moment().x0)).shape == (4,)


def test_through_the_unet_the_direction_is_the_naive_chains(clip, decode, network):
    """Autograd through denoiser, decoder, views and CLIP in one go, where x0 is the conditional x0."""
    guide = build_clip_target(clip, PROMPTS[:2])
    predict = classifier_free(network, told_of(2, 3), told_of(2, 4), scale=1.0, with_graph=lambda step_input: True)
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    gradient = ClipGradient([guide], decode, scale=0.3, through_unet=True, start=0.0, stop=1.0)

    def compare(here):
        correction = gradient(here)
        with torch.enable_grad():
            leaf = here.latents.detach().requires_grad_()
            output = network(leaf, torch.tensor(timesteps[here.index]), told_of(2, 3))
            x0 = (leaf - here.sigma * output) / here.alpha
            seen = views(soft_clamp(decode(x0)), here.image_seeds, here.index, 4, 32)
            features = clip.image_features(seen.flatten(0, 1)).unflatten(0, (2, 4))
            (naive,) = torch.autograd.grad(angle_loss(features, guide.targets, guide.weights).sum(), leaf)
        found.append((correction, without_growth(trusted(-naive, here, 0.3), here.x0.detach())))
        return correction

    made = make_scheduler("ddim", {**tiny.BETAS, "_class_name": "DDIMScheduler"}, 4, CPU)
    timesteps = made.timesteps.tolist()
    generators = make_generators(SEEDS[:2])
    list(denoise(corrected(predict, compare, SEEDS[:2]), made, initial_noise(generators, (4, 16, 16)), generators))
    assert len(found) == 4
    assert all(relative(ours, naive) < 1e-3 for ours, naive in found)


# The run


def test_similarity_rises_with_the_scale(clip, decode, network):
    guide = build_clip_target(clip, PROMPTS[:2])
    seen = []
    for scale in (0.0, 0.1, 0.3, 1.0):
        latents = run(network, ClipGradient([guide], decode, scale=scale, cutouts=2, start=0.0, stop=1.0))
        seen.append(similarity(latents, decode, clip, guide))
    assert seen == sorted(seen)
    assert seen[-1] - seen[0] > 0.01


def test_scale_zero_is_off_bit_for_bit(clip, decode, network):
    off = ClipGradient([build_clip_target(clip, PROMPTS[:2])], decode, scale=0.0)
    assert torch.equal(run(network, off), run(network, None))
    assert [off.curve(seed) for seed in moment().image_seeds[:2]] == [(), ()]


@pytest.mark.parametrize("scheduler", ["euler", "dpm++_2m", "heun", "pndm"])
def test_any_scheduler_can_be_guided_and_repeats_itself(clip, decode, network, scheduler):
    guide = build_clip_target(clip, PROMPTS[:2])
    runs = [run(network, ClipGradient([guide], decode, scale=1.0, cutouts=2), scheduler=scheduler) for _ in range(2)]
    assert torch.equal(*runs)
    unguided = run(network, None, scheduler=scheduler)
    assert similarity(runs[0], decode, clip, guide) > similarity(unguided, decode, clip, guide)


@pytest.mark.parametrize(("kind", "is_first"), [("siglip", True), ("siglip", False), ("siglip2", False)])
def test_siglip_guides_too(decode, network, kind, is_first):
    encoder = ClipEncoder(kind, tiny_siglip.model(kind), tiny_siglip.tokenizer(is_first), {})
    guide = build_clip_target(encoder, ["a fox", "an owl"])
    latents = run(network, ClipGradient([guide], decode, scale=1.0, start=0.0, stop=1.0))
    unguided = run(network, None)
    assert similarity(latents, decode, encoder, guide) > similarity(unguided, decode, encoder, guide)


def test_through_the_unet_similarity_rises_too(clip, decode, network):
    guide = build_clip_target(clip, PROMPTS[:2])
    correction = ClipGradient([guide], decode, scale=1.0, start=0.0, stop=1.0, through_unet=True)
    graph = run(
        network, correction, with_graph=lambda step_input: correction.active(step_input.index, step_input.steps)
    )
    assert similarity(graph, decode, clip, guide) > similarity(run(network, None), decode, clip, guide)


@pytest.mark.parametrize("through_unet", [False, True])
def test_fifty_guided_steps_leave_no_graph_alive(clip, decode, network, through_unet):
    correction = ClipGradient(
        [build_clip_target(clip, PROMPTS[:1])],
        decode,
        scale=0.3,
        cutouts=1,
        start=0.0,
        stop=1.0,
        through_unet=through_unet,
    )
    with_graph = (lambda step_input: True) if through_unet else None
    run(network, correction, steps=50, rows=1, with_graph=with_graph)
    assert len(correction.curve(SEEDS[0])) == 50
    gc.collect()
    assert not [found for found in gc.get_objects() if type(found) is torch.Tensor and found.grad_fn is not None]


def test_a_corrected_prediction_keeps_what_others_added(network):
    x = draw(1, 4, 16, 16)
    told = Prediction(x, x, None, x, correction=torch.ones_like(x))
    step_input = _point(network)
    twice = corrected(lambda step_input: told, lambda moment: 2 * torch.ones_like(x), SEEDS[:1])(step_input)
    assert float(twice.correction.mean()) == 3
    kept = corrected(lambda step_input: told, lambda moment: None, SEEDS[:1])(step_input)
    assert torch.equal(kept.correction, told.correction)


def _point(network):
    points = []

    def predict(step_input):
        points.append(step_input)
        return Prediction(step_input.latents, step_input.latents, None, step_input.latents)

    made = make_scheduler("ddim", {**tiny.BETAS, "_class_name": "DDIMScheduler"}, 1, CPU)
    list(denoise(predict, made, draw(1, 4, 16, 16), make_generators([1])))
    return points[0]
