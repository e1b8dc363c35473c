from __future__ import annotations

import gc
import math
from dataclasses import replace

import pytest
import tiny
import tiny_siglip
import torch
import torch.nn.functional as F

from clipgen.clip.cutouts import make_cutouts
from clipgen.clip.encoder import ClipEncoder
from clipgen.errors import OutOfMemory
from clipgen.guidance.classifier_free import classifier_free
from clipgen.guidance.clip_gradient import (
    ClipGradient,
    remove_growth,
    rms,
    scale_to_trust_region,
    soft_clamp,
    spherical_dist_loss,
    with_correction,
)
from clipgen.guidance.targets import ClipTarget
from clipgen.sampling.loop import Prediction, StepState, denoise, initial_noise, make_generators
from clipgen.sampling.make_scheduler import make_scheduler

CPU = torch.device("cpu")
SEEDS = (11, 12, 13, 14)
PROMPTS = ["a fox in snow", "an owl at night", "a red car", "two pizzas"]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def target_for(encoder, prompts):
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
    def predict(latents, timestep, conditioning):
        return unet(latents, timestep, **conditioning, return_dict=False)[0]

    return predict


def make_state(rows=4, **changes):
    """Returns a step of a variance preserving run: alpha 0.8, sigma 0.6, up to four rows of 16 x 16 latents."""
    x0 = normal(4, 4, 16, 16)[:rows]
    whole = StepState(
        latents=normal(4, 4, 16, 16, seed=1)[:rows],
        x0=x0,
        x0_cond=x0,
        x0_uncond=x0 - 0.3 * normal(4, 4, 16, 16, seed=2)[:rows],
        alpha=0.8,
        sigma=0.6,
        progress=0.3,
        index=3,
        steps=10,
        image_seeds=SEEDS[:rows],
    )
    return replace(whole, **changes)


def conditioning_for(rows, seed):
    return {"encoder_hidden_states": normal(4, 8, 32, seed=seed)[:rows]}


def run(network, correction, steps=6, rows=2, scheduler="ddim", needs_graph=None, scale=3.0):
    """Returns the last latents of a guided run of tiny networks."""
    predict = classifier_free(
        network,
        conditioning_for(rows, 3),
        conditioning_for(rows, 4),
        scale=scale,
        needs_graph=needs_graph or (lambda step_input: False),
    )
    if correction is not None:
        predict = with_correction(predict, correction, SEEDS[:rows])
    sampler = make_scheduler(scheduler, {**tiny.BETAS, "_class_name": "DDIMScheduler"}, steps, CPU)
    generators = make_generators(SEEDS[:rows])
    *_, last = denoise(predict, sampler, initial_noise(generators, (4, 16, 16)), generators)
    return last.latents


def similarity(latents, decode, encoder, target):
    with torch.no_grad():
        features = encoder.image_features(decode(latents).clamp(0, 1))
    return float((features * target.embeddings[:, 0]).sum(dim=-1).mean())


def relative(one, other):
    return float((one - other).norm() / other.norm())


# The parts of a correction


def test_a_batch_that_does_not_fit_runs_in_parts(clip, decode):
    state, target = make_state(), target_for(clip, PROMPTS)

    def gradient(largest):
        def limited(latents):
            if len(latents) > largest:
                raise torch.OutOfMemoryError("Tried to allocate 1.00 GiB")
            return decode(latents)

        return ClipGradient([target], limited, scale=1.0, cutouts=2, start=0, stop=1)

    whole, parts = gradient(4), gradient(1)
    assert relative(parts(state), whole(state)) < 1e-5
    assert parts.curve(SEEDS[2])[0] == pytest.approx(whole.curve(SEEDS[2])[0], abs=1e-5)
    with pytest.raises(OutOfMemory, match="CLIP guidance does not fit into the memory of cpu, even one image") as error:
        gradient(0)(state)
    assert "\n" not in str(error.value)


def test_loss_is_half_the_squared_angle():
    axes = torch.eye(3)
    views_, targets = axes[:2].expand(2, 2, 3), axes[None, :1].expand(2, 1, 3)
    assert spherical_dist_loss(views_, targets, torch.ones(1)) == pytest.approx(
        [(0 + math.pi**2 / 8) / 2] * 2, abs=1e-6
    )
    away = spherical_dist_loss(axes[None, 1:2], axes[None, :2], torch.tensor([3.0, -1.0]))
    assert float(away) == pytest.approx(0.75 * math.pi**2 / 8, abs=1e-6)


def test_loss_gradient_is_finite_at_and_opposite_the_target():
    for sign in (1.0, -1.0):
        features = (sign * torch.eye(3)[None, :1]).requires_grad_()
        (gradient,) = torch.autograd.grad(
            spherical_dist_loss(features, torch.eye(3)[None, :1], torch.ones(1)).sum(), features
        )
        assert gradient.isfinite().all()


def test_soft_clamp_keeps_a_twentieth_of_the_gradient_outside():
    pixels = torch.tensor([-1.0, 0.25, 3.0], requires_grad=True)
    result = soft_clamp(pixels)
    result.sum().backward()
    assert result.tolist() == pytest.approx([-0.05, 0.25, 1.1])
    assert pixels.grad.tolist() == pytest.approx([0.05, 1.0, 0.05])


@pytest.mark.parametrize(("alpha", "sigma", "part"), [(0.8, 0.6, 0.6), (1.0, 2.0, 2 / 5**0.5), (0.25, 0.75, 0.75)])
def test_trust_region_is_the_size_of_classifier_free_guidance_times_the_noise_share(alpha, sigma, part):
    """Variance preserving, variance exploding, flow."""
    state = make_state(alpha=alpha, sigma=sigma)
    reference = rms(state.x0 - state.x0_uncond)
    assert torch.allclose(
        rms(scale_to_trust_region(normal(4, 4, 16, 16, seed=9), state, 0.5)), 0.5 * part * reference, rtol=1e-5
    )


def test_trust_region_without_unconditional_half_is_a_tenth_of_x0():
    state = make_state(x0_uncond=None)
    assert torch.allclose(rms(scale_to_trust_region(state.latents, state, 1.0)), 0.6 * 0.1 * rms(state.x0), rtol=1e-5)


def test_remove_growth_removes_only_the_part_that_enlarges_x0():
    x0, correction = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    correction[0] += x0[0]
    correction[1] -= x0[1]
    result = remove_growth(correction, x0)
    assert float((result[0] * x0[0]).sum()) == pytest.approx(0, abs=1e-5)
    assert torch.equal(result[1], correction[1])


# The correction


def test_correction_decreases_the_loss(clip, decode):
    target = target_for(clip, PROMPTS)
    state = make_state()
    correction = ClipGradient([target], decode, scale=1.0)(state)

    def loss(x0):
        crops = make_cutouts(soft_clamp(decode(x0)), SEEDS, 3, 4, 32)
        features = clip.image_features(crops.flatten(0, 1)).unflatten(0, (4, 4))
        return spherical_dist_loss(features, target.embeddings, target.weights)

    with torch.no_grad():
        assert (loss(state.x0 + 0.05 * correction) < loss(state.x0)).all()


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
def test_active_steps_of_interval_and_every(clip, decode, options, active):
    correction = ClipGradient([target_for(clip, PROMPTS)], decode, **{"scale": 1.0, **options})
    assert [step for step in range(10) if correction.is_active(step, 10)] == active
    inactive = next(step for step in range(10, -1, -1) if step not in active)
    assert correction(make_state(index=inactive)) is None


def test_correction_is_proportional_to_every(clip, decode):
    target = target_for(clip, PROMPTS)
    once = ClipGradient([target], decode, scale=0.2)(make_state(index=1))
    thrice = ClipGradient([target], decode, scale=0.2, every=3)(make_state(index=1))
    assert relative(thrice, 3 * once) < 1e-5


def rough(latents):
    """Decodes without convolutions, so that its rounding does not depend on the batch."""
    return F.interpolate(latents[:, :3] / 4 + 0.5, (32, 32), mode="bilinear")


@pytest.mark.parametrize(("network_decodes", "most"), [(False, 1e-6), (True, 1e-5)])
def test_correction_of_an_image_does_not_depend_on_its_batch(clip, decode, network_decodes, most):
    """With a real decoder only up to the rounding of its convolutions, which depends on the batch (4e-7 each)."""
    decode = decode if network_decodes else rough
    together = ClipGradient([target_for(clip, PROMPTS)], decode, scale=0.3)(make_state())
    for row, prompt in enumerate(PROMPTS):
        state = make_state()
        alone = replace(
            state,
            **{name: getattr(state, name)[row : row + 1] for name in ("latents", "x0", "x0_cond", "x0_uncond")},
            image_seeds=SEEDS[row : row + 1],
        )
        correction = ClipGradient([target_for(clip, [prompt])], decode, scale=0.3)(alone)
        assert relative(correction[0], together[row]) < most


def test_shared_embeddings_broadcast_over_candidates(clip, decode):
    target = target_for(clip, PROMPTS[:1])
    correction = ClipGradient([target], decode, scale=0.3)
    same = ClipGradient([ClipTarget(clip, target.embeddings.expand(4, -1, -1), target.weights)], decode, scale=0.3)
    assert torch.equal(correction(make_state()), same(make_state()))
    assert correction(make_state(rows=3)).shape == (3, 4, 16, 16)


def test_correction_is_deterministic_and_leaves_the_global_generator(clip, decode):
    correction, before = (
        ClipGradient([target_for(clip, PROMPTS)], decode, scale=0.3),
        torch.random.get_rng_state(),
    )
    assert torch.equal(correction(make_state()), correction(make_state()))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_guiding_clips_have_equal_weight(clip, decode):
    one, other = target_for(clip, PROMPTS), target_for(clip, PROMPTS[::-1])
    joined = ClipTarget(clip, torch.cat([one.embeddings, other.embeddings], dim=1), torch.ones(2))
    both, same = (ClipGradient(targets, decode, scale=0.3)(make_state()) for targets in ([one, other], [joined]))
    assert relative(same, both) < 1e-5
    twice, once = (ClipGradient(targets, decode, scale=0.3)(make_state()) for targets in ([one, one], [one]))
    assert relative(twice, once) < 1e-6


def test_negative_weight_reverses_the_direction(clip, decode):
    snow = clip.text_features(["snow"])[None]
    towards, away = (
        ClipGradient([ClipTarget(clip, snow, torch.tensor([weight]))], decode, scale=0.3, cutouts=1)(make_state())
        for weight in (1.0, -1.0)
    )
    assert float(F.cosine_similarity(away.flatten(1), towards.flatten(1)).max()) < -0.9


def test_only_relative_weights_matter(clip, decode):
    prompts, snow = target_for(clip, PROMPTS).embeddings, clip.text_features(["snow"]).expand(4, 1, -1)
    both = torch.cat([prompts, snow], dim=1)
    small, large = (
        ClipGradient([ClipTarget(clip, both, torch.tensor([1.0, -0.5]) * factor)], decode, scale=0.3)(make_state())
        for factor in (1, 8)
    )
    assert relative(small, large) < 1e-6
    silent = ClipGradient([ClipTarget(clip, both, torch.tensor([1.0, 0.0]))], decode, scale=0.3)(make_state())
    assert relative(silent, ClipGradient([target_for(clip, PROMPTS)], decode, scale=0.3)(make_state())) < 1e-5


def test_veto_zeroes_latents_where_gradients_disagree(clip, decode):
    target = target_for(clip, PROMPTS)
    against = ClipTarget(clip, target.embeddings, -target.weights)
    other = target_for(clip, PROMPTS[::-1])
    options = {"scale": 0.3, "cutouts": 1}
    alone = ClipGradient([target], decode, **options)(make_state())
    assert torch.equal(ClipGradient([target], decode, **options, veto=target)(make_state()), alone)
    assert not ClipGradient([target], decode, **options, veto=against)(make_state()).any()
    some = ClipGradient([target], decode, **options, veto=other)(make_state())
    still = (some == 0).all(dim=1)
    assert 0.05 < float(still.float().mean()) < 0.95
    assert ((some * make_state().x0).sum(dim=(1, 2, 3)) <= 1e-4).all()


def test_gradient_that_is_not_finite_is_zeroed_and_noted(clip, decode):
    correction = ClipGradient([target_for(clip, PROMPTS)], decode, scale=0.3, start=0.0, stop=1.0)
    whole = correction(make_state())
    broken_x0 = make_state().x0.clone()
    broken_x0[2, 0, 5, 5] = torch.nan
    broken = correction(make_state(x0=broken_x0, index=4))
    sound = ClipGradient([target_for(clip, PROMPTS)], decode, scale=0.3, start=0.0, stop=1.0)(make_state(index=4))
    assert not broken[2].any()
    assert all(torch.equal(broken[row], sound[row]) for row in (0, 1, 3))
    (note,) = correction.notes()
    assert (note.code, note.field) == ("guidance-not-finite", "guidance")
    assert note.message == (
        "CLIP's gradient was not finite in 1 of 2 guided steps of the picture of seed 13; these steps were not guided."
    )
    assert whole[2].any()
    for step in (5, 6, 7):
        correction(make_state(index=step))
    assert correction.notes() == []  # 1 of 5 is no more than a fifth


def test_curve_holds_the_similarity_of_the_first_view(clip, decode):
    target = target_for(clip, PROMPTS)
    correction = ClipGradient([target], decode, scale=0.3)
    correction(make_state())
    with torch.no_grad():
        # The first view of a square image shows all of it.
        overview = clip.image_features(soft_clamp(decode(make_state().x0)))
    expected = (overview * target.embeddings[:, 0]).sum(dim=-1).tolist()
    for seed, value in zip(SEEDS, expected, strict=True):
        ((index, similarity),) = correction.curve(seed)
        assert index == 3
        assert similarity == pytest.approx(value, abs=1e-5)
    assert correction.targets[0].prompt_similarity(decode(make_state().x0)).shape == (4,)


def test_through_unet_direction_equals_full_autograd(clip, decode, network):
    """Autograd through denoiser, decoder, views and CLIP at once; at scale 1 x0 is the conditional x0."""
    target = target_for(clip, PROMPTS[:2])
    predict = classifier_free(
        network, conditioning_for(2, 3), conditioning_for(2, 4), scale=1.0, needs_graph=lambda step_input: True
    )
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    gradient = ClipGradient([target], decode, scale=0.3, through_unet=True, start=0.0, stop=1.0)

    def compare(state):
        correction = gradient(state)
        with torch.enable_grad():
            leaf = state.latents.detach().requires_grad_()
            output = network(leaf, torch.tensor(timesteps[state.index]), conditioning_for(2, 3))
            x0 = (leaf - state.sigma * output) / state.alpha
            crops = make_cutouts(soft_clamp(decode(x0)), state.image_seeds, state.index, 4, 32)
            features = clip.image_features(crops.flatten(0, 1)).unflatten(0, (2, 4))
            (naive,) = torch.autograd.grad(spherical_dist_loss(features, target.embeddings, target.weights).sum(), leaf)
        pairs.append((correction, remove_growth(scale_to_trust_region(-naive, state, 0.3), state.x0.detach())))
        return correction

    scheduler = make_scheduler("ddim", {**tiny.BETAS, "_class_name": "DDIMScheduler"}, 4, CPU)
    timesteps = scheduler.timesteps.tolist()
    generators = make_generators(SEEDS[:2])
    list(
        denoise(
            with_correction(predict, compare, SEEDS[:2]), scheduler, initial_noise(generators, (4, 16, 16)), generators
        )
    )
    assert len(pairs) == 4
    assert all(relative(ours, naive) < 1e-3 for ours, naive in pairs)


# Whole runs


def test_similarity_increases_with_scale(clip, decode, network):
    target = target_for(clip, PROMPTS[:2])
    similarities = []
    for scale in (0.0, 0.1, 0.3, 1.0):
        latents = run(network, ClipGradient([target], decode, scale=scale, cutouts=2, start=0.0, stop=1.0))
        similarities.append(similarity(latents, decode, clip, target))
    assert similarities == sorted(similarities)
    assert similarities[-1] - similarities[0] > 0.01


def test_scale_zero_equals_off_bit_for_bit(clip, decode, network):
    off = ClipGradient([target_for(clip, PROMPTS[:2])], decode, scale=0.0)
    assert torch.equal(run(network, off), run(network, None))
    assert [off.curve(seed) for seed in make_state().image_seeds[:2]] == [(), ()]


@pytest.mark.parametrize("scheduler", ["euler", "dpm++_2m", "heun", "pndm"])
def test_guidance_works_with_each_scheduler_and_is_deterministic(clip, decode, network, scheduler):
    target = target_for(clip, PROMPTS[:2])
    runs = [run(network, ClipGradient([target], decode, scale=1.0, cutouts=2), scheduler=scheduler) for _ in range(2)]
    assert torch.equal(*runs)
    unguided = run(network, None, scheduler=scheduler)
    assert similarity(runs[0], decode, clip, target) > similarity(unguided, decode, clip, target)


@pytest.mark.parametrize(("kind", "is_first"), [("siglip", True), ("siglip", False), ("siglip2", False)])
def test_siglip_can_guide(decode, network, kind, is_first):
    encoder = ClipEncoder(kind, tiny_siglip.model(kind), tiny_siglip.tokenizer(is_first), {})
    target = target_for(encoder, ["a fox", "an owl"])
    latents = run(network, ClipGradient([target], decode, scale=1.0, start=0.0, stop=1.0))
    unguided = run(network, None)
    assert similarity(latents, decode, encoder, target) > similarity(unguided, decode, encoder, target)


def test_similarity_increases_with_through_unet(clip, decode, network):
    target = target_for(clip, PROMPTS[:2])
    correction = ClipGradient([target], decode, scale=1.0, start=0.0, stop=1.0, through_unet=True)
    graph = run(
        network, correction, needs_graph=lambda step_input: correction.is_active(step_input.index, step_input.steps)
    )
    assert similarity(graph, decode, clip, target) > similarity(run(network, None), decode, clip, target)


@pytest.mark.parametrize("through_unet", [False, True])
def test_fifty_guided_steps_leave_no_graph(clip, decode, network, through_unet):
    correction = ClipGradient(
        [target_for(clip, PROMPTS[:1])],
        decode,
        scale=0.3,
        cutouts=1,
        start=0.0,
        stop=1.0,
        through_unet=through_unet,
    )
    needs_graph = (lambda step_input: True) if through_unet else None
    run(network, correction, steps=50, rows=1, needs_graph=needs_graph)
    assert len(correction.curve(SEEDS[0])) == 50
    gc.collect()
    assert not [item for item in gc.get_objects() if type(item) is torch.Tensor and item.grad_fn is not None]


def test_with_correction_adds_to_an_existing_correction():
    x = normal(1, 4, 16, 16)
    prediction = Prediction(x, x, None, x, correction=torch.ones_like(x))
    step_input = first_input()
    twice = with_correction(lambda step_input: prediction, lambda state: 2 * torch.ones_like(x), SEEDS[:1])(step_input)
    assert float(twice.correction.mean()) == 3
    unchanged = with_correction(lambda step_input: prediction, lambda state: None, SEEDS[:1])(step_input)
    assert torch.equal(unchanged.correction, prediction.correction)


def first_input():
    step_inputs = []

    def predict(step_input):
        step_inputs.append(step_input)
        return Prediction(step_input.latents, step_input.latents, None, step_input.latents)

    scheduler = make_scheduler("ddim", {**tiny.BETAS, "_class_name": "DDIMScheduler"}, 1, CPU)
    list(denoise(predict, scheduler, normal(1, 4, 16, 16), make_generators([1])))
    return step_inputs[0]
