"""Fixtures for every test: no network, warnings as errors, an empty CLIPGEN_HOME, and two tiny models on disk."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

os.environ |= {
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
if "PYTEST_XDIST_WORKER" in os.environ:
    # With more threads than cores the test processes would block each other.
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")
    # diffusers builds its own Chroma with a class that it deprecates.
    config.addinivalue_line("filterwarnings", "ignore:`FluxPosEmbed` is deprecated:FutureWarning")
    # diffusers' schedulers pass torch tensors to numpy 2, whose array protocol torch 2.13 does not support yet.
    config.addinivalue_line("filterwarnings", "ignore:__array(_wrap)?__ :DeprecationWarning")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every connection of this process an error."""

    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"a test connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Points CLIPGEN_HOME at an empty folder."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("CLIPGEN_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def tiny_epsilon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: epsilon, AutoencoderKL with factor 2, 77 tokens, no CLIP."""
    import tiny

    return tiny.save_epsilon(tmp_path_factory.mktemp("models") / "tiny-epsilon")


@pytest.fixture(scope="session")
def tiny_v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: v with zero terminal SNR, AutoencoderTiny with factor 8, 32 tokens, a CLIP."""
    import tiny

    return tiny.save_v(tmp_path_factory.mktemp("models") / "tiny-v")
