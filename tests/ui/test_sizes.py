"""Sizes to choose from: shapes of about as many pixels as the model's own, inside every limit."""

from __future__ import annotations

import pytest
from clipgen.ui.sizes import sizes

from clipgen.models.layout import SizeLimits
from clipgen.settings.checks import LOCAL, SERVED, Limits
from clipgen.settings.settings import Settings


@pytest.mark.parametrize("own", [(128, 128), (512, 512), (1024, 1024), (768, 1024), (64, 64)])
@pytest.mark.parametrize("unit", [8, 16, 64])
def test_they_are_valid_settings_of_the_models_area(own: tuple[int, int], unit: int) -> None:
    found = sizes(own, SizeLimits(unit), LOCAL)
    assert [size.fields for size in found if size.own] == [("", "")]
    for size in found:
        Settings("a fox", width=size.width, height=size.height)
        if not size.own:
            assert size.width % unit == size.height % unit == 0
        if unit == 8 and own != (64, 64):
            assert size.width * size.height == pytest.approx(own[0] * own[1], rel=0.1)


def test_those_of_storybook_and_of_sdxl() -> None:
    assert [str(size) for size in sizes((128, 128), SizeLimits(8), SERVED)] == [
        "Square 128 × 128",
        "Portrait 112 × 144",
        "Landscape 144 × 112",
        "Tall 96 × 168",
        "Wide 168 × 96",
    ]
    portrait = next(size for size in sizes((1024, 1024), SizeLimits(8), LOCAL) if size.name == "Portrait")
    assert portrait.numbers == ("896", "1152")


def test_what_a_limit_forbids_is_not_offered() -> None:
    assert [size.name for size in sizes((64, 64), SizeLimits(8), LOCAL)] == ["Square"]
    assert [size.name for size in sizes((1024, 1024), SizeLimits(8, max_size=1024), LOCAL)] == ["Square"]
    assert [size.name for size in sizes((1024, 1024), SizeLimits(8), Limits(pixels=1_000_000))] == ["Square"]
