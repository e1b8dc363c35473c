"""`clipgen batch`: draws every line once, also after an interruption."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from clipgen.image_file import read_settings

from ..conftest import Run

JOURNAL = ".clipgen-journal.0.jsonl"


@pytest.fixture(autouse=True)
def model(tiny_epsilon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPGEN_MODEL", str(tiny_epsilon))
    monkeypatch.setenv("CLIPGEN_STEPS", "2")


def job_file(*lines: str, name: str = "jobs.txt") -> str:
    Path(name).write_text("\n".join(lines))
    return name


def files_in(folder: str = "outputs") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).rglob("*.png"))}


def test_every_line_is_drawn_with_its_own_settings(run: Run) -> None:
    ran = run("batch", job_file("# two", "a fox", '--prompt "an owl" --seed 3 --steps 3', ""), "-s", "7", "--cfg", "2")
    fox, owl = (read_settings(path).settings for path in ran.lines)
    assert (fox.prompt, fox.seed, fox.steps, fox.guidance_scale) == ("a fox", 7, 2, 2.0)
    assert (owl.prompt, owl.seed, owl.steps, owl.guidance_scale) == ("an owl", 3, 3, 2.0)


def test_jsonl_and_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps({"prompt": "a fox", "seed": 1}), json.dumps({"prompt": "an owl", "seed": 2, "images": 2})]
    assert len(run("batch", job_file(*lines, name="jobs.jsonl")).lines) == 3
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    assert [Path(path).name for path in run("batch", "-").lines] == [
        "a-fox-1-1.png",
        "an-owl-2-1.png",
        "an-owl-3-1.png",
    ]


def test_all_lines_are_checked_before_the_first_image(run: Run) -> None:
    ran = run("batch", job_file("a fox", "--prompt owl --steps 0"))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "clipgen: Line 2: steps must be 1 to 150, got '0'\n"
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["none.txt"], 2, "'none.txt' cannot be read: No such file or directory"),
        (["jobs.txt", "-o", "-"], 2, "batch cannot write to stdout"),
        (["jobs.txt", "-s", "1,2"], 2, "seed must be random or"),
        (["jobs.txt", "-p", "x"], 2, "No such option: -p"),
    ],
)
def test_invalid_arguments(run: Run, words: list[str], code: int, message: str) -> None:
    job_file("a fox")
    ran = run("batch", *words)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err


def test_resume_draws_exactly_the_missing_files(run: Run) -> None:
    jobs = job_file("a fox", '--prompt "an owl" --images 3', "a cat")
    whole = run("batch", jobs).lines
    before = files_in()
    for gone in (whole[1], whole[3]):
        Path(gone).unlink()
    ran = run("batch", jobs, "--resume")
    assert sorted(ran.lines) == sorted([whole[1], whole[3]])
    assert files_in() == before
    assert ran.err.startswith("3 of 5 pictures are already there.\n")
    assert run("batch", jobs, "--resume").out == ""


def test_resume_after_an_incomplete_journal(run: Run) -> None:
    jobs = job_file("a fox", "an owl", "a cat")
    run("batch", jobs)
    before = files_in()
    journal = Path("outputs", JOURNAL)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(
        b"".join(lines[:2]) + lines[2][:-9]
    )  # the entry of owl is incomplete, that of cat missing; both files have their job ids
    assert run("batch", jobs, "--resume").out == ""
    assert files_in() == before


def test_resume_refuses_another_list_and_names_the_difference(run: Run) -> None:
    run("batch", job_file("a fox", "an owl"))
    ran = run("batch", job_file("a fox", "a cat"), "--resume")
    assert ran.code == 2
    assert "Line 2 has changed: prompt was 'an owl' and is 'a cat'" in ran.err
    assert run("batch", job_file("a fox", "an owl"), "--resume", "--steps", "2").code == 0
    ran = run("batch", job_file("a fox", "an owl"), "--resume", "--cfg", "3")
    assert "guidance_scale was 'None' and is '3.0'" in ran.err


def test_resume_without_a_journal_starts_a_batch(run: Run) -> None:
    ran = run("batch", job_file("a fox"), "--resume", "-o", "here/")
    assert len(ran.lines) == 1
    assert "note: No interrupted batch in here" in ran.err
    assert Path("here", JOURNAL).exists()


def test_the_journal_is_in_the_folder_before_the_first_dollar(run: Run) -> None:
    run("batch", job_file("a fox"), "-o", "pics/$slug/$n.png")
    assert Path("pics", JOURNAL).exists()
    assert Path("pics/a-fox/0001.png").exists()


def test_images_have_their_job_id(run: Run) -> None:
    [path] = run("batch", job_file("a fox")).lines
    record = read_settings(path).record
    line = json.loads(Path("outputs", JOURNAL).read_text().splitlines()[1])
    assert record is not None
    assert record["job"] == line["job"]


def test_keep_selects_per_line(run: Run, tiny_v: Path) -> None:
    jobs = job_file("--prompt fox --images 3 --seed 1", "--prompt owl --images 3 --seed 1")
    ran = run("batch", jobs, "-m", str(tiny_v), "--keep", "1")
    assert [read_settings(path).settings.prompt for path in ran.lines] == ["fox", "owl"]
    assert run("batch", jobs, "-m", str(tiny_v), "--keep", "1", "--resume").out == ""


def test_events_and_dry_run(run: Run) -> None:
    jobs = job_file("a fox", "an owl")
    events = run("batch", jobs, "--json").events
    assert [event["prompt"] for event in events if event["type"] == "image"] == ["a fox", "an owl"]
    assert events[-1]["data"]["count"] == 2
    assert run("batch", jobs, "--resume", "--json").events[-1]["ok"]
    runs = run("batch", jobs, "--dry-run", "--json").data["runs"]
    assert [one["prompt"]["from"] for one in runs] == ["line 1", "line 2"]


def test_two_processes_share_the_lines(tiny_epsilon: Path) -> None:
    """As with `accelerate launch`: every line once, two journals, one list of seeds."""
    jobs = job_file("a fox", '--prompt "an owl" --images 2', "a cat", "a dog")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "clipgen", "batch", jobs],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=240)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [len(paths) for paths in printed] == [3, 2]
    prompts = [read_settings(path).settings.prompt for paths in printed for path in paths]
    assert prompts == ["a fox", "an owl", "an owl", "a cat", "a dog"]
    noted = [path.read_text().count('"job"') for path in sorted(Path("outputs").glob(".clipgen-journal.*"))]
    assert noted == [3, 2]
