"""Ctrl-C and SIGTERM: finished images are kept, the exit code names the signal, a second signal kills."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from clipgen.cli.interrupt import Interrupt
from clipgen.errors import Cancelled

from .conftest import Run


def test_a_signal_in_the_loop_is_recorded() -> None:
    before = signal.getsignal(signal.SIGINT)  # a shell's background jobs start with it ignored
    with Interrupt() as interrupt:
        assert not interrupt.stopped
        signal.raise_signal(signal.SIGINT)
        assert interrupt.stopped
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        assert interrupt.cancelled([1], "x").exit_code == 130
        assert interrupt.cancelled([1], "x").results == [1]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_while_loading_aborts() -> None:
    with pytest.raises(Cancelled) as caught, Interrupt() as interrupt, interrupt.abortable():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@contextmanager
def signal_after(seconds: float, number: signal.Signals) -> Iterator[None]:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # not raised in a finalizer
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_finished_images_are_kept(run: Run, tiny_epsilon: Path, number: signal.Signals) -> None:
    """After a signal at a random time each printed path is a whole image, and there is no other file."""
    for delay in random.Random(0).choices([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], k=3):
        folder = f"made-{delay}-{number}"
        words = ("a fox", "-s", "1-60", "--steps", "4", "-m", str(tiny_epsilon), "-o", f"{folder}/")
        try:
            with signal_after(delay, number):
                ran = run(*words)
        except KeyboardInterrupt:
            continue  # before the command installed its handler
        assert ran.code == 128 + number
        assert {Path(line).name for line in ran.lines} == {path.name for path in Path(folder).glob("*")}
        for line in ran.lines:
            with Image.open(line) as image:
                image.load()
        assert "clipgen: Stopped" in ran.err.splitlines()[-1]


def test_a_killed_batch_resumes_to_the_same_bytes(run: Run, tiny_epsilon: Path) -> None:
    Path("jobs.txt").write_text("".join(f'--prompt "fox {line}" --seed {line}\n' for line in range(10)))
    words = ["batch", "jobs.txt", "-m", str(tiny_epsilon), "--steps", "2"]
    command = [sys.executable, "-m", "clipgen", *words, "-o", "made/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.kill()
    before = list(Path("made").glob("*.png"))
    resumed = run(*words, "-o", "made/", "--resume")
    assert resumed.code == 0
    assert len(resumed.lines) == 10 - len(before)
    run(*words, "-o", "whole/")
    whole = {path.name: path.read_bytes() for path in Path("whole").glob("*.png")}
    assert {path.name: path.read_bytes() for path in Path("made").glob("*.png")} == whole
    assert len(whole) == 10


def test_all_images_of_a_finished_batch_are_kept(run: Run, tiny_v: Path) -> None:
    """The signal comes when the first image of a batch of 8 is saved; the others are finished too."""
    words = ("a fox", "-s", "1", "-n", "10", "--steps", "2", "-m", str(tiny_v), "-o", "made/")

    def watch() -> None:
        while not list(Path("made").glob("*.png")):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    ran = run(*words)
    thread.join()
    assert ran.code == 130
    assert len(ran.lines) in (8, 10)
    assert len(ran.lines) == len(list(Path("made").iterdir()))


def test_two_signals_kill() -> None:
    code = (
        "import time\nfrom clipgen.cli.interrupt import Interrupt\n"
        "with Interrupt() as interrupt:\n    print('in', flush=True)\n"
        "    while not interrupt.stopped:\n        time.sleep(0.01)\n"
        "    print('recorded', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for word in ("in\n", "recorded\n"):
            assert process.stdout.readline() == word
            process.send_signal(signal.SIGINT)
    assert process.returncode == -signal.SIGINT
