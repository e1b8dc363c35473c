"""What one can do with a finished picture: take its seed, all of it, all but the seed, its command, or compare it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from clipgen.settings import Settings, split_target
from clipgen.words.command_line import command_line

from . import ask, form, stage, words
from .desk import Desk
from .stage import Card
from .workshop import Answer, Workshop

NOTHING = "There is no picture yet."
LOST = " The picture it was drawn after is not here: drop it again."


def settings_of(card: Card) -> Settings:
    """Returns the settings that draw a card's picture again."""
    return Settings.from_dict({**card.settings, "seed": card.seed})


def in_terminal(settings: Settings, workshop: Workshop) -> Settings:
    """Returns settings that name the pictures they are drawn after as a terminal finds them, not as the page does."""

    def named(target: str) -> str:
        path, weight = split_target(target)
        return f"{Path(path).name if workshop.house.strangers else workshop.shelf.origin(path)}:{weight:g}"

    like = [named(target) for target in settings.like]
    return settings.replace(like=like, vary=None if settings.vary is None else named(settings.vary))


def recall_row(where: str, desk: Desk, card: gr.State, shown: gr.HTML, workshop: Workshop) -> None:
    """Builds the buttons below a picture, which `shown` shows; `where` names their tab, for keys and tests."""
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
    with gr.Row(elem_classes="recall", elem_id=f"recall-{where}"):
        buttons = {
            name: gr.Button(text, size="sm", elem_id=f"{name}-{where}", min_width=60, visible=name != "vary")
            for name, text in (
                ("seed", "Reuse seed"),
                ("all", "Use all"),
                ("remix", "Remix"),
                ("command", "Copy command"),
                ("compare", "Compare"),
                ("vary", "Vary"),
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
        named = (*settings.like, *([settings.vary] if settings.vary and "vary" not in changes else []))
        lost = any(not workshop.shelf.holds(split_target(target)[0]) for target in named)
        return [*filled, stage.message(words + LOST * lost, "done")]

    def line(card: Card | None) -> Any:
        if card is None:
            return gr.skip()
        return gr.update(value=command_line(in_terminal(settings_of(card), workshop)), visible=True)

    def explained(request: gr.Request, card: Card | None) -> Iterator[Any]:
        if card is None:
            yield stage.message(NOTHING)
            return
        values = {**card.settings, "seed": card.seed}
        for said in ask.asked(workshop, partial(ask.replay, workshop, values), request.session_hash or ""):
            yield words.told(said.value) + stage.facts(card) if isinstance(said, Answer) else said

    def compare(card: Card | None) -> list[Any]:
        return [*fill(card, "Compare draws these settings both ways."), gr.update(selected="compare")]

    def vary(card: Card | None) -> list[Any]:
        changes = {} if card is None else {"vary": f"{card.path}:1", "seed": None}
        return fill(card, "Drawing what CLIP sees in that picture.", **changes)

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
    buttons["vary"].click(vary, card, [*desk.fields, told], **quiet).then(None, js="() => clipgen.draw()")
    desk.ready.change(lambda: gr.update(visible=workshop.varies), None, buttons["vary"], **quiet)
    buttons["words"].click(
        explained, card, shown, show_progress="hidden", api_visibility="private", concurrency_limit=None
    )
