from __future__ import annotations

import io

import pytest
import tiny
import torch
from PIL import Image

from clipgen.families import LAYOUTS, load_family
from clipgen.guidance.guard import (
    Survival,
    blur,
    jpeg,
    measure_survival,
    resize,
    shift,
    survival_warnings,
    vae_round_trip,
)
from clipgen.models import find_model, preflight
from clipgen.pixels import to_image

SIZE = 64
WAVE = torch.sin(torch.arange(SIZE) / 6)[:, None] * torch.cos(torch.arange(SIZE) / 9)  # a visible pattern
LINES = (torch.arange(SIZE) % 2 * 2.0 - 1).expand(SIZE, SIZE)  # an adversarial pattern of single pixels


def image(wave, lines):
    grey = 0.5 + wave * WAVE + lines * LINES
    return grey.expand(1, 3, SIZE, SIZE)


def similarity(pixels):
    """Responds to both patterns equally."""
    return ((pixels - 0.5) * (WAVE / WAVE.square().mean() + LINES)).mean(dim=(1, 2, 3))


def test_visible_gain_survives_and_adversarial_gain_does_not():
    pixels = torch.cat([image(0.3, 0.0), image(0.1, 0.2), image(0.0, 0.0)])
    real, noise, none = measure_survival(pixels, similarity, torch.zeros(3), lambda pixels: pixels)
    assert list(real.share_by_change) == ["jpeg", "shift", "blur", "resize", "vae"]
    assert all(0.9 < share < 1.1 for share in real.share_by_change.values())
    assert noise.share_by_change["shift"] == pytest.approx(-1 / 3, abs=0.1)
    assert noise.share_by_change["vae"] == 1
    assert noise.mean_share < 0.7 < real.mean_share
    assert none is None


def test_share_is_relative_to_the_gain_over_the_baseline():
    half = measure_survival(image(0.3, 0.0), similarity, torch.tensor([0.29]))[0]
    all_of_it = measure_survival(image(0.3, 0.0), similarity, torch.tensor([0.0]))[0]
    assert "vae" not in half.share_by_change
    assert 1 - half.share_by_change["blur"] == pytest.approx(30 * (1 - all_of_it.share_by_change["blur"]), rel=0.1)


def test_warning_below_the_minimum_share():
    notes = survival_warnings([Survival({"jpeg": 0.7, "blur": 0.72}), Survival({"jpeg": 0.5, "blur": 0.2}), None])
    assert (notes[0], notes[2]) == (None, None)
    assert (notes[1].code, notes[1].field) == ("guidance-overoptimised", "clip_guidance_scale")
    assert notes[1].message == (
        "Of what guidance gained in CLIP similarity 35% survive small changes (worst: blur): lower clip_guidance_scale."
    )


@pytest.mark.parametrize("change", [jpeg, shift, blur, resize])
@pytest.mark.parametrize("size", [(64, 64), (40, 72)])
def test_changes_are_small_and_keep_the_image_size(change, size):
    coarse = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False).clamp(0, 1)
    changed = change(smooth)
    assert changed.shape == smooth.shape
    assert 0 < float((changed - smooth).abs().mean()) < 0.05
    assert torch.equal(change(smooth[1:])[0], changed[1])


def test_jpeg_equals_pillow():
    pixels = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    file = io.BytesIO()
    to_image(pixels[0]).save(file, "JPEG", quality=75)
    assert to_image(jpeg(pixels)[0]).tobytes() == Image.open(file).tobytes()


def test_shift_moves_by_one_pixel():
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shift(pixels)[..., 1:, 1:], pixels[..., :-1, :-1])


def test_blur_is_a_gaussian_of_sigma_0_7():
    dot = torch.zeros(1, 3, 9, 9)
    dot[..., 4, 4] = 1.0
    spread = blur(dot)[0, 0]
    offsets = torch.arange(9.0) - 4
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    assert float((spread.sum(dim=0) * offsets.square()).sum()) == pytest.approx(0.49, abs=0.01)
    assert torch.allclose(spread, spread.T, atol=1e-7)


def test_round_trip_equals_the_vae(tiny_epsilon, tiny_v):
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for folder, own in ((tiny_epsilon, tiny.vae_kl()), (tiny_v, tiny.vae_tiny())):
        family, _ = load_family(preflight(find_model(str(folder)), LAYOUTS), torch.device("cpu"), torch.float32)
        with torch.no_grad():
            encoded = own.encode(pixels * 2 - 1)
            latents = encoded.latents if "latents" in encoded else encoded.latent_dist.mean
            expected = own.decode(latents).sample / 2 + 0.5
            assert torch.allclose(vae_round_trip(family)(pixels), expected, atol=1e-4)
