"""The first tab: a prompt, a button, and the picture as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from clipgen.errors import ClipgenError

from . import form, price, stage
from .desk import Desk, picked
from .paste import looks_pasted, restore_text
from .recall import recall_row
from .sizes import sizes_of
from .stage import Card
from .tokens import tokens
from .watch import View, Watch, card_of
from .workshop import House, Loading, Picture, Stopped, Waiting, Workshop

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
GENERATE = "Generate"
AT_ONCE: dict[str, Any] = {"queue": False, **QUIET}


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
        case Loading(model, percent):
            return View(stage.loading(model, percent))
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
    sizes: gr.Radio
    price: gr.HTML
    vary: gr.Column
    varying: gr.Row
    source: gr.HTML
    alone: gr.Button
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
            cards, card, made, ready = gr.State([]), gr.State(None), gr.State([]), gr.State("")
            fields = [controls.fields[name] for name in form.SHOWN]
            desk = Desk(fields, message, controls.generate, ready, tabs, made, workshop.house.models)
            recall_row("draw", desk, card, picture, workshop)
    drawn = _wire_drawing(workshop, controls, desk, picture, cards, card, strip)
    _wire_form(workshop, controls, desk)
    _wire_sizes(workshop, controls, desk, drawn)
    _wire_price(workshop, controls, desk, drawn)
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
        with gr.Row(visible=False, elem_id="varying") as varying:
            source = gr.HTML(elem_id="source")
            alone = gr.Button("Take it out", size="sm", elem_id="words-only", scale=0, min_width=96)
        with gr.Row(elem_id="go"):
            generate = gr.Button(GENERATE, variant="primary", elem_id="generate")
            load = gr.Button("Load settings", variant="primary", elem_id="load", visible=False)
            stop = gr.Button("Stop", variant="stop", elem_id="stop", visible=False)
    with gr.Accordion("Look", open=True, elem_classes="fold"):
        place(form.LOOK[:1])
        about = gr.HTML(elem_id="about")
        shapes = gr.Radio([], label="Size", visible=False, elem_id="sizes")
        place(form.LOOK[1:])
        with gr.Column(visible=False, elem_id="vary") as vary:
            gr.HTML(form.legend("vary"))
            place(form.VARY)
    with gr.Accordion("Guidance", open=False, elem_classes="fold"):
        place(form.GUIDANCE[:2])
        cost = gr.HTML(elem_id="price")
        gr.HTML(form.legend("like"))
        place(form.GUIDANCE[2:])
    with gr.Accordion("Expert", open=False, elem_classes="fold"):
        for pair in (form.EXPERT[:2], form.EXPERT[2:4]):
            with gr.Row():
                place(pair)
        with gr.Row(elem_id="seed-row"):
            place(form.EXPERT[4:5])
            random = gr.Button("Random", size="sm", elem_id="random", scale=0, min_width=96)
        place(form.EXPERT[5:])
        with gr.Accordion("Everything else", open=False, elem_classes="fold"):
            place(form.FINE)
    return Controls(fields, counter, about, shapes, cost, vary, varying, source, alone, generate, load, stop, random)


def _wire_drawing(
    workshop: Workshop,
    controls: Controls,
    desk: Desk,
    picture: gr.HTML,
    cards: gr.State,
    card: gr.State,
    strip: gr.Gallery,
) -> gr.events.Dependency:
    """Wires Generate, Stop and the strip of a run's pictures; returns the run, for what follows it."""

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

    def choose(cards: list[Card], chosen: gr.EventData) -> list[Any]:
        place = picked(cards, chosen)
        if place is None:
            return [gr.skip()] * 2
        return [stage.finished(cards[place], f"{place + 1} of {len(cards)}"), cards[place]]

    outputs = [picture, desk.message, controls.generate, controls.stop, cards, card, strip, desk.made]
    drawn = controls.generate.click(
        draw,
        [desk.made, *desk.fields],
        outputs,
        preprocess=False,  # Settings looks at the raw values itself
        concurrency_limit=None,  # the line has its own
        trigger_mode="once",
        **QUIET,
    )
    drawn.then(lambda: workshop.model if workshop.pipeline else "", None, desk.ready, **AT_ONCE)
    controls.stop.click(halt, None, None, queue=False, **QUIET)
    strip.select(choose, cards, [picture, card], queue=False, **QUIET)
    return drawn


def _wire_form(workshop: Workshop, controls: Controls, desk: Desk) -> None:
    """Wires what the form does by itself: counting, pasting, presets, a random seed."""
    fields = controls.fields

    def count(prompt: str | None) -> list[Any]:
        pasted = looks_pasted(prompt)
        return [tokens(workshop, prompt), gr.update(visible=not pasted), gr.update(visible=pasted)]

    def paste(prompt: str | None) -> list[Any]:
        values, told = restore_text(prompt)
        filled = [gr.skip()] * len(form.SHOWN) if values is None else form.write(values, desk.models)
        return [*filled, told]

    def about(name: str) -> str:
        return stage.message(form.about(name), "hint")

    def guided(method: str) -> Any:
        return "clip" if method == "off" else gr.skip()

    fields["prompt"].change(
        count,
        fields["prompt"],
        [controls.counter, controls.generate, controls.load],
        js="async (prompt) => await clipgen.settled(prompt)",
        trigger_mode="always_last",
        **AT_ONCE,
    )
    desk.ready.change(partial(tokens, workshop), fields["prompt"], controls.counter, **AT_ONCE)
    controls.load.click(paste, fields["prompt"], [*desk.fields, desk.message], **AT_ONCE)
    controls.random.click(lambda: "", None, fields["seed"], **AT_ONCE)
    fields["preset"].input(form.preset_values, fields["preset"], desk.fields, **AT_ONCE)
    fields["preset"].change(about, fields["preset"], controls.about, **AT_ONCE)
    fields["like"].upload(guided, fields["guidance"], fields["guidance"], preprocess=False, **AT_ONCE)
    for name, weight in form.WEIGHTS.items():
        fields[name].change(
            lambda file: gr.update(visible=file is not None), fields[name], fields[weight], preprocess=False, **AT_ONCE
        )
    desk.ready.change(lambda: gr.update(visible=workshop.varies), None, controls.vary, **AT_ONCE)
    varied = [fields["vary"], fields[form.VARY_WEIGHT]]
    gr.on(
        [each.change for each in varied],
        lambda file, weight: [gr.update(visible=file is not None), stage.varying(file, weight)],
        varied,
        [controls.varying, controls.source],
        preprocess=False,
        **AT_ONCE,
    )
    controls.alone.click(lambda: None, None, fields["vary"], **AT_ONCE)


def _wire_sizes(workshop: Workshop, controls: Controls, desk: Desk, drawn: gr.events.Dependency) -> None:
    """Wires the size buttons: they follow the model and what width and height say."""
    width, height, model = (controls.fields[name] for name in ("width", "height", "model"))

    def follow(width: str, height: str, model: str) -> Any:
        known = sizes_of(workshop, model)
        chosen = next((size.name for size in known if (width, height) in (size.fields, size.numbers)), None)
        return gr.update(choices=[(str(size), size.name) for size in known], value=chosen, visible=bool(known))

    def choose(name: str, model: str) -> tuple[str, str]:
        return next(size.fields for size in sizes_of(workshop, model) if size.name == name)

    asked = [width, height, model]
    gr.on(
        [desk.ready.change, *(field.change for field in asked)],
        follow,
        asked,
        controls.sizes,
        trigger_mode="always_last",
        **AT_ONCE,
    )
    drawn.then(follow, asked, controls.sizes, **AT_ONCE)
    controls.sizes.input(choose, [controls.sizes, model], [width, height], **AT_ONCE)


def _wire_price(workshop: Workshop, controls: Controls, desk: Desk, drawn: gr.events.Dependency) -> None:
    """Wires the price: it follows everything that costs, and what the last picture took."""

    def priced(*raw: Any) -> str:
        return price.told(workshop, raw)

    ask: dict[str, Any] = {"inputs": desk.fields, "outputs": controls.price, "preprocess": False, **AT_ONCE}
    costs = [controls.fields[name].change for name in price.COSTS]
    gr.on([desk.ready.change, *costs], priced, trigger_mode="always_last", **ask)
    drawn.then(priced, **ask)
