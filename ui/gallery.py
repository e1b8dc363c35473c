"""The tab of everything made: the history's newest pictures, or those of this visit where no history is kept."""

from __future__ import annotations

from typing import Any

import gradio as gr

from clipgen import history
from clipgen.history import Entry

from . import stage
from .desk import Desk, picked
from .recall import recall_row
from .stage import Card
from .workshop import Workshop

MOST = 60
NONE = (
    '<div class="blank slim"><p class="lead">Nothing here yet</p><p class="hint">What you draw is kept here.</p></div>'
)


def cards(workshop: Workshop, words: str, made: list[Card]) -> list[Card]:
    """Returns the newest pictures whose settings hold every word, newest first."""
    if not workshop.house.history:
        wanted = words.lower().split()
        return [card for card in reversed(made) if all(word in str(card.settings).lower() for word in wanted)][:MOST]
    entries = history.find(words[:200].split(), limit=MOST)
    return [_card(workshop, entry) for entry in entries if entry.path.is_file()]


def _card(workshop: Workshop, entry: Entry) -> Card:
    copy = workshop.shelf.copy_of(entry.path, entry.sha256)
    return Card(str(copy), entry.settings.to_dict(), entry.settings.seed or 0, None, entry.clip)


def tab(workshop: Workshop, desk: Desk) -> None:
    """Builds the tab and wires it."""
    with gr.Tab("Gallery", id="gallery", elem_id="tab-gallery") as own, gr.Row(elem_classes="two"):
        with gr.Column(scale=7, min_width=300):
            words = gr.Textbox(
                show_label=False,
                placeholder="Find: words of the prompt, a preset, a scheduler",
                max_lines=1,
                elem_id="find",
            )
            wall = gr.Gallery(
                columns=4,
                show_label=False,
                allow_preview=False,
                object_fit="cover",
                height="auto",
                elem_id="wall",
                buttons=[],
            )
            nothing = gr.HTML(NONE, elem_id="no-pictures")
        with gr.Column(scale=5, min_width=300):
            viewer = gr.HTML(elem_id="viewer")
            card, found = gr.State(None), gr.State([])
            recall_row("gallery", desk, card, viewer, workshop)

    def show(words: str, made: list[Card]) -> list[Any]:
        listed = cards(workshop, words, made)
        pictures = [(each.path, each.title[:80]) for each in listed]
        return [gr.update(value=pictures, visible=bool(listed)), listed, gr.update(visible=not listed)]

    def choose(found: list[Card], chosen: gr.EventData) -> list[Any]:
        place = picked(found, chosen)
        return [gr.skip()] * 2 if place is None else [stage.finished(found[place]), found[place]]

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
    own.select(show, [words, desk.made], [wall, found, nothing], **quiet)
    words.change(show, [words, desk.made], [wall, found, nothing], trigger_mode="always_last", **quiet)
    wall.select(choose, found, [viewer, card], **quiet)
