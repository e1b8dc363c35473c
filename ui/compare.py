"""The second tab: the same noise guided and unguided, a slider between them, a judge, and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from clipgen.compare import DIAL, DUEL, GUIDED, UNGUIDED, Heard, Way, row_of
from clipgen.errors import ClipgenError
from clipgen.report.comparison import Row, verdicts

from . import form, stage
from .curve import Points
from .desk import Desk
from .stage import Card
from .watch import View, Watch, card_of
from .workshop import Compared, Loading, Stopped, Waiting, Workshop

IDLE = (
    '<div class="blank slim"><p class="lead">Does CLIP help?</p><p class="hint">It draws your prompt twice from the '
    "same noise, once steered by CLIP and once not, and as many more as the extra seconds buy. Slide between "
    "them.</p></div>"
)
ABOUT = (
    '<p class="note">Compares what stands in the form under <b>Draw</b>: prompt, seed, guidance. Where guidance is '
    "off, it takes <b>Steer</b>. The dial turns CLIP's pull: none, a quarter, half, as set, double.</p>"
)


@dataclass(frozen=True)
class Arms:
    """The finished arms of a comparison, and what is said of them in HTML."""

    cards: tuple[tuple[str, Card], ...]
    verdict: str


def run(
    workshop: Workshop, raw: Sequence[Any], judge: Any, way: Way, visitor: str
) -> Iterator[tuple[View, Arms | None]]:
    """Yields what the page shows while a comparison is drawn, and its arms as they get finished."""
    yield View(message=""), None
    try:
        settings = workshop.settings(form.read(raw))
        named = judge.strip() or None if isinstance(judge, str) else judge
        events = workshop.compare(settings, named, way, visitor)
        yield from _views(events)
    except ClipgenError as error:
        yield View(IDLE, busy=False, message=str(error)), None
        return
    yield View(busy=False), None


def _views(events: Iterator[Any]) -> Iterator[tuple[View, Arms | None]]:
    watches: dict[str, Watch] = {}
    cards: list[tuple[str, Card]] = []
    rows: list[Row] = []
    twin: Points = ()
    for event in events:
        match event:
            case Waiting(place):
                yield View(stage.waiting(place)), None
            case Loading(model, percent):
                yield View(stage.loading(model, percent)), None
            case Stopped():
                yield View(IDLE, message="Stopped.", tone="done"), None
            case Heard(arm, step):
                beside = () if arm == UNGUIDED else twin
                view = watches.setdefault(arm, Watch()).hear(step, 0, arm, beside)
                if view is not None:
                    yield view, None
            case Compared(arm, picture, panel):
                line = watches[arm.name].points.get(0, []) if arm.name in watches else ()
                twin = line if arm.name == UNGUIDED else twin
                cards.append((arm.name, card_of(picture, line, () if arm.name == UNGUIDED else twin)))
                rows.append(row_of(arm, panel))
                yield View(), Arms(tuple(cards), told(rows))


def told(rows: Sequence[Row]) -> str:
    """Returns seconds, scores and gain beside cost."""
    body = "".join(
        f"<tr><th>{escape(row.arm)}</th><td>{row.seconds:.1f} s</td><td>{escape(str(row.guide))}</td>"
        f"<td>{escape(str(row.judge)) if row.judge else 'none'}</td></tr>"
        for row in rows
    )
    head = "<tr><th></th><th>Seconds</th><th>By the guide</th><th>By a judge</th></tr>"
    lines = "".join(f"<li>{escape(str(verdict))}</li>" for verdict in verdicts(rows))
    if lines and rows[0].judge is None:
        lines += (
            "<li>Self-graded: the CLIP that steers also counts. Name a judge that does not, to claim anything.</li>"
        )
    return f'<table class="verdict"><thead>{head}</thead><tbody>{body}</tbody></table><ul class="verdicts">{lines}</ul>'


@dataclass(frozen=True)
class Bench:
    """What stands in the tab, left to right and down."""

    judge: gr.Textbox
    start: gr.Button
    turn: gr.Button
    stop: gr.Button
    message: gr.HTML
    verdict: gr.HTML
    progress: gr.HTML
    slider: gr.ImageSlider
    sides: gr.Row
    left: gr.Radio
    right: gr.Radio
    swap: gr.Button
    arms: gr.State
    fit: gr.HTML

    @property
    def shown(self) -> list[Any]:
        """What `seen` has values for."""
        return [
            self.progress, self.message, self.start, self.turn, self.stop, self.slider, self.sides, self.left,
            self.right, self.arms, self.verdict, self.fit,
        ]  # fmt: skip


def tab(workshop: Workshop, desk: Desk) -> None:
    """Builds the tab and wires it."""
    bench = _laid_out()

    def drawing(way: Way) -> Callable[..., Iterator[list[Any]]]:
        def draw(request: gr.Request, *raw: Any) -> Iterator[list[Any]]:
            *fields, judge = raw
            for view, found in run(workshop, fields, judge, way, request.session_hash or ""):
                yield seen(view, found)

        return draw

    def choose(left: str, right: str, arms: dict[str, Card]) -> Any:
        return (arms[left].path, arms[right].path) if left in arms and right in arms else gr.skip()

    def halt(request: gr.Request) -> None:
        workshop.stop(request.session_hash or "")  # the run itself says that it has stopped

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    once: dict[str, Any] = {"preprocess": False, "concurrency_limit": None, "trigger_mode": "once", **quiet}
    for button, way in ((bench.start, DUEL), (bench.turn, DIAL)):
        button.click(drawing(way), [*desk.fields, bench.judge], bench.shown, **once)
    bench.stop.click(halt, None, None, queue=False, **quiet)
    left, right = bench.left, bench.right
    chosen = [left, right, bench.arms]
    gr.on([left.input, right.input], choose, chosen, bench.slider, queue=False, **quiet)
    swap = bench.swap.click(lambda left, right: (right, left), [left, right], [left, right], queue=False, **quiet)
    swap.then(choose, chosen, bench.slider, queue=False, **quiet)


def _laid_out() -> Bench:
    """Builds the tab."""
    with gr.Tab("Compare", id="compare", elem_id="tab-compare"), gr.Row(elem_classes="two"):
        with gr.Column(scale=5, min_width=300):
            gr.HTML(ABOUT)
            judge = gr.Textbox(
                label="Judge",
                info="A CLIP or SigLIP on this machine that does not steer, by its hub id. Its word counts.",
                placeholder="openai/clip-vit-base-patch32, if it is here",
                elem_id="judge",
                max_lines=1,
            )
            with gr.Row():
                start = gr.Button("Compare", variant="primary", elem_id="start-compare")
                turn = gr.Button("Dial", elem_id="start-dial")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop-compare")
            message = gr.HTML(elem_id="message-compare")
            verdict = gr.HTML(elem_id="verdict")
        with gr.Column(scale=7, min_width=300):
            progress = gr.HTML(IDLE, elem_id="stage-compare")
            slider = gr.ImageSlider(
                visible=False, type="filepath", format="png", show_label=False, max_height=600, elem_id="slider",
                buttons=["fullscreen"],
            )  # fmt: skip
            with gr.Row(visible=False, elem_id="sides") as sides:
                left = gr.Radio([], label="Left", elem_id="left")
                right = gr.Radio([], label="Right", elem_id="right")
                swap = gr.Button("Swap", size="sm", elem_id="swap", scale=0, min_width=80)
            arms = gr.State({})
            fit = gr.HTML(elem_id="fit-compare")
    return Bench(judge, start, turn, stop, message, verdict, progress, slider, sides, left, right, swap, arms, fit)


def seen(view: View, found: Arms | None) -> list[Any]:
    """Returns what the tab shows of a view and of the arms there are, in the order of `Bench.shown`."""
    cards = dict(found.cards) if found else {}
    done, names = GUIDED in cards, list(cards)
    return [
        gr.skip() if view.stage is None and not done else gr.update(value=view.stage or "", visible=not done),
        gr.skip() if view.message is None else stage.message(view.message, view.tone),
        *[gr.update(visible=not view.busy)] * 2,
        gr.update(visible=view.busy),
        gr.update(value=(cards[UNGUIDED].path, cards[GUIDED].path), visible=True) if done else gr.skip(),
        gr.update(visible=True) if done else gr.skip(),
        gr.update(choices=names, value=UNGUIDED) if done else gr.skip(),
        gr.update(choices=names, value=GUIDED) if done else gr.skip(),
        cards if done else gr.skip(),
        found.verdict if found else gr.skip(),
        stage.curve_block(cards[GUIDED]) if done else gr.skip(),
    ]
