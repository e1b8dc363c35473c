"""The Ask CLIP tab: score, explain, caption, classify and rank uploaded images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr

from clipgen.errors import ClipgenError

from .. import clip_tasks
from ..html import clip_answers, output_panel
from ..html.word_maps import word_maps
from ..image_store import IMAGE_SUFFIXES
from ..job_events import TaskResult
from ..worker import Worker
from .shared import STARTS_JOB, UNQUEUED, run_task

PLACEHOLDER = (
    '<div class="empty-state slim"><p class="lead">Ask CLIP</p><p class="hint">Upload any picture. CLIP says how well '
    "it fits a text, which of your labels describes it, and which part of it belongs to which word.</p></div>"
)


def build_tab(worker: Worker) -> None:
    """Builds the tab with its handlers."""
    with gr.Tab("Ask CLIP", id="clip", elem_id="tab-clip"), gr.Row(elem_classes="two-columns"):
        with gr.Column(scale=5, min_width=300):
            file = gr.File(
                file_types=IMAGE_SUFFIXES, type="filepath", height=140, elem_id="clip-upload", show_label=False
            )
            text = gr.Textbox(
                label="Text",
                info="What the picture may show. Empty = the prompt stored inside the picture (Explain words only).",
                max_lines=3,
                elem_id="clip-text",
            )
            with gr.Row():
                score = gr.Button("Score", variant="primary", elem_id="clip-score", min_width=90)
                explain = gr.Button("Explain words", elem_id="clip-explain", min_width=110)
                caption = gr.Button("Describe", elem_id="clip-caption", min_width=90)
            labels = gr.Textbox(
                label="Labels", info="Two or more, separated by commas.", placeholder="fox, cat, owl",
                elem_id="clip-labels",
            )  # fmt: skip
            classify = gr.Button("Choose the best label", elem_id="clip-classify")
            gr.HTML(
                '<p class="heading"><b>Rank pictures</b>Up to 16 pictures, sorted by how well they fit the text '
                "above.</p>"
            )
            files = gr.File(
                file_types=IMAGE_SUFFIXES,
                file_count="multiple",
                type="filepath",
                height=120,
                elem_id="clip-uploads",
                show_label=False,
            )
            rank = gr.Button("Rank", elem_id="clip-rank")
        with gr.Column(scale=7, min_width=300):
            image = gr.HTML(PLACEHOLDER, elem_id="clip-image")
            answer = gr.HTML(elem_id="clip-answer")

    def show_upload(file: Any) -> str:
        try:
            return PLACEHOLDER if file is None else output_panel.uploaded(str(worker.image_store.image_path(file)))
        except ClipgenError as error:
            return output_panel.message(str(error))

    file.change(show_upload, file, image, preprocess=False, **UNQUEUED)
    for button, build_task, inputs, to_html in (
        (score, clip_tasks.score, [file, text], lambda score: output_panel.score(score.to_dict())),
        (explain, clip_tasks.explain, [file, text], word_maps),
        (classify, clip_tasks.classify, [file, labels], clip_answers.labels),
        (caption, clip_tasks.caption, [file], clip_answers.caption),
        (rank, clip_tasks.rank, [files, text], clip_answers.ranking),
    ):
        task = button.click(_handler(worker, build_task, to_html), inputs, answer, **STARTS_JOB)
        task.then(None, js="() => clipgen.reveal('#clip-answer')")


def _handler(
    worker: Worker, build_task: Callable[..., Any], to_html: Callable[[Any], str]
) -> Callable[..., Iterator[str]]:
    """Returns the handler of a button: it yields HTML while the task waits, and last its result as HTML."""

    def handle(request: gr.Request, *inputs: Any) -> Iterator[str]:
        for event in run_task(worker, partial(build_task, worker, *inputs), request.session_hash or ""):
            yield to_html(event.value) if isinstance(event, TaskResult) else event

    return handle
