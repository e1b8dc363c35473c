"""What one can do with a finished picture: take its seed, all of it, all but the seed, its command, or compare it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from clipgen.settings import Settings, split_target
from clipgen.words.command_line import command_line

from . import ask, form, stage, words
from .desk import Desk
from .stage import Card
from .workshop import Answer, Workshop

NOTHING = "There is no picture yet."
LOST = " The picture it was to be like is not here: drop it again."


def settings_of(card: Card) -> Settings:
    """Returns the settings that draw a card's picture again."""
    return Settings.from_dict({**card.settings, "seed": card.seed})


def recall_row(where: str, desk: Desk, card: gr.State, shown: gr.HTML, workshop: Workshop) -> None:
    """Builds the buttons below a picture, which `shown` shows; `where` names their tab, for keys and tests."""
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
    with gr.Row(elem_classes="recall", elem_id=f"recall-{where}"):
        buttons = {
            name: gr.Button(text, size="sm", elem_id=f"{name}-{where}", min_width=60)
            for name, text in (
                ("seed", "Reuse seed"),
                ("all", "Use all"),
                ("remix", "Remix"),
                ("command", "Copy command"),
                ("compare", "Compare"),
                ("words", "Word by word"),
            )
        }
    command = gr.Textbox(
        visible=False, label="In a terminal", lines=1, max_lines=4, buttons=["copy"], elem_id=f"line-{where}"
    )
    told = desk.message
    seed = desk.fields[form.SHOWN.index("seed")]

    def reuse(card: Card | None) -> list[Any]:
        if card is None:
            return [gr.skip(), stage.message(NOTHING)]
        return [str(card.seed), stage.message(f"Seed {card.seed} is set.", "done")]

    def fill(card: Card | None, words: str, **changes: Any) -> list[Any]:
        if card is None:
            return [*[gr.skip()] * len(desk.fields), stage.message(NOTHING)]
        settings = settings_of(card)
        filled = form.write({**settings.to_dict(), **changes}, desk.models, workshop.shelf.holds)
        lost = any(not workshop.shelf.holds(split_target(target)[0]) for target in settings.like)
        return [*filled, stage.message(words + LOST * lost, "done")]

    def line(card: Card | None) -> Any:
        return gr.skip() if card is None else gr.update(value=command_line(settings_of(card)), visible=True)

    def explained(request: gr.Request, card: Card | None) -> Iterator[Any]:
        if card is None:
            yield stage.message(NOTHING)
            return
        values = {**card.settings, "seed": card.seed}
        for said in ask.asked(workshop, partial(ask.replay, workshop, values), request.session_hash or ""):
            yield words.told(said.value) + stage.facts(card) if isinstance(said, Answer) else said

    def compare(card: Card | None) -> list[Any]:
        return [*fill(card, "Compare draws these settings both ways."), gr.update(selected="compare")]

    to_draw = "() => clipgen.show('Draw')"
    buttons["seed"].click(reuse, card, [seed, told], **quiet)
    buttons["all"].click(
        lambda card: fill(card, "All settings are in the form."), card, [*desk.fields, told], **quiet
    ).then(None, js=to_draw)
    buttons["remix"].click(
        lambda card: fill(card, "All settings but the seed are in the form.", seed=None),
        card,
        [*desk.fields, told],
        **quiet,
    ).then(None, js=to_draw)
    buttons["command"].click(line, card, command, **quiet).then(None, command, js="(line) => clipgen.copy(line)")
    buttons["compare"].click(compare, card, [*desk.fields, told, desk.tabs], **quiet)
    buttons["words"].click(
        explained, card, shown, show_progress="hidden", api_visibility="private", concurrency_limit=None
    )
