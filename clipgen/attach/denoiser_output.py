"""Finds the unconditional prediction among a denoiser's outputs of one step.

A pipeline hands the scheduler one model output, m, made of several outputs of the denoiser: conditional, unconditional,
perhaps a perturbed one. Pipelines differ in their order, in the sign (Lumina 2, HiDream and Z-Image negate), in the
formula of guidance, and in parts that they drop (learned variance, tokens of reference images). So all of this is
measured on m instead of read from a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

EXACT = 0.02  # relative residual below which m counts as a linear combination; half precision stays below it


def unconditional_output(model_output: Tensor, outputs: Sequence[Any], sample: Tensor) -> Tensor | None:
    """Returns what the model output would be with the unconditional prediction alone, None if there is none.

    `model_output` m and `sample` have the same shape, `outputs` are those of the denoiser in this step. With
    predictions h_i, classifier-free guidance is m = sum a_i h_i + c sample, where a_i < 0 for the unconditional u; then
    m_u = m - sum a_i (h_i - h_u). If m is no linear combination (renormalised guidance), the sign s that the pipeline
    gives the predictions is that of the inner product of m and their mean, and m_u = s h_u for the h_u farther from m,
    since guidance moves m away from the unconditional prediction.
    """
    predictions = [part for output in outputs for part in matching_parts(output, sample)]
    if len(predictions) < 2:
        return None
    weights, residual = fit(model_output, predictions, sample)
    if residual < EXACT:
        sign = 1 if sum(weights) >= 0 else -1
        uncond = predictions[min(range(len(weights)), key=lambda index: sign * weights[index])]
        moves = [weight * (part - uncond) for weight, part in zip(weights, predictions, strict=True)]
        return model_output.float() - torch.stack(moves).sum(dim=0)
    mean = torch.stack(predictions).mean(dim=0)
    sign = 1 if float((mean * model_output).sum()) >= 0 else -1
    return max((sign * part for part in predictions), key=lambda part: float((part - model_output).norm()))


def fit(model_output: Tensor, predictions: Sequence[Tensor], sample: Tensor) -> tuple[list[float], float]:
    """Returns the weights a_i of the predictions in m = sum a_i h_i + c sample by least squares, and the residual.

    The residual is relative to m. The basis is h_0, h_i - h_0 and the sample: the predictions differ little, and normal
    equations of almost equal vectors would be inexact.
    """
    first = predictions[0]
    basis = [first, *(part - first for part in predictions[1:]), sample]
    matrix = torch.stack([column.double().cpu().flatten() for column in basis], dim=1)  # [N, K]
    scale = matrix.norm(dim=0).clamp(min=1e-12)
    matrix, target = matrix / scale, model_output.double().cpu().flatten()
    gram = matrix.T @ matrix + 1e-14 * torch.eye(len(basis), dtype=torch.float64)
    solution = torch.linalg.solve(gram, matrix.T @ target)
    residual = float((target - matrix @ solution).norm() / target.norm().clamp(min=1e-12))
    total, *others = (solution / scale).tolist()[:-1]
    return [total - sum(others), *others], residual


def matching_parts(output: Any, sample: Tensor) -> list[Tensor]:
    """Returns the predictions [B, ...] in one output of a denoiser, each of the sample's shape, in float32.

    An output may be a list of images, have a frame axis of length 1, a learned variance as further channels, or
    further tokens of reference images. An output that does not fit the sample has no parts.
    """
    if isinstance(output, list | tuple):
        output = torch.stack(list(output))
    if output.ndim == sample.ndim + 1 and output.shape[2] == 1:
        output = output.squeeze(2)
    if output.ndim != sample.ndim or len(output) % len(sample):
        return []
    output = output[:, : sample.shape[1]]  # channels, or tokens
    if output.shape[1:] != sample.shape[1:]:
        return []
    return [part.float() for part in output.split(len(sample))]
