"""What one can do with a finished picture: take its seed, all of it, all but the seed, its command, or compare it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from clipgen.report.command_line import command_line
from clipgen.settings.checks import split_target
from clipgen.settings.settings import Settings

from . import ask, form, stage, words
from .desk import Desk
from .stage import Card
from .workshop import Answer, Workshop

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
BUTTONS = {
    "seed": "Reuse seed", "all": "Use all", "remix": "Remix", "command": "Copy command", "compare": "Compare",
    "vary": "Vary", "words": "Word by word",
}  # fmt: skip
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


class Recall:
    """What the buttons below a picture do, given its card, None where there is no picture yet."""

    def __init__(self, desk: Desk, workshop: Workshop) -> None:
        self.desk, self.workshop = desk, workshop

    def seed(self, card: Card | None) -> list[Any]:
        """Returns the seed for its field, and what is said."""
        if card is None:
            return [gr.skip(), stage.message(NOTHING)]
        return [str(card.seed), stage.message(f"Seed {card.seed} is set.", "done")]

    def all(self, card: Card | None) -> list[Any]:
        """Returns all fields of the form, and what is said."""
        return self._filled(card, "All settings are in the form.")

    def remix(self, card: Card | None) -> list[Any]:
        """Returns all fields but the seed, and what is said."""
        return self._filled(card, "All settings but the seed are in the form.", seed=None)

    def vary(self, card: Card | None) -> list[Any]:
        """Returns the fields that draw a variation of the picture, and what is said."""
        changes = {} if card is None else {"vary": f"{card.path}:1", "seed": None}
        return self._filled(card, "Drawing what CLIP sees in that picture.", **changes)

    def compare(self, card: Card | None) -> list[Any]:
        """Returns all fields, what is said, and the tab to go to."""
        return [*self._filled(card, "Compare draws these settings both ways."), gr.update(selected="compare")]

    def command(self, card: Card | None) -> Any:
        """Returns the line that draws the picture in a terminal."""
        if card is None:
            return gr.skip()
        return gr.update(value=command_line(in_terminal(settings_of(card), self.workshop)), visible=True)

    def words(self, request: gr.Request, card: Card | None) -> Iterator[Any]:
        """Yields what is shown while the picture is drawn again, and in the end where each word was looked for."""
        if card is None:
            yield stage.message(NOTHING)
            return
        replay = partial(ask.replay, self.workshop, {**card.settings, "seed": card.seed})
        for said in ask.asked(self.workshop, replay, request.session_hash or ""):
            yield words.told(said.value) + stage.facts(card) if isinstance(said, Answer) else said

    def _filled(self, card: Card | None, said: str, **changes: Any) -> list[Any]:
        desk, holds = self.desk, self.workshop.shelf.holds
        if card is None:
            return [*[gr.skip()] * len(desk.fields), stage.message(NOTHING)]
        settings = settings_of(card)
        filled = form.write({**settings.to_dict(), **changes}, desk.models, holds)
        named = (*settings.like, *([settings.vary] if settings.vary and "vary" not in changes else []))
        lost = any(not holds(split_target(target)[0]) for target in named)
        return [*filled, stage.message(said + LOST * lost, "done")]


def recall_row(where: str, desk: Desk, card: gr.State, shown: gr.HTML, workshop: Workshop) -> None:
    """Builds the buttons below a picture, which `shown` shows; `where` names their tab, for keys and tests."""
    with gr.Row(elem_classes="recall", elem_id=f"recall-{where}"):
        buttons = {
            name: gr.Button(text, size="sm", elem_id=f"{name}-{where}", min_width=60, visible=name != "vary")
            for name, text in BUTTONS.items()
        }
    line = gr.Textbox(
        visible=False, label="In a terminal", lines=1, max_lines=4, buttons=["copy"], elem_id=f"line-{where}"
    )
    recall, form_and_said = Recall(desk, workshop), [*desk.fields, desk.message]
    to_draw = "() => clipgen.show('Draw')"
    buttons["seed"].click(recall.seed, card, [desk.fields[form.SHOWN.index("seed")], desk.message], **QUIET)
    buttons["all"].click(recall.all, card, form_and_said, **QUIET).then(None, js=to_draw)
    buttons["remix"].click(recall.remix, card, form_and_said, **QUIET).then(None, js=to_draw)
    buttons["command"].click(recall.command, card, line, **QUIET).then(None, line, js="(line) => clipgen.copy(line)")
    buttons["compare"].click(recall.compare, card, [*form_and_said, desk.tabs], **QUIET)
    buttons["vary"].click(recall.vary, card, form_and_said, **QUIET).then(None, js="() => clipgen.draw()")
    buttons["words"].click(recall.words, card, shown, **{**QUIET, "queue": True}, concurrency_limit=None)
    desk.ready.change(lambda: gr.update(visible=workshop.varies), None, buttons["vary"], **QUIET)
