"""Builds the page: the tabs in order, the status line, and the form that the browser remembers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from html import escape
from importlib.resources import files
from time import sleep
from typing import Any

import gradio as gr
from gradio.exceptions import Error

from .api import add_endpoints
from .form import fields
from .tabs import clip, compare, gallery, generate, info
from .tabs.shared import PRIVATE, UNQUEUED
from .worker import Worker

POLL_SECONDS = 0.4  # between two looks at a model that is being loaded
BAD_INPUTS = "These inputs do not fit this endpoint; GET /gradio_api/info describes it."


class Page(gr.Blocks):
    """A gr.Blocks that answers malformed requests with an error message instead of a traceback in the log."""

    async def preprocess_data(self, block_fn: Any, *args: Any, **kwargs: Any) -> Any:
        """Converts the inputs of a request; raises gr.Error if the endpoint cannot take them."""
        if block_fn.fn is None:  # an event that runs JavaScript only
            raise gr.Error(BAD_INPUTS, print_exception=False)
        try:
            return await super().preprocess_data(block_fn, *args, **kwargs)
        except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError, Error) as error:
            raise gr.Error(BAD_INPUTS, print_exception=False) from error


def build_page(worker: Worker) -> Any:
    """Builds the page, a gr.Blocks, with its named endpoints."""
    with Page(title="clipgen", analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)) as page:
        add_endpoints(worker)  # first, so that no handler of the page is given one of their names
        gr.HTML((files("clipgen.ui") / "header.html").read_text("utf-8"), elem_id="header")
        with gr.Tabs(elem_id="tabs", selected="generate") as tabs:
            shared = generate.build_tab(worker, tabs)
            compare.build_tab(worker, shared)
            clip.build_tab(worker)
            gallery.build_tab(worker, shared)
            info.build_tab(worker, shared)
        status = gr.HTML(_status_line(worker), elem_id="status")
        _remember_form(page, shared.fields)
        outputs = [status, shared.generate_button, shared.loaded_model]
        page.load(partial(poll_loading, worker), None, outputs, concurrency_limit=None, **PRIVATE)
    return page


def _remember_form(page: gr.Blocks, components: Sequence[Any]) -> None:
    """Keeps the form in the browser's local storage, so that it survives a reload and a restart of the server."""
    state = gr.BrowserState(None, storage_key="clipgen-form", secret="clipgen")
    page.load(restore_form, state, list(components), **UNQUEUED).then(None, None, None, js="() => clipgen.ready()")
    changes = [component.change for component in components]
    gr.on(changes, None, list(components), state, js="(...values) => [values]", **UNQUEUED)


def restore_form(values: Any) -> list[Any]:
    """Returns an update for each component of the form; a stored form of another version of the page is ignored.

    Uploaded images are not restored: the server that they were uploaded to may have ended.
    """
    if not isinstance(values, list) or len(values) != len(fields.FIELD_ORDER):
        return [gr.skip()] * len(fields.FIELD_ORDER)
    pairs = zip(fields.FIELD_ORDER, values, strict=True)
    return [gr.skip() if name in fields.WEIGHTS else value for name, value in pairs]


def poll_loading(worker: Worker) -> Iterator[list[Any]]:
    """Yields the status line, the label of the Generate button and the loaded model, until loading has ended."""
    while worker.is_loading:
        yield [_status_line(worker), f"Loading model, {worker.load_percent}%", gr.skip()]
        sleep(POLL_SECONDS)
    yield [_status_line(worker), generate.GENERATE, worker.model_name if worker.pipeline else ""]


def _status_line(worker: Worker) -> str:
    status = worker.status()
    state = f"ready on {status['device']}" if status["ready"] else "loading" if worker.is_loading else "failed to load"
    where = "" if worker.config.public else " · runs offline, on this machine only"
    dot = f'<i class="{"on" if status["ready"] else "off"}"></i>'
    return f'<p class="status">{dot}<b>{escape(status["model"])}</b> {escape(state)}{where}</p>'
