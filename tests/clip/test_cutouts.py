from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipgen.clip.cutouts import crop_squares, cutout_generator, make_cutouts, random_squares

SEEDS = [0, 7, 2**63 - 1]


def random_images(count, height, width):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def whole_image(size):
    return torch.tensor([[0.0, 0.0, size]], dtype=torch.float64)


@pytest.mark.parametrize(("size", "side"), [(50, 32), (32, 32), (20, 32), (224, 32)])
def test_crops_equal_antialiased_interpolation(size, side):
    image = random_images(1, size, size)
    expected = F.interpolate(image, (side, side), mode="bicubic", antialias=True)
    assert torch.allclose(crop_squares(image[0], whole_image(size), side), expected, atol=2e-6)


def test_the_inside_of_a_crop_equals_resizing_the_cropped_image():
    """Pixels at the border of a square also depend on pixels outside it, those of a cropped image do not."""
    image = random_images(1, 60, 80)
    square = torch.tensor([[20.0, 10.0, 40.0]], dtype=torch.float64)
    expected = F.interpolate(image[..., 10:50, 20:60], (16, 16), mode="bicubic", antialias=True)
    assert torch.allclose(crop_squares(image[0], square, 16)[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=2e-6)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96), (120, 40)])
@pytest.mark.parametrize("cutouts", [1, 2, 4, 11])
def test_squares_lie_inside_and_the_first_is_the_largest(height, width, cutouts):
    short = min(height, width)
    for seed in range(20):
        left, top, side = random_squares(cutout_generator(seed, 3), cutouts, height, width).unbind(dim=1)
        assert side[0] == short
        assert len(side) == cutouts
        assert ((side >= 0.35 * short) & (side <= short)).all()
        assert ((left >= 0) & (top >= 0) & (left + side <= width) & (top + side <= height)).all()


def test_the_distribution_of_sides_and_positions():
    squares = torch.stack([random_squares(cutout_generator(seed, 0), 5, 100, 200) for seed in range(400)])
    overview, others = squares[:, 0], squares[:, 1:]
    assert overview[:, 0].mean() == pytest.approx(50, abs=5)
    assert overview[:, 0].std() == pytest.approx(100 / 12**0.5, abs=3)
    assert (others[..., 2] == 100).double().mean() == pytest.approx(0.2525, abs=0.03)  # P(N(.8, .3) >= 1)
    assert others[..., 2].mean() == pytest.approx(76.4, abs=1.5)
    places = others[..., :2] / (torch.tensor([200, 100]) - others[..., 2:]).clamp(min=1e-9)
    cells = (places[:100, :, 0] * 2).long() + 2 * (places[:100, :, 1] * 2).long()
    free = (others[:100, :, 2] < 100).all(dim=1)
    assert all(sorted(row) == [0, 1, 2, 3] for row in cells[free].tolist())


def test_cutouts_depend_only_on_the_images_seed_and_step():
    pixels = random_images(3, 40, 64)
    together = make_cutouts(pixels, SEEDS, 4, 5, 16)
    assert together.shape == (3, 5, 3, 16, 16)
    for row, seed in enumerate(SEEDS):
        assert torch.equal(make_cutouts(pixels[row : row + 1], [seed], 4, 5, 16)[0], together[row])
    assert not torch.equal(make_cutouts(pixels, SEEDS, 5, 5, 16), together)
    same = make_cutouts(pixels[:1].expand(3, -1, -1, -1), SEEDS, 4, 5, 16)
    assert not torch.equal(same[0], same[1])


def test_the_random_squares_never_change():
    """A change here changes every guided image."""
    squares = random_squares(cutout_generator(3, 7), 3, 128, 192)
    assert squares.flatten().tolist() == pytest.approx(
        [62.609043, 0.000000, 128.000000, 78.456851, 1.142735, 106.268115, 31.665739, 0.000000, 128.000000], abs=1e-5
    )


def test_the_global_random_state_is_unchanged():
    before = torch.random.get_rng_state()
    make_cutouts(random_images(1, 40, 40), [3], 0, 4, 16)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_gradients_are_the_adjoint_of_the_resampling():
    pixels = random_images(2, 24, 40).double().requires_grad_()
    other = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((make_cutouts(pixels, [1, 2], 0, 4, 8) * other).sum(), pixels)
    step = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    moved = (make_cutouts(pixels + step, [1, 2], 0, 4, 8) - make_cutouts(pixels, [1, 2], 0, 4, 8)).detach()
    assert float((gradient * step).sum()) == pytest.approx(float((moved * other).sum()), rel=1e-9)
