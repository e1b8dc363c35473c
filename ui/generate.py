"""The first tab: a prompt, a button, and the picture as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from clipgen.errors import ClipgenError

from . import form, stage
from .desk import Desk
from .paste import looks_pasted, restore_text
from .recall import recall_row
from .stage import Card
from .tokens import tokens
from .watch import View, Watch, card_of
from .workshop import House, Loading, Picture, Stopped, Waiting, Workshop

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def run(workshop: Workshop, raw: Sequence[Any], visitor: str) -> Iterator[View]:
    """Yields what the page shows while the form's pictures are drawn; errors come as words and lose nothing typed."""
    yield View(message="")
    try:
        values = form.read(raw)
        if isinstance(values["prompt"], str) and looks_pasted(values["prompt"]):
            yield View(message="These are settings of a picture: press Load settings.", busy=False)
            return
        settings = workshop.settings(values)
    except ClipgenError as error:
        yield View(message=str(error), busy=False)
        return
    watch, cards = Watch(), list[Card]()
    try:
        for event in workshop.draw(settings, visitor):
            view = _view(event, watch, cards, settings.images)
            if view is not None:
                yield view
    except ClipgenError as error:
        yield View(_last(cards), busy=False, message=str(error))
        return
    yield View(busy=False)


def _view(event: Any, watch: Watch, cards: list[Card], images: int) -> View | None:
    """Returns what the page shows of one event; a finished picture joins `cards`."""
    match event:
        case Waiting(place):
            return View(stage.waiting(place))
        case Loading(model, seconds):
            return View(stage.loading(model, seconds))
        case Stopped():
            told = f"Stopped after {len(cards)} of {images} pictures." if images > 1 else "Stopped."
            return View(_last(cards), message=told, tone="done")
        case Picture():
            cards.append(card_of(event, watch.points.get(event.result.index, ())))
            return View(_last(cards), cards=tuple(cards))
    return watch.hear(event, shown=len(cards))


def _last(cards: Sequence[Card]) -> str:
    if not cards:
        return stage.empty()
    return stage.finished(cards[-1], f"{len(cards)} of {len(cards)}" if len(cards) > 1 else "")


@dataclass(frozen=True)
class Controls:
    """The left column: a component for each field by its name, the buttons, and the lines below prompt and preset."""

    fields: dict[str, Any]
    counter: gr.HTML
    about: gr.HTML
    generate: gr.Button
    load: gr.Button
    stop: gr.Button
    random: gr.Button


def tab(workshop: Workshop, tabs: gr.Tabs) -> Desk:
    """Builds the tab and wires it; returns what the others need of it."""
    with gr.Tab("Draw", id="draw", elem_id="tab-draw"), gr.Row(elem_id="desk"):
        with gr.Column(scale=5, min_width=320, elem_id="controls"):
            controls = _controls(workshop.house)
        with gr.Column(scale=7, min_width=320, elem_id="easel"):
            message = gr.HTML(elem_id="message")
            picture = gr.HTML(stage.empty(), elem_id="stage")
            strip = gr.Gallery(
                visible=False, columns=8, height=96, allow_preview=False, show_label=False, elem_id="strip"
            )
            cards, card, made = gr.State([]), gr.State(None), gr.State([])
            fields = [controls.fields[name] for name in form.SHOWN]
            desk = Desk(fields, message, controls.counter, tabs, made, workshop.house.models)
            recall_row("draw", desk, card, picture, workshop)
    _wire_drawing(workshop, controls, desk, picture, cards, card, strip)
    _wire_form(workshop, controls, desk)
    return desk


def _controls(house: House) -> Controls:
    """Builds the left column: the prompt with its buttons, and the folds."""
    fields: dict[str, Any] = {}

    def place(names: Sequence[str]) -> None:
        for name in names:
            fields[name] = form.build(name, house.models, min(8, house.limits.images[1]))

    with gr.Group(elem_id="composer"):
        place(form.FIRST)
        counter = gr.HTML(elem_id="counter")
        with gr.Row(elem_id="go"):
            generate = gr.Button("Generate", variant="primary", elem_id="generate")
            load = gr.Button("Load settings", variant="primary", elem_id="load", visible=False)
            stop = gr.Button("Stop", variant="stop", elem_id="stop", visible=False)
    with gr.Accordion("Look", open=True, elem_classes="fold"):
        place(form.LOOK[:1])
        about = gr.HTML(elem_id="about")
        place(form.LOOK[1:2])
        with gr.Row():
            place(form.LOOK[2:4])
        place(form.LOOK[4:])
    with gr.Accordion("Guidance", open=False, elem_classes="fold"):
        place(form.GUIDANCE)
    with gr.Accordion("Expert", open=False, elem_classes="fold"):
        with gr.Row():
            place(form.EXPERT[:2])
        with gr.Row(elem_id="seed-row"):
            place(form.EXPERT[2:3])
            random = gr.Button("Random", size="sm", elem_id="random", scale=0, min_width=96)
        place(form.EXPERT[3:])
        with gr.Accordion("Everything else", open=False, elem_classes="fold"):
            place(form.FINE)
    return Controls(fields, counter, about, generate, load, stop, random)


def _wire_drawing(
    workshop: Workshop,
    controls: Controls,
    desk: Desk,
    picture: gr.HTML,
    cards: gr.State,
    card: gr.State,
    strip: gr.Gallery,
) -> None:
    """Wires Generate, Stop and the strip of a run's pictures."""

    def draw(request: gr.Request, before: list[Card], *raw: Any) -> Iterator[list[Any]]:
        for view in run(workshop, raw, request.session_hash or ""):
            yield [*shown(view), *pictures(view, before)]

    def shown(view: View) -> list[Any]:
        return [
            gr.skip() if view.stage is None else view.stage,
            gr.skip() if view.message is None else stage.message(view.message, view.tone),
            gr.update(visible=not view.busy),
            gr.update(visible=view.busy),
        ]

    def pictures(view: View, before: list[Card]) -> list[Any]:
        if view.cards is None:
            return [gr.skip()] * 4
        several = gr.update(value=[each.path for each in view.cards], visible=len(view.cards) > 1)
        return [list(view.cards), view.cards[-1], several, [*before, *view.cards]]

    def halt(request: gr.Request) -> None:
        workshop.stop(request.session_hash or "")  # the run itself says that it has stopped

    def choose(cards: list[Card], chosen: gr.SelectData) -> list[Any]:
        return [stage.finished(cards[chosen.index], f"{chosen.index + 1} of {len(cards)}"), cards[chosen.index]]

    outputs = [picture, desk.message, controls.generate, controls.stop, cards, card, strip, desk.made]
    controls.generate.click(
        draw,
        [desk.made, *desk.fields],
        outputs,
        preprocess=False,  # Settings looks at the raw values itself
        concurrency_limit=None,  # the line has its own
        trigger_mode="once",
        **QUIET,
    )
    controls.stop.click(halt, None, None, queue=False, **QUIET)
    strip.select(choose, cards, [picture, card], queue=False, **QUIET)


def _wire_form(workshop: Workshop, controls: Controls, desk: Desk) -> None:
    """Wires what the form does by itself: counting, pasting, presets, a random seed."""
    fields = controls.fields

    def count(prompt: str) -> list[Any]:
        pasted = looks_pasted(prompt)
        return [tokens(workshop, prompt), gr.update(visible=not pasted), gr.update(visible=pasted)]

    def paste(prompt: str) -> list[Any]:
        settings, told = restore_text(prompt)
        filled = [gr.skip()] * len(form.SHOWN) if settings is None else form.write(settings, desk.models)
        return [*filled, told]

    def about(name: str) -> str:
        return stage.message(form.about(name), "hint")

    at_once: dict[str, Any] = {"queue": False, **QUIET}
    fields["prompt"].change(
        count,
        fields["prompt"],
        [desk.counter, controls.generate, controls.load],
        trigger_mode="always_last",
        **at_once,
    )
    controls.load.click(paste, fields["prompt"], [*desk.fields, desk.message], **at_once)
    controls.random.click(lambda: "", None, fields["seed"], **at_once)
    fields["preset"].input(form.preset_values, fields["preset"], desk.fields, **at_once)
    fields["preset"].change(about, fields["preset"], controls.about, **at_once)
