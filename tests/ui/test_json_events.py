"""The JSON events of a job end with an envelope, which also reports errors."""

from __future__ import annotations

from clipgen.ui import json_events
from clipgen.ui.worker import Worker

FOX = {"prompt": "a fox", "steps": 2}


def test_the_events_of_a_job_end_with_an_envelope(worker: Worker) -> None:
    events = list(json_events.generate(worker, {**FOX, "seed": 3}, "session"))
    types = [event["type"] for event in events if event["type"] != "loading"]
    assert types == ["start", "step", "step", "image", "envelope"]
    assert (events[-1]["ok"], events[-1]["data"]) == (True, {"pictures": 1})


def test_an_error_is_reported_in_the_envelope(worker: Worker) -> None:
    (envelope,) = json_events.generate(worker, {**FOX, "images": 9}, "session")
    assert (envelope["ok"], envelope["exit"], envelope["error"]["field"]) == (False, 2, "images")
    assert envelope["error"]["message"] == "images must be 1 to 8, got '9'"
