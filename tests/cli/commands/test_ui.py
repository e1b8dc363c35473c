"""`clipgen ui` before it opens a page: who may listen, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipgen.cli.commands.ui import read_users
from clipgen.errors import SettingsError

from ..conftest import Run


def test_listening_needs_passwords(run: Run) -> None:
    ran = run("ui", "--listen", "0.0.0.0")
    assert (ran.code, ran.err.strip()) == (
        2,
        "clipgen: --listen needs --auth-file FILE, or --insecure to let everybody in",
    )


def test_an_unknown_model_is_an_error(run: Run) -> None:
    ran = run("ui", "--model", "./nowhere")
    assert ran.code == 3
    assert ran.err == f"clipgen: There is no folder '{Path.cwd() / 'nowhere'}'.\n"


@pytest.mark.parametrize("port", ["0", "65536", "many"])
def test_a_port_is_a_number(run: Run, port: str) -> None:
    ran = run("ui", "--port", port)
    assert (ran.code, "port must be 1 to 65535" in ran.err) == (2, True)


def test_names_and_passwords_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("# users\n\nada : secret:with:colons\nbob:x\n")
    assert read_users(file) == (("ada", "secret:with:colons"), ("bob", "x"))


@pytest.mark.parametrize("text", ["", "# nobody\n", "ada\n", "ada:\n", ":secret\n"])
def test_a_file_without_passwords_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "users"
    file.write_text(text)
    with pytest.raises(SettingsError, match="must have lines of NAME:PASSWORD"):
        read_users(file)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_users(tmp_path / "missing")
