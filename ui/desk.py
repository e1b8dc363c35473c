"""What the tabs share: the form of the first one, and what this visit has made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr


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
