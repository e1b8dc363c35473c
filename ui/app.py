"""The page: its tabs in order, its status, what it remembers, and how it is served."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from html import escape
from importlib.resources import files
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from . import api, compare, form, gallery, generate, info, theme, tools
from .guard import MOST_UPLOAD, Guard
from .page import Page
from .shelf import Shelf
from .workshop import House, Workshop

LOOK_SECONDS = 0.4  # between two looks at a loading model
VISITORS = 200  # sessions that are kept


@dataclass(frozen=True)
class Door:
    """Where the page is served and who may come in: `users` = names and passwords, None = everybody."""

    address: str = "127.0.0.1"
    port: int | None = 7860
    hosts: tuple[str, ...] = ()
    users: tuple[tuple[str, str], ...] | None = None


def build(workshop: Workshop) -> Any:
    """Builds the page, a gr.Blocks, and its endpoints."""
    with Page(title="clipgen", analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)) as page:
        api.endpoints(workshop)  # first, so that no handler of the page takes one of their names
        gr.HTML(_read("masthead.html"), elem_id="masthead")
        with gr.Tabs(elem_id="tabs", selected="draw") as tabs:
            desk = generate.tab(workshop, tabs)
            compare.tab(workshop, desk)
            tools.tab(workshop)
            gallery.tab(workshop, desk)
            info.tab(workshop, desk)
        status = gr.HTML(_status(workshop), elem_id="status")
        _remember(page, desk.fields)
        page.load(
            partial(watch, workshop),
            None,
            [status, desk.generate, desk.ready],
            show_progress="hidden",
            api_visibility="private",
            concurrency_limit=None,
        )
    return page


def _remember(page: gr.Blocks, fields: Sequence[Any]) -> None:
    """Keeps the form in the visitor's own browser, over reloads and restarts."""
    kept = gr.BrowserState(None, storage_key="clipgen-form", secret="clipgen")
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    page.load(recalled, kept, list(fields), **quiet).then(None, None, None, js="() => clipgen.ready()")
    gr.on([field.change for field in fields], None, list(fields), kept, js="(...values) => [values]", **quiet)


def recalled(kept: Any) -> list[Any]:
    """Returns what each component shows of a form that a browser kept; one of another version is left alone."""
    known = isinstance(kept, list) and len(kept) == len(form.SHOWN)
    if not known:
        return [gr.skip()] * len(form.SHOWN)
    return [gr.skip() if name in form.WEIGHTS else value for name, value in zip(form.SHOWN, kept, strict=True)]


def watch(workshop: Workshop) -> Iterator[list[Any]]:
    """Yields the status line, what Generate says and the model in hand, until that is loaded or cannot be."""
    while workshop.loading:
        yield [_status(workshop), f"Loading model, {workshop.percent} %", gr.skip()]
        sleep(LOOK_SECONDS)
    yield [_status(workshop), generate.GENERATE, workshop.model if workshop.pipeline else ""]


def _status(workshop: Workshop) -> str:
    said = workshop.status()
    state = f"ready on {said['device']}" if said["ready"] else "loading" if workshop.loading else "cannot be loaded"
    where = "" if workshop.house.strangers else " · offline, on this machine only"
    lamp = f'<i class="{"on" if said["ready"] else "off"}"></i>'
    return f'<p class="status">{lamp}<b>{escape(said["model"])}</b> {escape(state)}{where}</p>'


@dataclass(frozen=True)
class Served:
    """A page that is open: its address, and the folder that goes with it."""

    page: Any
    address: str
    folder: tempfile.TemporaryDirectory[str]

    def stay(self) -> None:
        """Serves until Ctrl-C or SIGTERM, then closes and leaves nothing behind."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            Event().wait()
        self.page.close()
        self.folder.cleanup()


def serve(house: House, door: Door, browser: bool = False) -> Served:
    """Opens the page and begins to load its model; raises OSError for a port that is taken."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    folder = tempfile.TemporaryDirectory(prefix="clipgen-", ignore_cleanup_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = folder.name  # of mode 0700, as every temporary folder
    workshop = Workshop(house, Shelf(Path(folder.name)))
    workshop.open()
    page: Any = build(workshop)
    page.queue(max_size=64, default_concurrency_limit=8, api_open=False)
    _, address, _ = page.launch(
        server_name=door.address,
        server_port=door.port,
        inbrowser=browser,
        auth=list(door.users) if door.users else None,
        app_kwargs={"middleware": [Middleware(Guard, hosts=door.hosts, any_address=house.strangers)]},
        theme=theme.theme(),
        css=theme.css(),
        head=theme.head(),
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        show_error=False,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        blocked_paths=[],
        root_path="",
        state_session_capacity=VISITORS,
        max_file_size=MOST_UPLOAD,
        enable_monitoring=False,
        strict_cors=True,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
    )
    return Served(page, address, folder)


def _read(name: str) -> str:
    return (files("clipgen.ui") / name).read_text("utf-8")
