"""Guidance by the gradient of CLIP similarity: moves x0 along it, within a trust region.

He et al. 2023 (MPGD, arXiv 2311.16424). With `through_unet` the gradient also goes through the denoiser: Chung et al.
2022 (DPS, arXiv 2209.14687).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import hypot

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgen.clip.cutouts import make_cutouts
from clipgen.device import is_out_of_memory, release_memory
from clipgen.errors import OutOfMemory
from clipgen.guidance.targets import ClipTarget, Decode
from clipgen.sampling.loop import Correction, Prediction, PredictNoise, StepInput, StepState, step_state
from clipgen.settings.settings import Note

CLAMP_SLOPE = 0.05  # of soft_clamp: the share of their gradient that pixels outside [0, 1] keep
X0_SHARE = 0.1  # of rms(x0): the size of the trust region if there is no unconditional output to measure it by
MAX_NOT_FINITE = 0.2  # share of an image's guided steps with a gradient that is not finite, above which a note says so
EPS = 1e-12


class ClipGradient:
    """A Correction of x0 by the gradient of the CLIP loss, averaged over the guiding CLIPs.

    Args:
        targets: one per guiding CLIP.
        decode: a differentiable decoder, x0 [B, C, h, w] -> pixels [B, 3, H, W], 0 to 1.
        scale: size of the correction, 0 to 1, in units of what classifier-free guidance changes in x0.
        cutouts: views of an image per step; the first shows the largest square, the others are crops.
        start: progress at which guidance begins, 0 to 1.
        stop: progress at which it ends.
        every: guides only each `every`-th step of the interval, `every` times as strongly.
        through_unet: multiplies the gradient by the Jacobian of the denoiser. `x0_cond` of the StepState must then keep
            its graph to the latents at active steps.
        veto: a second CLIP. The correction is 0 at the latents where its gradient points the other way.
    """

    def __init__(
        self,
        targets: Sequence[ClipTarget],
        decode: Decode,
        *,
        scale: float,
        cutouts: int = 4,
        start: float = 0.1,
        stop: float = 0.7,
        every: int = 1,
        through_unet: bool = False,
        veto: ClipTarget | None = None,
    ) -> None:
        self.targets = tuple(targets)
        self.decode = decode
        self.scale, self.cutouts = scale, cutouts
        self.start, self.stop, self.every = start, stop, every
        self.through_unet = through_unet
        self.veto = veto
        # Per guided step: its index, the seeds of its rows, and a tensor [B].
        self._similarities: list[tuple[int, tuple[int, ...], Tensor]] = []
        self._not_finite: list[tuple[tuple[int, ...], Tensor]] = []
        self._rows_at_once: int | None = None  # once memory ran out: how many rows of a batch fit

    def is_active(self, index: int, steps: int) -> bool:
        """Tells whether this step is guided."""
        return self.scale > 0 and index in active_steps(steps, self.start, self.stop, self.every)

    def __call__(self, state: StepState) -> Tensor | None:
        """Returns the correction D of x0, [B, C, h, w] in float32, or None if this step is not guided.

        A row depends on its own image only. If its gradient is not finite its correction is 0.
        """
        if not self.is_active(state.index, state.steps):
            return None
        x0 = state.x0.detach()  # [B, C, h, w]

        # 1. The direction: minus the gradient of the CLIP loss at x0.
        gradient, agreement = self._gradient_in_parts(state)

        # 2. Through the denoiser: the vector-Jacobian product with d x0_cond / d x_t, which keeps the directions in
        #    which data varies and damps adversarial ones. The gradient goes in at rms 1, so that it does not underflow
        #    in half precision.
        if self.through_unet:
            (gradient,) = torch.autograd.grad(state.x0_cond, state.latents, gradient / (rms(gradient) + EPS))

        # 3. The length: a trust region. Where the veto disagrees nothing moves.
        correction = agreement * scale_to_trust_region(gradient, state, self.scale * self.every)

        # 4. Contrast: leave out what only makes x0 larger.
        correction = remove_growth(correction, agreement * x0)

        # 5. Rows that are not finite are not corrected.
        finite = torch.isfinite(correction).flatten(1).all(dim=1)  # [B]
        self._not_finite.append((state.image_seeds, ~finite))
        return torch.where(finite[:, None, None, None], correction, torch.zeros_like(correction))

    def _gradient_in_parts(self, state: StepState) -> tuple[Tensor, Tensor]:
        """Returns `_gradient` of the whole batch, and keeps the similarities.

        If memory runs out, it is released and the step repeated; then with half as many rows at once, which does not
        change the result. Raises OutOfMemory if even one row does not fit.
        """
        rows, device, retried = torch.arange(len(state.x0)), state.x0.device, self._rows_at_once is not None
        while True:
            at_once = min(self._rows_at_once or len(rows), len(rows))
            try:
                parts = [self._gradient(state_of_rows(state, part), part) for part in rows.split(at_once)]
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if retried and at_once == 1:
                    raise OutOfMemory(
                        f"CLIP guidance does not fit into the memory of {device}, even one image at a time. "
                        "Works: fewer cutouts, guide_decoder linear, smaller images.",
                        field="cutouts",
                    ) from error
            self._rows_at_once = max(1, at_once // 2) if retried else self._rows_at_once
            retried = True
            release_memory(device)
        gradients, agreements, similarities = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        self._similarities.append((state.index, state.image_seeds, similarities))
        return gradients, agreements

    def _gradient(self, state: StepState, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns minus the gradient at x0 [B, C, h, w], if the veto agrees [B, 1, h, w], and the similarities [B].

        `rows` are the indices of these rows in the batch. Agreement is 1 or 0.
        """
        targets = [target.of_rows(rows) for target in self.targets]
        with torch.enable_grad():
            x0 = state.x0.detach().float().requires_grad_()  # [B, C, h, w]
            pixels = soft_clamp(self.decode(x0))  # [B, 3, H, W]
            losses, similarities = zip(
                *(self._loss(target, pixels, state, self.cutouts) for target in targets), strict=True
            )
            loss = torch.stack(losses).mean()
            if self.veto is None:
                return -torch.autograd.grad(loss, x0)[0], torch.ones_like(x0[:, :1]), similarities[0]
            veto_loss, _ = self._loss(self.veto.of_rows(rows), pixels, state, 1)
            (veto_gradient,) = torch.autograd.grad(veto_loss, x0, retain_graph=True)
        (gradient,) = torch.autograd.grad(loss, x0)
        agreement = F.cosine_similarity(gradient, veto_gradient, dim=1, eps=EPS) > 0  # [B, h, w]
        return -gradient, agreement[:, None].to(gradient), similarities[0]

    def _loss(self, target: ClipTarget, pixels: Tensor, state: StepState, cutouts: int) -> tuple[Tensor, Tensor]:
        """Returns the loss of one CLIP, and the cosine similarities [B] of the first view to the prompt.

        The loss is summed over images: a mean would divide the guidance of each image by the size of its batch.
        """
        # crops: [B, V, 3, S, S]
        crops = make_cutouts(pixels, state.image_seeds, state.index, cutouts, target.encoder.image_size)
        features = target.encoder.image_features(crops.flatten(0, 1))  # [B * V, D]
        features = features.unflatten(0, crops.shape[:2])  # [B, V, D]
        similarities = (features[:, 0] * target.embeddings[:, 0]).sum(dim=-1).detach()  # [B]
        return spherical_dist_loss(features, target.embeddings, target.weights).sum(), similarities

    def curve(self, image_seed: int) -> tuple[tuple[int, float], ...]:
        """Returns (step index, cosine similarity to the prompt) of each guided step of an image."""
        return tuple(
            (index, float(similarities[seeds.index(image_seed)]))
            for index, seeds, similarities in self._similarities
            if image_seed in seeds
        )

    def notes(self) -> list[Note]:
        """Returns a warning if an image had gradients that are not finite in more than a fifth of its guided steps."""
        guided, not_finite = Counter[int](), Counter[int]()  # steps by image seed
        for seeds, rows in self._not_finite:
            guided.update(seeds)
            not_finite.update(seed for seed, broken in zip(seeds, rows.tolist(), strict=True) if broken)
        affected = [seed for seed in not_finite if not_finite[seed] > MAX_NOT_FINITE * guided[seed]]
        if not affected:
            return []
        lost, total = sum(not_finite[seed] for seed in affected), sum(guided[seed] for seed in affected)
        which = f"the picture of seed {affected[0]}" if len(affected) == 1 else f"{len(affected)} pictures"
        line = (
            f"CLIP's gradient was not finite in {lost} of {total} guided steps of {which}; these steps were not guided."
        )
        return [Note("guidance-not-finite", "guidance", line)]


def state_of_rows(state: StepState, rows: Tensor) -> StepState:
    """Returns the state of these rows of a batch, for a gradient at x0 or at the latents."""
    if len(rows) == len(state.x0):
        return state
    seeds = tuple(state.image_seeds[row] for row in rows.tolist())
    return replace(state, latents=state.latents[rows], x0=state.x0[rows], image_seeds=seeds)


def active_steps(steps: int, start: float, stop: float, every: int) -> list[int]:
    """Returns the indices of the guided steps: each `every`-th of those with start <= index / steps < stop."""
    return [index for index in range(steps) if start <= index / steps < stop][::every]


def with_correction(predict: PredictNoise, correction: Correction, image_seeds: Sequence[int]) -> PredictNoise:
    """Returns the prediction with a correction of x0 added, and without its graph."""

    def predict_corrected(step_input: StepInput) -> Prediction:
        prediction = predict(step_input)
        with torch.enable_grad():  # the loop runs without; x0_cond keeps the graph of prediction.cond
            state = step_state(step_input, prediction, image_seeds)
        added = correction(state)
        prediction = replace(prediction, cond=prediction.cond.detach(), latents=prediction.latents.detach())
        if added is None:
            return prediction
        return replace(prediction, correction=added if prediction.correction is None else prediction.correction + added)

    return predict_corrected


def spherical_dist_loss(features: Tensor, embeddings: Tensor, weights: Tensor) -> Tensor:
    """Returns half the squared angle between features and embeddings, weighted, averaged over views: [B].

    The loss of CLIP-guided diffusion (Crowson 2021). `features` [B, V, D] and `embeddings` [B or 1, T, D] are unit
    vectors; `weights` [T] count by their share of sum |w|.
    """
    chords = (features[:, :, None] - embeddings[:, None]).norm(dim=-1)  # [B, V, T]
    angles = 2 * torch.asin((chords / 2).clamp(max=1 - 1e-6))  # asin has an infinite gradient at 1
    return (angles.square() / 2 @ (weights / weights.abs().sum())).mean(dim=1)


def soft_clamp(pixels: Tensor) -> Tensor:
    """Returns pixels clamped to [0, 1] but for a twentieth of the excess, so that saturated ones keep a gradient."""
    inside = pixels.clamp(0, 1)
    return inside + CLAMP_SLOPE * (pixels - inside)


def rms(tensor: Tensor) -> Tensor:
    """Returns the root mean square of each row, [B, 1, 1, 1]."""
    return tensor.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


def scale_to_trust_region(gradient: Tensor, state: StepState, strength: float) -> Tensor:
    """Returns the gradient with the rms of a trust region, per row.

    rms = strength * noise_share * rms(x0 - x0_uncond): what classifier-free guidance changes is a safe amount, and the
    less noise is left to correct mistakes, the less is moved. Without x0_uncond a tenth of rms(x0) takes its place.
    """
    alpha, sigma = state.alpha, state.sigma
    is_flow = abs(alpha + sigma - 1) < 1e-9  # at the ends of other schedules too, but there both formulas agree
    noise_share = sigma if is_flow else sigma / hypot(alpha, sigma)
    x0 = state.x0.detach()
    reference = X0_SHARE * rms(x0) if state.x0_uncond is None else rms(x0 - state.x0_uncond)
    return strength * noise_share * reference * gradient / (rms(gradient) + EPS)


def remove_growth(correction: Tensor, x0: Tensor) -> Tensor:
    """Returns the correction without its component along x0 if that one makes x0 larger, which only adds contrast.

    Sadat et al. 2024 (APG, arXiv 2410.02416) do this to the difference of classifier-free guidance.
    """
    along = (correction * x0).sum(dim=(1, 2, 3), keepdim=True)  # [B, 1, 1, 1]
    return correction - along.clamp(min=0) / (x0.square().sum(dim=(1, 2, 3), keepdim=True) + EPS) * x0
