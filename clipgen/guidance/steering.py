"""Settings become what steers a batch: CLIPs and what they are to see, and the correction of x0 they ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clipgen.clip.encoder import ClipEncoder
from clipgen.clip.score import Score
from clipgen.denoise import Point, PredictNoise, State
from clipgen.errors import SettingsError
from clipgen.families import Family
from clipgen.guidance.clip_gradient import ClipGradient, Guide, corrected
from clipgen.guidance.guard import overoptimised, survival, vae_round_trip
from clipgen.guidance.guide_decoder import guide_decoder
from clipgen.guidance.pick import Pick, Reward, candidate_seeds
from clipgen.image_file import open_picture
from clipgen.settings import Note, Settings, split_target

LoadEncoder = Callable[[str], ClipEncoder]


@dataclass(frozen=True)
class Encoders:
    """The CLIPs of a run: those that guide, and the second key that may veto them."""

    guides: tuple[ClipEncoder, ...]
    second: ClipEncoder | None = None


def encoders_of(settings: Settings, own: ClipEncoder | None, model: str, load: LoadEncoder) -> Encoders:
    """Returns the CLIPs that settings name, else the model's own; `two-key` takes the last one named as its second key.

    Raises SettingsError where there is none, and what `load` raises.
    """
    named = tuple(load(name) for name in settings.clip_models)
    guides, second = (named[:-1], named[-1]) if settings.guard == "two-key" and named else (named, None)
    if settings.guard == "two-key" and second is None:
        raise SettingsError("guard two-key needs a second CLIP: name it with clip_models", field="guard")
    if not guides and own is None:
        raise SettingsError(
            f"guidance '{settings.guidance}' needs a CLIP, and model '{model}' brings none: name one with clip_models, "
            "such as openai/clip-vit-base-patch32",
            field="clip_models",
        )
    return Encoders(guides or (own,) if own is not None else guides, second)


def guide_of(encoder: ClipEncoder, texts: Sequence[str], settings: Settings) -> Guide:
    """Returns what an encoder is to see: each picture's text, and the texts and pictures that settings add.

    Raises ImageFileError for a picture of `like` that cannot be opened.
    """
    words = [split_target(target) for target in settings.guide]
    pictures = [split_target(target) for target in settings.like]
    extra = [encoder.text_features([text]) for text, _ in words]
    extra += [encoder.image_features(_pixels(path)) for path, _ in pictures]
    prompts = encoder.text_features(texts)  # [B, D]
    targets = torch.stack([prompts, *(vector.expand_as(prompts) for vector in extra)], dim=1)
    weights = torch.tensor([1.0, *(weight for _, weight in (*words, *pictures))], device=targets.device)
    return Guide(encoder, targets, weights)


@torch.no_grad()
def gradient_of(settings: Settings, encoders: Encoders, family: Family, texts: Sequence[str]) -> ClipGradient:
    """Returns the correction of guidance `clip` for a batch with those texts."""
    guides = [guide_of(encoder, texts, settings) for encoder in encoders.guides]
    return ClipGradient(
        guides,
        guide_decoder(family, settings.guide_decoder, encoders.guides[0].side),
        scale=settings.clip_guidance_scale,
        cutouts=settings.cutouts,
        start=settings.guidance_start,
        stop=settings.guidance_stop,
        every=settings.guidance_every,
        through_unet=settings.through_unet,
        two_key=None if encoders.second is None else guide_of(encoders.second, texts, settings),
    )


@dataclass(frozen=True)
class Steering:
    """What guidance does to one batch; without a correction and a choice nothing.

    `seeds` are those of the rows that start: a picture's own, or those of the candidates for the batch's one picture.
    `own_guides` = the CLIP that scores it steers; `family` is there where the guard `survival` is wanted.
    """

    seeds: tuple[int, ...]
    correction: ClipGradient | None = None
    pick: Pick | None = None
    own_guides: bool = False
    family: Family | None = None

    def shown(self, state: State) -> State:
        """Returns a state with one row a picture: the first candidate stands for the others."""
        if self.pick is None:
            return state
        return replace(state, latents=state.latents[:1], x0=state.x0[:1], rows=state.rows[:1])

    def chosen(self, state: State) -> tuple[Tensor, tuple[int, ...]]:
        """Returns the finished latents [B, C, h, w], one row a picture, and the seeds that they began with."""
        if self.pick is None:
            return state.latents, self.seeds
        best = int(torch.nan_to_num(self.pick.reward(state.latents), nan=-torch.inf).argmax())
        return state.latents[best : best + 1], (self.seeds[state.rows[best]],)

    def wants_graph(self, point: Point) -> bool:
        """Tells whether the conditional prediction of a step must keep its graph."""
        correction = self.correction
        return correction is not None and correction.through_unet and correction.active(point.index, point.steps)

    def guided(self, predict: PredictNoise) -> PredictNoise:
        """Returns the prediction with the correction in it."""
        return predict if self.correction is None else corrected(predict, self.correction, self.seeds)

    def notes(self) -> list[Note]:
        """Returns what is to be said of the whole batch."""
        return [] if self.correction is None else self.correction.notes()

    def survived(self, pixels: Tensor, image_seeds: Sequence[int]) -> list[Note | None]:
        """Returns for each picture [B, 3, H, W] a warning if little of its gain outlives changes that nobody sees.

        The gain is counted from the first guided step. None for all where nothing guards or nothing was guided.
        """
        correction = self.correction
        if correction is None or self.family is None or not all(map(correction.curve, image_seeds)):
            return [None] * len(pixels)
        baseline = torch.tensor([correction.curve(seed)[0][1] for seed in image_seeds])
        pixels = pixels.to(self.family.vae.device)
        found = survival(pixels, correction.similarity, baseline.to(pixels), vae_round_trip(self.family))
        return overoptimised(found)

    def graded(self, scores: Sequence[Score] | None, image_seeds: Sequence[int]) -> Sequence[Score] | None:
        """Returns scores with the curve of their picture, and saying so where the CLIP that gives them has steered."""
        if scores is None or not self.own_guides:
            return scores
        return [
            replace(score, self_graded=True, curve=self._curve(seed))
            for score, seed in zip(scores, image_seeds, strict=True)
        ]

    def _curve(self, image_seed: int) -> tuple[tuple[int, float, None], ...]:
        seen = () if self.correction is None else self.correction.curve(image_seed)
        return tuple((step, similarity, None) for step, similarity in seen)


def steering_of(
    settings: Settings,
    family: Family,
    texts: Sequence[str],
    seeds: Sequence[int],
    *,
    own: ClipEncoder | None,
    model: str,
    load: LoadEncoder,
) -> Steering:
    """Returns the steering of a batch whose pictures have these texts and seeds; `own` is the model's own CLIP.

    Raises SettingsError, ImageFileError, and what `load` raises for a CLIP that is not there.
    """
    methods = settings.guidance.split("+")
    if methods == ["off"]:
        return Steering(tuple(seeds))
    encoders = encoders_of(settings, own, model, load)
    picks = "pick" in methods
    return Steering(
        candidate_seeds(seeds[0], settings.candidates) if picks else tuple(seeds),
        gradient_of(settings, encoders, family, texts) if "clip" in methods else None,
        Pick(reward_of(encoders, family, texts, settings), settings.candidates) if picks else None,
        own in encoders.guides,
        family if settings.guard == "survival" else None,
    )


@torch.no_grad()
def reward_of(encoders: Encoders, family: Family, texts: Sequence[str], settings: Settings) -> Reward:
    """Returns what a choice goes by: the weighted similarity of a decoded x0 to the first guide's targets."""
    guide = guide_of(encoders.guides[0], texts, settings)

    @torch.no_grad()
    def reward(x0: Tensor) -> Tensor:
        seen = torch.cat([guide.encoder.image_features(family.decode(row).clamp(0, 1)) for row in x0.split(1)])
        cosines: Tensor = (seen[:, None] * guide.targets).sum(dim=-1) @ guide.weights
        return cosines

    return reward


def _pixels(path: str) -> Tensor:
    """Returns a picture file as pixels [1, 3, H, W] in [0, 1]."""
    levels = np.asarray(open_picture(path), dtype=np.float32)
    return torch.from_numpy(levels / 255).permute(2, 0, 1)[None]
