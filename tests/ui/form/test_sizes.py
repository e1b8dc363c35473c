"""The sizes to choose from have about as many pixels as the model's own size and stay within every limit."""

from __future__ import annotations

import pytest
from clipgen.ui.form.sizes import sizes

from clipgen.models.layout import SizeLimits
from clipgen.settings.checks import LOCAL, SERVED, Limits
from clipgen.settings.settings import Settings


@pytest.mark.parametrize("default", [(128, 128), (512, 512), (1024, 1024), (768, 1024), (64, 64)])
@pytest.mark.parametrize("unit", [8, 16, 64])
def test_sizes_are_valid_settings_with_the_area_of_the_default(default: tuple[int, int], unit: int) -> None:
    result = sizes(default, SizeLimits(unit), LOCAL)
    assert [size.fields for size in result if size.is_default] == [("", "")]
    for size in result:
        Settings("a fox", width=size.width, height=size.height)
        if not size.is_default:
            assert size.width % unit == size.height % unit == 0
        if unit == 8 and default != (64, 64):
            assert size.width * size.height == pytest.approx(default[0] * default[1], rel=0.1)


def test_sizes_of_square_models() -> None:
    assert [str(size) for size in sizes((256, 256), SizeLimits(16), SERVED)] == [
        "Square 256 × 256",
        "Portrait 224 × 288",
        "Landscape 288 × 224",
        "Tall 192 × 336",
        "Wide 336 × 192",
    ]
    portrait = next(size for size in sizes((1024, 1024), SizeLimits(8), LOCAL) if size.name == "Portrait")
    assert portrait.numbers == ("896", "1152")


def test_sizes_beyond_a_limit_are_left_out() -> None:
    assert [size.name for size in sizes((64, 64), SizeLimits(8), LOCAL)] == ["Square"]
    assert [size.name for size in sizes((1024, 1024), SizeLimits(8, max_size=1024), LOCAL)] == ["Square"]
    assert [size.name for size in sizes((1024, 1024), SizeLimits(8), Limits(pixels=1_000_000))] == ["Square"]
