"""What the tabs share: components of the Generate tab, options of event handlers, running a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from clipgen.errors import ClipgenError

from ..html import output_panel
from ..image_info import ImageInfo
from ..job_events import JobStopped, Loading, TaskResult, Waiting
from ..worker import Worker

if TYPE_CHECKING:
    from clipgen.pipeline.pipeline import Pipeline

# Options of event handlers. Only the endpoints of api.py are public; the page shows its own progress.
PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
UNQUEUED: dict[str, Any] = {"queue": False, **PRIVATE}
# A handler that starts a job: it gets the values as the browser sent them, and waits in the worker's queue.
STARTS_JOB: dict[str, Any] = {"preprocess": False, "concurrency_limit": None, "trigger_mode": "once", **PRIVATE}


@dataclass(frozen=True)
class SharedWidgets:
    """Components of the Generate tab that other tabs read or update.

    Args:
        fields: The form, in the order of `form.fields.FIELD_ORDER`.
        message: The line above the output panel.
        generate_button: Its label shows how far the model is loaded.
        loaded_model: State: the name of the model once it is loaded, "" before.
        tabs: To select another tab.
        session_images: State: the images generated in this browser session, oldest first.
        models: The models of this server.
    """

    fields: list[Any]
    message: gr.HTML
    generate_button: gr.Button
    loaded_model: gr.State
    tabs: gr.Tabs
    session_images: gr.State
    models: tuple[str, ...]


def selected_index(images: Sequence[ImageInfo], event: gr.EventData) -> int | None:
    """Returns the index of the image that was selected in a gallery, None if the event names none of them."""
    try:
        index = event.index
    except (AttributeError, TypeError):  # a request may contain an event without data
        return None
    return index if isinstance(index, int) and 0 <= index < len(images) else None


def run_task(
    worker: Worker, build_task: Callable[[], Callable[[Pipeline], Any]], session: str
) -> Iterator[str | TaskResult]:
    """Yields HTML while a task waits, and last its TaskResult, or an error message as HTML."""
    try:
        for event in worker.run_task(build_task(), worker.model_name or worker.config.models[0], session):
            match event:
                case Waiting(position):
                    yield output_panel.waiting(position)
                case Loading(model, percent):
                    yield output_panel.loading(model, percent)
                case JobStopped():
                    yield output_panel.message("Stopped.", "done")
                case TaskResult():
                    yield event
    except ClipgenError as error:
        yield output_panel.message(str(error))
