"""The tab that asks CLIP about any picture: do these words fit, what is it, which part is which word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr

from clipgen.errors import ClipgenError

from . import ask, stage, words
from .upload import KINDS, picture_of
from .workshop import Answer, Workshop

HELP = (
    '<div class="blank slim"><p class="lead">Ask CLIP</p><p class="hint">Drop any picture. CLIP has read pictures '
    "beside words: it can say how well your words fit, which of your labels it is, and where each word is.</p></div>"
)


def tab(workshop: Workshop) -> None:
    """Builds the tab and wires it."""
    with gr.Tab("Ask CLIP", id="tools", elem_id="tab-tools"), gr.Row(elem_classes="two"):
        with gr.Column(scale=5, min_width=300):
            file = gr.File(file_types=KINDS, type="filepath", height=140, elem_id="ask-picture", show_label=False)
            text = gr.Textbox(
                label="Words", info="What it may show. Empty = the prompt inside.", max_lines=3, elem_id="ask-text"
            )
            with gr.Row():
                score = gr.Button("Score", variant="primary", elem_id="ask-score", min_width=90)
                explain = gr.Button("Word by word", elem_id="ask-words", min_width=110)
                caption = gr.Button("Describe it", elem_id="ask-caption", min_width=90)
            labels = gr.Textbox(
                label="Labels", info="Two or more, between commas.", placeholder="fox, cat, owl", elem_id="ask-labels"
            )
            classify = gr.Button("Which is it?", elem_id="ask-classify")
            gr.HTML('<p class="legend"><b>Several pictures</b>Up to 16, sorted by how well the words fit them.</p>')
            files = gr.File(
                file_types=KINDS,
                file_count="multiple",
                type="filepath",
                height=120,
                elem_id="ask-pictures",
                show_label=False,
            )
            rank = gr.Button("Rank them", elem_id="ask-rank")
        with gr.Column(scale=7, min_width=300):
            picture = gr.HTML(HELP, elem_id="brought")
            answer = gr.HTML(elem_id="answer")

    def brought(file: Any) -> str:
        try:
            return HELP if file is None else stage.looked_at(str(picture_of(workshop.shelf, file)))
        except ClipgenError as error:
            return stage.message(str(error))

    raw: dict[str, Any] = {"preprocess": False, "concurrency_limit": None, "trigger_mode": "once"}
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    file.change(brought, file, picture, preprocess=False, queue=False, **quiet)
    for button, question, given, shown in (
        (score, ask.score, [file, text], lambda found: stage.score(found.to_dict())),
        (explain, ask.explain, [file, text], words.told),
        (classify, ask.classify, [file, labels], ask.labels_told),
        (caption, ask.caption, [file], ask.caption_told),
        (rank, ask.rank, [files, text], ask.ranks_told),
    ):
        button.click(_answering(workshop, question, shown), given, answer, **raw, **quiet)


def _answering(
    workshop: Workshop, question: Callable[..., Any], shown: Callable[[Any], str]
) -> Callable[..., Iterator[str]]:
    """Returns what asks CLIP a question about what a visitor gave, and yields how far that is, then the answer."""

    def answering(request: gr.Request, *given: Any) -> Iterator[str]:
        for said in ask.asked(workshop, partial(question, workshop, *given), request.session_hash or ""):
            yield shown(said.value) if isinstance(said, Answer) else said

    return answering
