"""Fixtures of the browser tests: a worker with a tiny model, and a running `clipgen ui` with storybook."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clipgen.ui.form import fields, values
from clipgen.ui.image_store import ImageStore
from clipgen.ui.queue import Queue
from clipgen.ui.server_config import ServerConfig
from clipgen.ui.worker import Worker

from clipgen.settings.checks import SERVED
from clipgen.settings.settings import Settings

CONNECT = socket.socket.connect
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every connection except to this machine an error."""

    def connect(self: socket.socket, address: Any) -> None:
        assert isinstance(address, str) or address[0] in LOOPBACK, f"a test connects to {address}"
        CONNECT(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(scope="module")
def image_store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return ImageStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def worker(tiny_v: Path, image_store: ImageStore) -> Worker:
    """The worker of a public server: it saves no images, and at most three jobs may wait."""
    config = ServerConfig((str(tiny_v),), SERVED, device="cpu", save_images=False, public=True)
    return Worker(config, image_store, Queue(max_waiting=3))


def raw_form(model: str, /, **changes: Any) -> list[Any]:
    """Returns the values of the form's components for a prompt and two steps, with some values changed."""
    form = dict(zip(fields.FIELD_ORDER, values.write(Settings("a fox", steps=2).to_dict(), ()), strict=True))
    return list({**form, "model": model, **changes}.values())


@dataclass(frozen=True)
class RunningServer:
    """A running server: its URL, its output folder and its log file."""

    url: str
    folder: Path
    log: Path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Runs `clipgen ui` in a process; one server for all tests of a session."""
    folder = tmp_path_factory.mktemp("ui")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "tmp").mkdir()
    environ = {
        **os.environ,
        "CLIPGEN_HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "GRADIO_SHARE": "True",  # clipgen must ignore both
        "GRADIO_SERVER_NAME": "0.0.0.0",
    }
    command = [sys.executable, "-m", "clipgen", "ui", "--no-open", "--port", str(port), "-o", str(folder / "pictures")]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environ, cwd=folder) as process,
    ):
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url == f"http://127.0.0.1:{port}/", (folder / "log").read_text()
        yield RunningServer(url, folder / "pictures", folder / "log")
        process.terminate()
    assert not list((folder / "tmp").glob("clipgen-*"))  # uploads and copies are deleted
