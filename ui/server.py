"""Starts the server: the worker, its temporary folder, and the page."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from starlette.middleware import Middleware

from . import theme
from .image_store import ImageStore
from .middleware import MAX_UPLOAD, RequestFilter
from .page import build_page
from .server_config import BindConfig, ServerConfig
from .worker import Worker

MAX_SESSIONS = 200  # browser sessions whose state is kept


@dataclass(frozen=True)
class Server:
    """A running server: its page, its URL, and the temporary folder that is deleted at its end."""

    page: Any
    url: str
    folder: tempfile.TemporaryDirectory[str]

    def wait(self) -> None:
        """Blocks until Ctrl-C or SIGTERM, then closes the server and deletes its temporary files."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            Event().wait()
        self.page.close()
        self.folder.cleanup()


def serve(config: ServerConfig, bind: BindConfig, open_browser: bool = False) -> Server:
    """Starts the server and begins to load its first model; raises OSError if the port is in use."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    folder = tempfile.TemporaryDirectory(prefix="clipgen-", ignore_cleanup_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = folder.name  # created with mode 0700
    worker = Worker(config, ImageStore(Path(folder.name)))
    worker.start_loading()
    page: Any = build_page(worker)
    page.queue(max_size=64, default_concurrency_limit=8, api_open=False)
    _, url, _ = page.launch(
        server_name=bind.address,
        server_port=bind.port,
        inbrowser=open_browser,
        auth=list(bind.users) if bind.users else None,
        app_kwargs={"middleware": [Middleware(RequestFilter, hosts=bind.allowed_hosts, any_address=config.public)]},
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
        state_session_capacity=MAX_SESSIONS,
        max_file_size=MAX_UPLOAD,
        enable_monitoring=False,
        strict_cors=True,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
    )
    return Server(page, url, folder)
