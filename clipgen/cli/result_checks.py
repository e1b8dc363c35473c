"""The checks of --require on each picture, and the diversity of the pictures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipgen.cli.output import Report
from clipgen.report.score_text import check_line, diversity_line

if TYPE_CHECKING:
    from torch import Tensor

    from clipgen.clip.prompt_check import PhraseCheck
    from clipgen.pipeline.result import Result

ALL = "all"  # the value of --require that checks every part of the prompt


class ResultChecks:
    """Checks each picture with CLIP and collects the image features of a run for its diversity."""

    def __init__(self, required: Sequence[str], report: Report) -> None:
        self._required = required
        self._report = report
        self._features: list[Tensor] = []

    def check(self, result: Result) -> Sequence[PhraseCheck]:
        """Returns and prints the checks of a picture, none without --require."""
        of_prompt = result.checks if ALL in self._required else ()
        checks = (*of_prompt, *result.check([text for text in self._required if text != ALL]))
        if checks:
            self._report.say(check_line(checks), "dim")
        return checks

    def add_features(self, result: Result, images: int) -> None:
        """Adds the image features of a picture if its run has enough images for a diversity."""
        from clipgen.clip.diversity import FEWEST

        if images >= FEWEST and result.features is not None:
            self._features.append(result.features.cpu())

    def report_diversity(self) -> None:
        """Prints the diversity of the pictures of a finished run."""
        from clipgen.clip.diversity import FEWEST, diversity

        features, self._features = self._features, []
        if len(features) >= FEWEST:
            import torch

            result = diversity(torch.stack(features))
            self._report.say(diversity_line(result), "dim")
            self._report.event("diversity", **vars(result))
