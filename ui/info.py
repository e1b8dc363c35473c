"""The tab that reads pictures: drop one of any supported app, see its settings, and draw with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from clipgen.errors import ClipgenError
from clipgen.image_file import RestoredSettings
from clipgen.settings.settings import DEFAULTS

from . import stage
from .desk import Desk
from .paste import told
from .recall import recall_row
from .stage import Card
from .upload import KINDS, read
from .workshop import Workshop

LONGEST = 2_000  # characters of one value that are shown
HELP = (
    '<div class="blank slim"><p class="lead">How was it made?</p><p class="hint">Drop a picture of clipgen, A1111, '
    "Forge, stable-diffusion.cpp, ComfyUI, InvokeAI or Fooocus. Its settings are inside; nothing runs by "
    "itself.</p></div>"
)


def card_of(path: Path, restored: RestoredSettings) -> Card:
    """Returns an uploaded picture as the page keeps it."""
    settings = restored.settings
    record = restored.record or {}
    return Card(str(path), settings.to_dict(), settings.seed or record.get("seed") or 0, None, record.get("clip"))


def rows(restored: RestoredSettings) -> list[tuple[str, Any]]:
    """Returns what a picture says: its app, every setting that is not the default, and what has no place here."""
    values = restored.settings.to_dict()
    chosen = [
        (name, value) for name, value in values.items() if value not in (None, "", []) and value != DEFAULTS.get(name)
    ]
    unknown = [(f"not used: {name}", str(value)[:LONGEST]) for name, value in restored.unknown.items()]
    return [*chosen, *unknown]


def told_of(path: Path, restored: RestoredSettings) -> str:
    """Returns the picture and what it says, in HTML."""
    card = card_of(path, restored)
    score = stage.score(card.clip) if card.clip else ""
    return stage.finished_only(card) + score + told(restored, "Drawn by") + stage.table(rows(restored))


def tab(workshop: Workshop, desk: Desk) -> None:
    """Builds the tab and wires it."""
    with gr.Tab("Info", id="info", elem_id="tab-info"), gr.Row(elem_classes="two"):
        with gr.Column(scale=5, min_width=300):
            file = gr.File(
                label="A picture", file_types=KINDS, type="filepath", height=180, elem_id="drop", show_label=False
            )
            card = gr.State(None)
            below = gr.Column()
            gr.HTML('<p class="note">Prompts travel inside the files: whoever gets a picture can read them here.</p>')
        with gr.Column(scale=7, min_width=300):
            found = gr.HTML(HELP, elem_id="found")
        with below:
            recall_row("info", desk, card, found, workshop)

    def show(file: Any) -> list[Any]:
        if file is None:
            return [HELP, None]
        try:
            path, restored = read(workshop.shelf, file)
        except ClipgenError as error:
            return [stage.message(str(error)), None]
        return [told_of(path, restored), card_of(path, restored)]

    file.change(
        show, file, [found, card], preprocess=False, queue=False, show_progress="hidden", api_visibility="private"
    )
