"""What CLIP sees in drawn pictures beyond their scores: what --require asks for, and how different they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipgen.cli.output import Report
from clipgen.report.score_text import chips, diversity_line
from clipgen.settings.settings import Note

if TYPE_CHECKING:
    from torch import Tensor

    from clipgen.clip.prompt_check import PhraseCheck
    from clipgen.pipeline.result import Result

ALL = "all"  # of --require: what the prompt itself asks for
NOTHING = Note("not-checked", "require", "Without a CLIP nothing can be held against --require.")


class Seen:
    """The checks of each picture, and the vectors of a run's pictures until it ends."""

    def __init__(self, required: Sequence[str], report: Report) -> None:
        self._required = required
        self._report = report
        self._features: list[Tensor] = []

    def checks(self, result: Result) -> Sequence[PhraseCheck]:
        """Returns and tells CLIP's answers to what is required, none if nothing is; warns where there is no CLIP."""
        if self._required and result.prompt_checker is None:
            self._report.warn(NOTHING)
        own = result.checks if ALL in self._required else ()
        checks = (*own, *result.check([text for text in self._required if text != ALL]))
        if checks:
            self._report.say(chips(checks), "dim")
        return checks

    def take(self, result: Result, images: int) -> None:
        """Takes a picture of a run of so many, to compare it with the others if they are enough."""
        from clipgen.clip.diversity import FEWEST

        if images >= FEWEST and result.features is not None:
            self._features.append(result.features.cpu())

    def tell_diversity(self) -> None:
        """Tells how different the pictures of a run that has ended are."""
        from clipgen.clip.diversity import FEWEST, diversity

        features, self._features = self._features, []
        if len(features) >= FEWEST:
            import torch

            found = diversity(torch.stack(features))
            self._report.say(diversity_line(found), "dim")
            self._report.event("diversity", **vars(found))
