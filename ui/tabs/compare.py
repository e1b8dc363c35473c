"""The Compare tab: variants from the same noise, with and without guidance, next to each other with their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from clipgen.compare import BEST_OF_N, GUIDED, SCALE_SWEEP, UNGUIDED, Comparison, VariantStep, comparison_row
from clipgen.errors import ClipgenError
from clipgen.report.comparison import ComparisonRow, verdicts

from ..form import values
from ..html import output_panel
from ..image_info import Curve, ImageInfo
from ..job_events import ComparedImage, JobStopped, Loading, Waiting
from ..worker import Worker
from .shared import STARTS_JOB, UNQUEUED, SharedWidgets
from .updates import PanelUpdate, StepTracker

PLACEHOLDER = (
    '<div class="empty-state slim"><p class="lead">Does CLIP guidance help?</p><p class="hint">Generates your prompt '
    "twice from the same noise, with and without guidance. The third picture is the best of several unguided "
    "pictures that together take as long as the guided one. Move the slider to compare two of them.</p></div>"
)
EXPLANATION = (
    '<p class="note">Uses the form of the <b>Generate</b> tab. If guidance is off there, the method <b>CLIP '
    "gradient</b> is used. <b>Compare strengths</b> generates without guidance and with 0.25, 0.5, 1 and 2 times the "
    "CLIP guidance scale.</p>"
)
SELF_GRADED = "Self-graded: the CLIP that guided also scores. Choose another CLIP as judge for an independent score."


@dataclass(frozen=True)
class ComparisonUpdate:
    """The finished variants of a comparison with their names, and their scores as HTML."""

    images: tuple[tuple[str, ImageInfo], ...]
    scores: str


def compare_updates(
    worker: Worker, raw: Sequence[Any], judge: Any, comparison: Comparison, session: str
) -> Iterator[tuple[PanelUpdate, ComparisonUpdate | None]]:
    """Yields the updates while the variants are generated; errors are shown as messages."""
    yield PanelUpdate(message=""), None
    try:
        settings = worker.build_settings(values.read(raw))
        judge_id = judge.strip() or None if isinstance(judge, str) else judge
        yield from _updates(worker.compare(settings, judge_id, comparison, session))
    except ClipgenError as error:
        yield PanelUpdate(PLACEHOLDER, busy=False, message=str(error)), None
        return
    yield PanelUpdate(busy=False), None


def _updates(events: Iterator[Any]) -> Iterator[tuple[PanelUpdate, ComparisonUpdate | None]]:
    trackers: dict[str, StepTracker] = {}
    images: list[tuple[str, ImageInfo]] = []
    rows: list[ComparisonRow] = []
    unguided_curve: Curve = ()
    for event in events:
        match event:
            case Waiting(position):
                yield PanelUpdate(output_panel.waiting(position)), None
            case Loading(model, percent):
                yield PanelUpdate(output_panel.loading(model, percent)), None
            case JobStopped():
                yield PanelUpdate(PLACEHOLDER, message="Stopped.", kind="done"), None
            case VariantStep(name, step):
                tracker = trackers.setdefault(name, StepTracker())
                update = tracker.add(step, 0, name, () if name == UNGUIDED else unguided_curve)
                if update is not None:
                    yield update, None
            case ComparedImage(variant, image, scorers):
                curve = trackers[variant.name].curves.get(0, []) if variant.name in trackers else ()
                if variant.name == UNGUIDED:
                    unguided_curve = curve
                other = () if variant.name == UNGUIDED else unguided_curve
                images.append((variant.name, ImageInfo.from_job(image, curve, other)))
                rows.append(comparison_row(variant, scorers))
                yield PanelUpdate(), ComparisonUpdate(tuple(images), scores_table(rows))


def scores_table(rows: Sequence[ComparisonRow]) -> str:
    """Returns the seconds and the scores of each variant as a table, and what they mean as a list."""
    body = "".join(
        f"<tr><th>{escape(row.variant)}</th><td>{row.seconds:.1f} s</td><td>{escape(str(row.guide))}</td>"
        f"<td>{escape(str(row.judge)) if row.judge else 'none'}</td></tr>"
        for row in rows
    )
    head = "<tr><th></th><th>Time</th><th>Score by the guiding CLIP</th><th>Score by the judge</th></tr>"
    items = [str(verdict) for verdict in verdicts(rows)]
    if items and rows[0].judge is None:
        items.append(SELF_GRADED)
    verdict_list = "".join(f"<li>{escape(item)}</li>" for item in items)
    return (
        f'<table class="scores"><thead>{head}</thead><tbody>{body}</tbody></table>'
        f'<ul class="verdicts">{verdict_list}</ul>'
    )


@dataclass(frozen=True)
class CompareWidgets:
    """The components of the tab."""

    judge: gr.Textbox
    compare: gr.Button
    compare_strengths: gr.Button
    stop: gr.Button
    message: gr.HTML
    scores: gr.HTML
    panel: gr.HTML
    slider: gr.ImageSlider
    slider_row: gr.Row
    left: gr.Radio
    right: gr.Radio
    swap: gr.Button
    images: gr.State
    chart: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        """The components that `show` returns values for, in its order."""
        return [
            self.panel, self.message, self.compare, self.compare_strengths, self.stop, self.slider, self.slider_row,
            self.left, self.right, self.images, self.scores, self.chart,
        ]  # fmt: skip


def build_tab(worker: Worker, shared: SharedWidgets) -> None:
    """Builds the tab with its handlers."""
    widgets = _build_widgets()

    def handler(comparison: Comparison) -> Callable[..., Iterator[list[Any]]]:
        def compare(request: gr.Request, *raw: Any) -> Iterator[list[Any]]:
            *form, judge = raw
            for update, images in compare_updates(worker, form, judge, comparison, request.session_hash or ""):
                yield show(update, images)

        return compare

    def select(left: str, right: str, images: dict[str, ImageInfo]) -> Any:
        return (images[left].path, images[right].path) if left in images and right in images else gr.skip()

    def stop(request: gr.Request) -> None:
        worker.cancel(request.session_hash or "")  # the run then ends and updates the page

    inputs = [*shared.fields, widgets.judge]
    for button, comparison in ((widgets.compare, BEST_OF_N), (widgets.compare_strengths, SCALE_SWEEP)):
        button.click(handler(comparison), inputs, widgets.outputs, **STARTS_JOB)
        button.click(None, js="() => clipgen.reveal('#output-compare')")
    widgets.stop.click(stop, None, None, **UNQUEUED)
    sides = [widgets.left, widgets.right]
    gr.on([side.input for side in sides], select, [*sides, widgets.images], widgets.slider, **UNQUEUED)
    swap = widgets.swap.click(lambda left, right: (right, left), sides, sides, **UNQUEUED)
    swap.then(select, [*sides, widgets.images], widgets.slider, **UNQUEUED)


def _build_widgets() -> CompareWidgets:
    with gr.Tab("Compare", id="compare", elem_id="tab-compare"), gr.Row(elem_classes="two-columns"):
        with gr.Column(scale=5, min_width=300):
            gr.HTML(EXPLANATION)
            judge = gr.Textbox(
                label="Judge",
                info="Hub id of a CLIP or SigLIP that is stored on this machine and does not guide. It scores the "
                "pictures independently. Empty = the model's own judge, if it has one.",
                placeholder="openai/clip-vit-base-patch32",
                elem_id="judge",
                max_lines=1,
            )
            with gr.Row():
                compare = gr.Button("Compare", variant="primary", elem_id="start-compare")
                compare_strengths = gr.Button("Compare strengths", elem_id="start-strengths")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop-compare")
            message = gr.HTML(elem_id="message-compare")
            scores = gr.HTML(elem_id="scores")
        with gr.Column(scale=7, min_width=300):
            panel = gr.HTML(PLACEHOLDER, elem_id="output-compare")
            slider = gr.ImageSlider(
                visible=False,
                type="filepath",
                format="png",
                show_label=False,
                max_height=600,
                elem_id="slider",
                buttons=[],
            )
            with gr.Row(visible=False, elem_id="slider-row") as slider_row:
                left = gr.Radio([], label="Left", elem_id="left")
                right = gr.Radio([], label="Right", elem_id="right")
                swap = gr.Button("Swap", size="sm", elem_id="swap", scale=0, min_width=80)
            images = gr.State({})
            chart = gr.HTML(elem_id="chart-compare")
    return CompareWidgets(
        judge, compare, compare_strengths, stop, message, scores, panel, slider, slider_row, left, right, swap, images,
        chart,
    )  # fmt: skip


def show(update: PanelUpdate, comparison: ComparisonUpdate | None) -> list[Any]:
    """Returns the values of `CompareWidgets.outputs`; the slider appears when the guided image is finished."""
    images = dict(comparison.images) if comparison else {}
    finished, names = GUIDED in images, list(images)
    panel = gr.update(value=update.panel or "", visible=not finished)
    return [
        gr.skip() if update.panel is None and not finished else panel,
        gr.skip() if update.message is None else output_panel.message(update.message, update.kind),
        *[gr.update(visible=not update.busy)] * 2,
        gr.update(visible=update.busy),
        gr.update(value=(images[UNGUIDED].path, images[GUIDED].path), visible=True) if finished else gr.skip(),
        gr.update(visible=True) if finished else gr.skip(),
        gr.update(choices=names, value=UNGUIDED) if finished else gr.skip(),
        gr.update(choices=names, value=GUIDED) if finished else gr.skip(),
        images if finished else gr.skip(),
        comparison.scores if comparison else gr.skip(),
        output_panel.similarity_chart(images[GUIDED]) if finished else gr.skip(),
    ]
