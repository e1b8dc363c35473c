"""The unconditional prediction is found whatever the order, sign, shape and formula of guidance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clipgen.attach.denoiser_output import matching_parts, unconditional_output

SHAPE = (2, 4, 8, 8)
ORDERS = ("uncond first", "cond first", "two calls", "lists", "learned variance", "half precision")


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    """Returns a conditional and an unconditional prediction that differ by a tenth, and a sample."""
    generator = torch.Generator().manual_seed(0)
    cond, difference, sample = (torch.randn(SHAPE, generator=generator) for _ in range(3))
    return cond, cond + 0.1 * difference, sample


def guided(cond: Tensor, uncond: Tensor, scale: float = 4.0) -> Tensor:
    return uncond + scale * (cond - uncond)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "order", ["uncond first", "cond first", "two calls", "lists", "learned variance", "half precision"]
)
def test_unconditional_half_is_found(sign: int, order: str) -> None:
    cond, uncond, sample = tensors()
    model_output, tolerance = sign * guided(cond, uncond), 1e-5
    outputs: dict[str, list[Any]] = {
        "uncond first": [torch.cat([uncond, cond])],
        "cond first": [torch.cat([cond, uncond])],
        "two calls": [cond, uncond],
        "lists": [[row[:, None] for row in torch.cat([cond, uncond])]],
        "learned variance": [torch.cat([torch.cat([uncond, cond]), torch.rand(4, 4, 8, 8)], dim=1)],
        "half precision": [torch.cat([uncond, cond]).half()],
    }
    if order == "half precision":
        model_output, tolerance = model_output.half(), 1e-2
    result = unconditional_output(model_output, outputs[order], sample)
    assert result is not None
    assert torch.allclose(result, sign * uncond, atol=tolerance)


def test_the_sample_may_be_part_of_the_model_output() -> None:
    cond, uncond, sample = tensors()
    to_model_output = lambda prediction: 0.3 * sample - 0.8 * prediction  # noqa: E731
    result = unconditional_output(to_model_output(guided(cond, uncond)), [cond, uncond], sample)
    assert result is not None
    assert torch.allclose(result, to_model_output(uncond), atol=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_renormalised_guidance_leaves_the_sign_and_the_half(sign: int) -> None:
    cond, uncond, sample = tensors()
    combined = guided(cond, uncond, 2.0)
    combined = combined * (cond.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True))
    result = unconditional_output(sign * combined, [cond, uncond], sample)
    assert result is not None
    assert torch.equal(result, sign * uncond)


def test_three_predictions() -> None:
    cond, uncond, sample = tensors()
    perturbed = cond + 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    model_output = guided(cond, uncond) + 2 * (cond - perturbed)
    result = unconditional_output(model_output, [torch.cat([uncond, cond, perturbed])], sample)
    assert result is not None
    assert torch.allclose(result, uncond, atol=1e-4)


def test_one_prediction_has_no_unconditional_half() -> None:
    cond, _, sample = tensors()
    assert unconditional_output(cond, [cond], sample) is None


def test_tokens_of_reference_images_are_left_out() -> None:
    tokens, sample = torch.randn(2, 24, 16), torch.randn(2, 16, 16)
    (part,) = matching_parts(tokens, sample)
    assert torch.equal(part, tokens[:, :16])
    assert matching_parts(torch.randn(3, 16, 16), sample) == []
