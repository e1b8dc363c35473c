"""The Info tab: reads the settings stored inside an uploaded image of any supported app."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from clipgen.errors import ClipgenError
from clipgen.image_file import RestoredSettings
from clipgen.settings.settings import DEFAULTS

from ..form.fields import label
from ..form.paste import restored_message
from ..html import output_panel
from ..image_info import ImageInfo
from ..image_store import IMAGE_SUFFIXES
from ..worker import Worker
from .actions import build_actions
from .shared import UNQUEUED, SharedWidgets

MAX_VALUE = 2_000  # characters of one value that are shown
PLACEHOLDER = (
    '<div class="empty-state slim"><p class="lead">How was it made?</p><p class="hint">Upload a picture made with '
    "clipgen, A1111, Forge, stable-diffusion.cpp, ComfyUI, InvokeAI or Fooocus to see the settings stored inside. "
    "Nothing is generated until you ask for it.</p></div>"
)
PRIVACY_NOTE = '<p class="note">A picture file contains its prompt: everybody you send it to can read it.</p>'


def settings_rows(restored: RestoredSettings) -> list[tuple[str, Any]]:
    """Returns the settings that differ from the defaults, then the values that clipgen has no field for."""
    settings = [
        (label(name), value)
        for name, value in restored.settings.to_dict().items()
        if value not in (None, "", []) and value != DEFAULTS.get(name)
    ]
    unknown = [(f"Not used: {name}", str(value)[:MAX_VALUE]) for name, value in restored.unknown.items()]
    return [*settings, *unknown]


def info_html(path: Path, restored: RestoredSettings) -> str:
    """Returns an uploaded image with its score, the app it comes from and its settings."""
    image = ImageInfo.from_upload(path, restored)
    score = output_panel.score(image.clip) if image.clip else ""
    message = restored_message(restored, "Made with")
    return output_panel.image_frame(image) + score + message + output_panel.table(settings_rows(restored))


def build_tab(worker: Worker, shared: SharedWidgets) -> None:
    """Builds the tab with its handlers."""
    with gr.Tab("Info", id="info", elem_id="tab-info"), gr.Row(elem_classes="two-columns"):
        with gr.Column(scale=5, min_width=300):
            file = gr.File(
                label="Picture",
                file_types=IMAGE_SUFFIXES,
                type="filepath",
                height=180,
                elem_id="info-upload",
                show_label=False,
            )
            image = gr.State(None)
            actions = gr.Column()
            gr.HTML(PRIVACY_NOTE)
        with gr.Column(scale=7, min_width=300):
            panel = gr.HTML(PLACEHOLDER, elem_id="info-output")
        with actions:
            build_actions("info", shared, image, panel, worker)

    def show_info(file: Any) -> list[Any]:
        if file is None:
            return [PLACEHOLDER, None]
        try:
            path, restored = worker.image_store.read_settings(file)
        except ClipgenError as error:
            return [output_panel.message(str(error)), None]
        return [info_html(path, restored), ImageInfo.from_upload(path, restored)]

    upload = file.change(show_info, file, [panel, image], preprocess=False, **UNQUEUED)
    upload.then(None, js="() => clipgen.reveal('#info-output')")
