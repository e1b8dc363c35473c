"""The updates of the Compare tab: images of each variant, and their scores."""

from __future__ import annotations

from clipgen.ui.tabs.compare import compare_updates
from clipgen.ui.worker import Worker

from clipgen.compare import BEST_OF_N

from ..conftest import raw_form


def test_the_variants_come_with_scores_times_and_curves(worker: Worker) -> None:
    raw = raw_form(worker.config.models[0], steps="3")
    comparisons = [each for _, each in compare_updates(worker, raw, "", BEST_OF_N, "session") if each is not None]
    images, scores = comparisons[-1].images, comparisons[-1].scores
    assert [name for name, _ in images][:2] == ["unguided", "guided"]
    assert all(text in scores for text in ("guided against unguided", "self-graded", "Self-graded:", "Time"))
    assert images[1][1].unguided_curve == images[0][1].curve


def test_a_judge_must_be_a_hub_id(worker: Worker) -> None:
    model = worker.config.models[0]
    update, _ = list(compare_updates(worker, raw_form(model), model, BEST_OF_N, "session"))[-1]
    assert "judge must be a hub id on this machine" in str(update.message)
