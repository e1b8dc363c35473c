"""One page for all tests of the browser and of programs: `clipgen ui` as people start it, with storybook."""

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

CONNECT = socket.socket.connect
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every connection but those to this machine an error."""

    def connect(self: socket.socket, address: Any) -> None:
        assert isinstance(address, str) or address[0] in LOOPBACK, f"a test connects to {address}"
        CONNECT(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@dataclass(frozen=True)
class Server:
    """A running page: its address, and the folder that its pictures go to."""

    url: str
    folder: Path
    log: Path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`clipgen ui` in a process of its own."""
    folder = tmp_path_factory.mktemp("ui")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "tmp").mkdir()
    environ = {
        **os.environ,
        "CLIPGEN_HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "GRADIO_SHARE": "True",
        "GRADIO_SERVER_NAME": "0.0.0.0",
    }
    words = [sys.executable, "-m", "clipgen", "ui", "--no-open", "--port", str(port), "-o", str(folder / "pictures")]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, env=environ, cwd=folder) as process,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address == f"http://127.0.0.1:{port}/", (folder / "log").read_text()
        yield Server(address, folder / "pictures", folder / "log")
        process.terminate()
    assert not list((folder / "tmp").glob("clipgen-*"))  # neither uploads nor copies stay behind
