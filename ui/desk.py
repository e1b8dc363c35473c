"""What the tabs share: the form of the first one, and what this visit has made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from .stage import Card


@dataclass(frozen=True)
class Desk:
    """What other tabs need of the first one: the form in the order of form.SHOWN, and what is said and kept there.

    `ready` is the name of the model once it is loaded.
    """

    fields: list[Any]
    message: gr.HTML
    generate: gr.Button
    ready: gr.State
    tabs: gr.Tabs
    made: gr.State
    models: tuple[str, ...]


def picked(cards: Sequence[Card], chosen: gr.EventData) -> int | None:
    """Returns the place of the card that somebody pressed, None for an event that says none of them."""
    try:
        place = chosen.index
    except (AttributeError, TypeError):  # a program may send an event without data
        return None
    return place if isinstance(place, int) and 0 <= place < len(cards) else None
