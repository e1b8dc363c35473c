"""Decodes latents into previews and finished images, and scores them with the model's own CLIP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from torch import Tensor

from clipgen.clip.score import Score, Scorer
from clipgen.decode import decode, decode_preview
from clipgen.device import MemoryFallback
from clipgen.families import Family
from clipgen.pipeline.locking import ModelLock
from clipgen.pipeline.plan import Batch
from clipgen.pipeline.result import Preview, ProgressEstimate, Step, make_steps
from clipgen.sampling.loop import StepOutput

CURVE_POINTS = 8  # steps of an image that are scored at most, evenly spaced


class PreviewDecoder:
    """Decodes and scores the latents of a batch, in any thread; `scorer` is None for a model without a CLIP."""

    def __init__(self, family: Family, scorer: Scorer | None, memory: MemoryFallback, lock: ModelLock) -> None:
        self.family, self.scorer, self.memory, self.lock = family, scorer, memory, lock

    def steps(self, batch: Batch, output: StepOutput, estimate: ProgressEstimate, seconds: float) -> Iterator[Step]:
        """Returns one Step per image; a preview is decoded and scored when it is first used."""
        eta = estimate.add_step(seconds, output.index, output.steps)
        on_curve = output.index % -(-output.steps // CURVE_POINTS) == 0 or output.index == output.steps - 1
        scored = on_curve and self._can_score(batch) and self.family.decodes_fast(*batch.size)
        preview = Preview(partial(self._decode, batch, output.x0), partial(self._score, batch) if scored else None)
        return make_steps(output, batch.first, seconds, eta, preview)

    def decode_images(self, batch: Batch, latents: Tensor) -> tuple[Tensor, Sequence[Score] | None]:
        """Returns the finished images [B, 3, H, W] in [0, 1] and their scores; None without a CLIP or a prompt.

        Raises OutOfMemory.
        """
        with self.lock.lock:
            pixels = decode(self.family, latents, batch.size, self.memory)
        return pixels, self._score(batch, pixels) if self._can_score(batch) else None

    def _decode(self, batch: Batch, x0: Tensor) -> Tensor:
        with self.lock.hold("A preview"):
            return decode_preview(self.family, x0, batch.size)

    def _can_score(self, batch: Batch) -> bool:
        """Returns whether there is a CLIP, and a prompt for each image."""
        return self.scorer is not None and all(batch.texts)

    def _score(self, batch: Batch, pixels: Tensor) -> Sequence[Score]:
        assert self.scorer is not None
        with self.lock.hold("CLIP"):
            return self.scorer.score(pixels, batch.texts)
