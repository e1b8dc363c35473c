"""Every layout of latents converts to [B, C, h, w] and back."""

from __future__ import annotations

import pytest
import torch

from clipgen import ModelError
from clipgen.attach.latent_layout import LatentLayout, token_grid

GRID = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))  # [B, C, h, w]


@pytest.mark.parametrize(
    ("shape", "tokens"),
    [
        ((2, 4, 6, 8), None),
        ((2, 16, 3, 4), None),
        ((2, 4, 1, 6, 8), None),
        ((2, 1, 6, 8, 4), None),
        ((2, 48, 4), (6, 8)),
        ((2, 12, 16), (3, 4)),
    ],
)
def test_round_trip(shape: tuple[int, ...], tokens: tuple[int, int] | None) -> None:
    layout = LatentLayout(torch.Size(shape), 4, tokens)
    latents = layout.from_grid(GRID)
    assert latents.shape == shape
    assert torch.equal(layout.to_grid(latents), GRID)


def test_patches_are_those_of_pixel_shuffle() -> None:
    latents = torch.randn(2, 16, 3, 4)
    assert torch.equal(LatentLayout(latents.shape, 4).to_grid(latents), torch.nn.functional.pixel_shuffle(latents, 2))


@pytest.mark.parametrize("shape", [(2, 4, 3, 6, 8), (2, 48, 9)])
def test_other_shapes_are_refused_in_one_line(shape: tuple[int, ...]) -> None:
    latents = torch.zeros(shape)
    with pytest.raises(ModelError, match=r"ClipGuidance cannot read latents of 2 x .* as an image of 4 channels\."):
        LatentLayout(latents.shape, 4, (6, 8)).to_grid(latents)


def test_token_grid_reads_the_generated_image() -> None:
    grid = torch.cartesian_prod(torch.zeros(1), torch.arange(3.0), torch.arange(4.0))  # [12, 3]
    reference = torch.cartesian_prod(torch.ones(1), torch.arange(5.0), torch.arange(5.0))
    text = torch.zeros(7, 3)
    assert token_grid({"img_ids": torch.cat([grid, reference])}, 12) == (3, 4)
    assert token_grid({"img_ids": grid[None].expand(2, -1, -1) + 5}, 12) == (3, 4)
    assert token_grid({"position_ids": torch.cat([text, grid])}, 12) == (3, 4)
    assert token_grid({"img_shapes": [[(1, 3, 4), (1, 5, 5)]]}, 12) == (3, 4)
    assert token_grid({"img_shapes": [(1, 3, 4)]}, 12) == (3, 4)
    assert token_grid({}, 12) is None
