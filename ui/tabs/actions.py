"""The buttons below a finished image: reuse its settings, compare, vary, copy the command, explain its words."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from clipgen.report.command_line import command_line
from clipgen.settings.checks import split_target
from clipgen.settings.settings import Settings

from .. import clip_tasks
from ..form import fields, values
from ..html import output_panel
from ..html.word_maps import word_maps
from ..image_info import ImageInfo
from ..job_events import TaskResult
from ..worker import Worker
from .shared import PRIVATE, UNQUEUED, SharedWidgets, run_task

LABELS = {
    "seed": "Reuse seed",
    "all": "Use all",
    "remix": "Remix",
    "command": "Copy command",
    "compare": "Compare",
    "vary": "Vary",
    "words": "Explain words",
}
NO_IMAGE = "There is no picture yet."
SOURCE_MISSING = " The picture that it was made from is no longer available: upload it again."


def local_paths(settings: Settings, worker: Worker) -> Settings:
    """Returns settings whose `like` and `vary` name files that a terminal finds, not copies in the image store."""

    def local(target: str) -> str:
        path, weight = split_target(target)
        return f"{Path(path).name if worker.config.public else worker.image_store.original(path)}:{weight:g}"

    like = [local(target) for target in settings.like]
    return settings.replace(like=like, vary=None if settings.vary is None else local(settings.vary))


class ImageActions:
    """One method for each button; `image` is the image that the button belongs to, None if there is none yet."""

    def __init__(self, shared: SharedWidgets, worker: Worker) -> None:
        self.shared, self.worker = shared, worker

    def seed(self, image: ImageInfo | None) -> list[Any]:
        """Returns the seed field and a message."""
        if image is None:
            return [gr.skip(), output_panel.message(NO_IMAGE)]
        return [str(image.seed), output_panel.message(f"The seed is now {image.seed}.", "done")]

    def all(self, image: ImageInfo | None) -> list[Any]:
        """Returns all fields and a message."""
        return self._fill_form(image, "The form now has all settings of that picture.")

    def remix(self, image: ImageInfo | None) -> list[Any]:
        """Returns all fields except for the seed, which becomes random, and a message."""
        return self._fill_form(image, "The form now has the settings of that picture, with a random seed.", seed=None)

    def vary(self, image: ImageInfo | None) -> list[Any]:
        """Returns the fields that generate a variation of the image, and a message."""
        changes = {} if image is None else {"vary": f"{image.path}:1", "seed": None}
        return self._fill_form(image, "Generating a variation of that picture.", **changes)

    def compare(self, image: ImageInfo | None) -> list[Any]:
        """Returns all fields, a message and the tab to select."""
        message = "Compare generates these settings with and without guidance."
        return [*self._fill_form(image, message), gr.update(selected="compare")]

    def command(self, image: ImageInfo | None) -> Any:
        """Returns the shell command that generates the image again."""
        if image is None:
            return gr.skip()
        return gr.update(value=command_line(local_paths(image.to_settings(), self.worker)), visible=True)

    def words(self, request: gr.Request, image: ImageInfo | None) -> Iterator[Any]:
        """Yields the panel while the image is generated again, and last its word maps."""
        if image is None:
            yield output_panel.message(NO_IMAGE)
            return
        build_task = partial(clip_tasks.explain_settings, self.worker, image.to_settings().to_dict())
        for event in run_task(self.worker, build_task, request.session_hash or ""):
            yield word_maps(event.value) + output_panel.facts(image) if isinstance(event, TaskResult) else event

    def _fill_form(self, image: ImageInfo | None, message: str, **changes: Any) -> list[Any]:
        """Returns all fields for the settings of an image with some changes, and a message."""
        shared, has_image = self.shared, self.worker.image_store.contains
        if image is None:
            return [*[gr.skip()] * len(shared.fields), output_panel.message(NO_IMAGE)]
        settings = image.to_settings()
        form = values.write({**settings.to_dict(), **changes}, shared.models, has_image)
        sources = (*settings.like, *([settings.vary] if settings.vary and "vary" not in changes else []))
        missing = any(not has_image(split_target(target)[0]) for target in sources)
        return [*form, output_panel.message(message + SOURCE_MISSING * missing, "done")]


def build_actions(tab: str, shared: SharedWidgets, image: gr.State, panel: gr.HTML, worker: Worker) -> None:
    """Builds the buttons below the image that `panel` shows and `image` holds; `tab` is part of their ids."""
    with gr.Row(elem_classes="image-actions", elem_id=f"actions-{tab}"):
        buttons = {
            name: gr.Button(text, size="sm", elem_id=f"{name}-{tab}", min_width=60, visible=name != "vary")
            for name, text in LABELS.items()
        }
    command = gr.Textbox(
        visible=False, label="Terminal command", lines=1, max_lines=4, buttons=["copy"], elem_id=f"command-line-{tab}"
    )
    actions, form = ImageActions(shared, worker), [*shared.fields, shared.message]
    seed_field = shared.fields[fields.FIELD_ORDER.index("seed")]
    show_form = "() => clipgen.showTab('Generate')"
    copy = "(command) => clipgen.copy(command)"
    buttons["seed"].click(actions.seed, image, [seed_field, shared.message], **UNQUEUED)
    buttons["all"].click(actions.all, image, form, **UNQUEUED).then(None, js=show_form)
    buttons["remix"].click(actions.remix, image, form, **UNQUEUED).then(None, js=show_form)
    buttons["command"].click(actions.command, image, command, **UNQUEUED).then(None, command, js=copy)
    buttons["compare"].click(actions.compare, image, [*form, shared.tabs], **UNQUEUED)
    buttons["vary"].click(actions.vary, image, form, **UNQUEUED).then(None, js="() => clipgen.generate()")
    buttons["words"].click(actions.words, image, panel, concurrency_limit=None, **PRIVATE)
    shared.loaded_model.change(lambda: gr.update(visible=worker.supports_variations), None, buttons["vary"], **UNQUEUED)
