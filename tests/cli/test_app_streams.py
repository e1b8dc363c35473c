"""Tests in new processes: stdout, exit codes, closed pipes, encodings, silent libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clipgen.cli.app import main


def start(*words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-m", "clipgen", *words], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def clipgen(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "clipgen", *words], capture_output=True, text=True, timeout=120, **options
    )


def test_stdout_closed_after_the_first_path_is_no_error(
    tiny_epsilon: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reader closes the pipe after the first path, as `| head -1` does. Reading stdin would be an error here."""
    read_end, write_end = os.pipe()
    first: list[bytes] = []

    def read_once() -> None:
        first.append(os.read(read_end, 4096))
        os.close(read_end)

    reader = threading.Thread(target=read_once)
    reader.start()
    with open(write_end, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert main(["a fox", "-s", "1-40", "-m", str(tiny_epsilon), "--steps", "1"]) == 0
    reader.join()
    assert Path(first[0].decode().splitlines()[0]).is_file()
    err = capsys.readouterr().err
    assert "seed 1 " in err
    assert not any(word in err for word in ("Loading", "Traceback", "Broken", "\x1b"))
    assert len(list(Path().rglob("*.png"))) < 40


@pytest.mark.parametrize("words", [["generate", "--help"], ["presets"], ["presets", "--json"]])
def test_stdout_closed_before_the_first_byte_is_no_error(words: list[str]) -> None:
    with start(*words) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_output_is_utf8_in_any_locale() -> None:
    environ = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = clipgen("generate", "--help", env=environ)
    assert ran.returncode == 0
    assert "╭" in ran.stdout


def test_invalid_utf8_is_one_error_line() -> None:
    ran = subprocess.run([sys.executable, "-m", "clipgen", b"a f\xffx"], capture_output=True)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr.startswith(b"clipgen: prompt must be valid UTF-8")
    assert ran.stderr.count(b"\n") == 1


def test_an_internal_error_has_a_traceback_and_an_envelope(tmp_path: Path) -> None:
    Path("sitecustomize.py").write_text("import clipgen.cli.commands.doctor as d\nd.CHECKS = (lambda: [1 / 0],)\n")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = clipgen("doctor", "--json", env=environ)
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["error"]["code"] == "internal-error"
    assert "ZeroDivisionError" in ran.stderr


@pytest.mark.parametrize(
    ("setting", "cure"),
    [
        ("HF_HUB_OFFLINE", ", and HF_HUB_OFFLINE forbids the download."),
        ("--offline", ". Download it: clipgen models pull org/name"),
    ],
)
def test_offline_is_exit_3(setting: str, cure: str) -> None:
    environ = {**os.environ, "HF_HUB_OFFLINE": "1" if setting == "HF_HUB_OFFLINE" else "0"}
    flags = ["--offline"] if setting == "--offline" else []
    ran = clipgen("a fox", "-m", "org/name", *flags, env=environ)
    assert ran.returncode == 3
    assert ran.stderr == f"clipgen: Model 'org/name' is not on this machine{cure}\n"


def test_libraries_are_silent() -> None:
    """Importing and loading prints nothing: no warnings, hints or progress bars of torch, transformers, diffusers."""
    code = (
        "import sys\nfrom clipgen.cli import main\nmain(['version'])\n"
        "import diffusers, transformers, huggingface_hub, warnings\n"
        "transformers.utils.logging.get_logger('transformers.x').warning('chatter')\n"
        "diffusers.utils.logging.get_logger('diffusers.x').warning('chatter')\n"
        "warnings.warn('chatter')\n"
        "with huggingface_hub.utils.tqdm(total=3, desc='chatter') as bar:\n    bar.update(3)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (len(ran.stdout.splitlines()), ran.stderr) == (1, "")
