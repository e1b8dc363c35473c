"""The Gallery tab: the newest images of the history, or those of this browser session if there is no history."""

from __future__ import annotations

from typing import Any

import gradio as gr

from clipgen import history

from ..html import output_panel
from ..image_info import ImageInfo
from ..worker import Worker
from .actions import build_actions
from .shared import UNQUEUED, SharedWidgets, selected_index

MAX_IMAGES = 60
MAX_QUERY = 200  # characters
MAX_CAPTION = 80  # characters
PLACEHOLDER = (
    '<div class="empty-state slim"><p class="lead">No pictures</p>'
    '<p class="hint">Pictures that you generate appear here.</p></div>'
)


def find_images(worker: Worker, query: str, session_images: list[ImageInfo]) -> list[ImageInfo]:
    """Returns the newest images whose settings contain every word of the query, newest first."""
    if not worker.config.history:
        words = query.lower().split()
        matching = [
            image for image in reversed(session_images) if all(word in str(image.settings).lower() for word in words)
        ]
        return matching[:MAX_IMAGES]
    entries = history.find(query[:MAX_QUERY].split(), limit=MAX_IMAGES)
    return [
        ImageInfo.from_history(worker.image_store.add_once(entry.path, entry.sha256), entry)
        for entry in entries
        if entry.path.is_file()
    ]


def build_tab(worker: Worker, shared: SharedWidgets) -> None:
    """Builds the tab with its handlers."""
    with gr.Tab("Gallery", id="gallery", elem_id="tab-gallery") as tab, gr.Row(elem_classes="two-columns"):
        with gr.Column(scale=7, min_width=300):
            query = gr.Textbox(
                show_label=False,
                label="Search",
                placeholder="Search by words of the prompt, preset or scheduler",
                max_lines=1,
                elem_id="gallery-search",
            )
            grid = gr.Gallery(
                columns=4,
                show_label=False,
                allow_preview=False,
                object_fit="cover",
                height="auto",
                elem_id="gallery-grid",
                buttons=[],
            )
            placeholder = gr.HTML(PLACEHOLDER, elem_id="gallery-empty")
        with gr.Column(scale=5, min_width=300):
            panel = gr.HTML(elem_id="gallery-image")
            image, images = gr.State(None), gr.State([])
            build_actions("gallery", shared, image, panel, worker)

    def search(query: str, session_images: list[ImageInfo]) -> list[Any]:
        images = find_images(worker, query, session_images)
        items = [(image.path, image.title[:MAX_CAPTION]) for image in images]
        return [gr.update(value=items, visible=bool(images)), images, gr.update(visible=not images)]

    def select(images: list[ImageInfo], event: gr.EventData) -> list[Any]:
        index = selected_index(images, event)
        return [gr.skip()] * 2 if index is None else [output_panel.finished(images[index]), images[index]]

    inputs, outputs = [query, shared.session_images], [grid, images, placeholder]
    tab.select(search, inputs, outputs, **UNQUEUED)
    query.change(search, inputs, outputs, trigger_mode="always_last", **UNQUEUED)
    selection = grid.select(select, images, [panel, image], **UNQUEUED)
    selection.then(None, js="() => clipgen.reveal('#gallery-image')")
