"""The updates of the output panel while images are generated."""

from __future__ import annotations

from pathlib import Path

import pytest
from clipgen.ui.tabs.updates import PanelUpdate, generate_updates
from clipgen.ui.worker import Worker

from ..conftest import raw_form


def updates(worker: Worker, **changes: object) -> list[PanelUpdate]:
    return list(generate_updates(worker, raw_form(worker.config.models[0], **changes), "session"))


def test_previews_come_before_the_finished_image(worker: Worker) -> None:
    result = updates(worker)
    panels = [update.panel for update in result if update.panel]
    assert "step 2 of 2" in panels[-2]
    assert 'data-final="1"' in panels[-1]
    assert [update.busy for update in result] == [True] * (len(result) - 1) + [False]
    assert result[-2].images is not None
    assert len(result[-2].images) == 1


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "prompt must not be empty"),
        ("(a:9)", "weight must be 0 to 2"),
        ("a fox\nSteps: 20, Seed: 1, Size: 64x64", "This text is settings, not a prompt. Press Load settings."),
    ],
)
def test_errors_are_shown_as_messages(worker: Worker, prompt: str, message: str) -> None:
    last = updates(worker, prompt=prompt)[-1]
    assert (message in str(last.message), last.busy) == (True, False)


def test_a_model_that_the_server_does_not_offer_is_refused(worker: Worker, tiny_epsilon: Path) -> None:
    assert "model must be one of" in str(updates(worker, model=str(tiny_epsilon))[-1].message)
