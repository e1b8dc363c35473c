"""What is seen of a batch: rough pictures of its steps, whole ones in the end, and how well each fits its words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from torch import Tensor

from clipgen.clip.score import Score, Scorer
from clipgen.decode import decode, look
from clipgen.device import MemoryFallback
from clipgen.families import Family
from clipgen.pipeline.locking import Turns
from clipgen.pipeline.plan import Batch
from clipgen.pipeline.result import Look, Pace, Step, steps_of
from clipgen.sampling.loop import StepOutput

CURVE_POINTS = 8  # steps of a picture at which CLIP can be asked, evenly spread


class Viewer:
    """Decodes latents, whoever asks and whenever, and has the model's own CLIP score them if it brings one."""

    def __init__(self, family: Family, scorer: Scorer | None, ladder: MemoryFallback, turns: Turns) -> None:
        self.family, self.scorer, self.ladder, self.turns = family, scorer, ladder, turns

    def steps(self, batch: Batch, state: StepOutput, pace: Pace, seconds: float) -> Iterator[Step]:
        """Returns one Step a picture; nothing is decoded or scored until somebody asks."""
        eta = pace.step(seconds, state.index, state.steps)
        at_a_point = state.index % -(-state.steps // CURVE_POINTS) == 0 or state.index == state.steps - 1
        scored = at_a_point and self._scored(batch) and self.family.decodes_fast(*batch.size)
        shared = Look(partial(self._look, batch, state.x0), partial(self._scores, batch) if scored else None)
        return steps_of(state, batch.first, seconds, eta, shared)

    def pictures(self, batch: Batch, latents: Tensor) -> tuple[Tensor, Sequence[Score] | None]:
        """Returns the finished pictures [B, 3, H, W] in [0, 1] and their scores, None without a CLIP.

        Raises OutOfMemory.
        """
        with self.turns.lock:
            pixels = decode(self.family, latents, batch.size, self.ladder)
        return pixels, self._scores(batch, pixels) if self._scored(batch) else None

    def _look(self, batch: Batch, x0: Tensor) -> Tensor:
        with self.turns.of("A preview"):
            return look(self.family, x0, batch.size)

    def _scored(self, batch: Batch) -> bool:
        """Tells whether there is a CLIP, and words to hold the pictures against."""
        return self.scorer is not None and batch.worded

    def _scores(self, batch: Batch, pixels: Tensor) -> Sequence[Score]:
        assert self.scorer is not None
        with self.turns.of("CLIP"):
            return self.scorer.score(pixels, batch.texts)
