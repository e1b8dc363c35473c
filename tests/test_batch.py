"""Batches: job files of three kinds, ids, and a journal that tolerates an incomplete line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipgen.batch import A1111, Journal, Share, make_jobs, read_lines, same_lines, sharing
from clipgen.errors import OutputError, SettingsError
from clipgen.image_file import encode_image, make_record
from clipgen.settings.settings import Settings

RUNTIME = {"clipgen": "0.1.0", "torch": "", "diffusers": "", "device": "cpu", "dtype": "float32", "rng": "cpu"}
MODEL = {"name": "storybook", "hash": "0", "family": "stable_diffusion"}


def lines_of(*prompts: str, **changes: Any) -> list[tuple[int, Settings]]:
    return [(number, Settings(prompt, seed=number, **changes)) for number, prompt in enumerate(prompts, 1)]


def test_plain_lines() -> None:
    text = "# a comment\na fox in snow\n\n  an owl, at night  \r\n   # another\nein Bär"
    assert [(line.number, line.fields) for line in read_lines(text)] == [
        (2, {"prompt": "a fox in snow"}),
        (4, {"prompt": "an owl, at night"}),
        (6, {"prompt": "ein Bär"}),
    ]


@pytest.mark.parametrize(
    "line, expected",
    [
        ('--prompt "a fox" --steps 20', {"prompt": "a fox", "steps": 20}),
        ("--prompt 'a \"red\" fox' --negative_prompt blurry", {"prompt": 'a "red" fox', "negative_prompt": "blurry"}),
        (
            '--prompt "a" --cfg_scale 7 --width 512 --height 64',
            {"prompt": "a", "guidance_scale": 7.0, "width": 512, "height": 64},
        ),
        (
            '--prompt "a" --sampler_name "Euler a" --seed -1',
            {"prompt": "a", "scheduler": "euler_ancestral", "seed": None},
        ),
        ("--prompt=fox --guidance-scale=3 --batch_size 4", {"prompt": "fox", "guidance_scale": 3.0, "images": 4}),
    ],
)
def test_a1111_lines(line: str, expected: dict[str, Any]) -> None:
    assert read_lines(line)[0].fields == expected


def test_a1111_names_are_settings() -> None:
    assert set(A1111.values()) <= set(Settings.__dataclass_fields__)


@pytest.mark.parametrize("jsonl", [True, False])
def test_jsonl(jsonl: bool) -> None:
    text = '{"prompt": "a fox", "steps": 20.0}\n\n{"prompt": "{a|b} owl", "seed": 9007199254740993}\n'
    assert [line.fields for line in read_lines(text, jsonl=jsonl)] == [
        {"prompt": "a fox", "steps": 20},
        {"prompt": "{a|b} owl", "seed": 9007199254740993},
    ]


@pytest.mark.parametrize(
    "text, jsonl, message",
    [
        ("", False, "The job file holds no prompt."),
        ("# nothing\n\n", False, "The job file holds no prompt."),
        ('a\n--prompt "a fox', False, "Line 2: a quotation mark is not closed (No closing quotation)"),
        ("--steps", False, "Line 1: --steps needs a value"),
        ("--steps 0", False, "Line 1: steps must be 1 to 150, got '0'"),
        ("--step 3", False, "Line 1: Unknown setting 'step'. Did you mean steps?"),
        ('--prompt "a" fox', False, "Line 1: a flag such as --steps must come before 'fox'"),
        ("a\n" + "x" * 2001, False, "Line 2: prompt must be at most 2,000 characters, got 2,001"),
        ("a\nb\udcff", False, "Line 2: prompt must be valid UTF-8 without control characters (character 2)"),
        ('{"prompt": "a"', True, "Line 1: not a JSON object"),
        ("[1]", True, "Line 1: not a JSON object"),
        ('{"prompt": "a", "step": 3}', True, "Line 1: Unknown setting 'step'. Did you mean steps?"),
        ('{"prompt": "a", "guidance_scale": NaN}', True, "Line 1: guidance_scale must be 0 to 50, got 'NaN'"),
        ('{"prompt": "a", "seed": -1}', True, "Line 1: seed must be random or"),
        ("[" * 100_000, True, "Line 1: not a JSON object"),
    ],
)
def test_an_invalid_line_is_an_error_with_its_number(text: str, jsonl: bool, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_lines(text, jsonl=jsonl)
    assert message in str(caught.value)


def test_jobs_have_one_image_each_and_consecutive_seeds() -> None:
    [*jobs] = make_jobs([(3, Settings("a", seed=5, images=3)), (4, Settings("b", seed=2**63 - 1, images=2))])
    assert [(job.line, job.image, job.settings.seed, job.settings.images) for job in jobs] == [
        (3, 0, 5, 1),
        (3, 1, 6, 1),
        (3, 2, 7, 1),
        (4, 0, 2**63 - 1, 1),
        (4, 1, 0, 1),
    ]


def test_ids_depend_only_on_settings_and_image() -> None:
    first, second = make_jobs([(1, Settings("a", seed=5))]), make_jobs([(9, Settings("a", seed=5))])
    assert first[0].id == second[0].id
    assert len(first[0].id) == 16
    int(first[0].id, 16)
    others = [Settings("b", seed=5), Settings("a", seed=6), Settings("a", seed=5, steps=3)]
    assert len({first[0].id, *(make_jobs([(1, other)])[0].id for other in others)}) == 4


def test_equal_lines_have_different_ids() -> None:
    jobs = make_jobs([(1, Settings("a", seed=5, images=2)), (2, Settings("a", seed=5, images=2))])
    assert len({job.id for job in jobs}) == 4


def test_jobs_in_the_journal_are_done_while_their_file_exists(tmp_path: Path) -> None:
    lines = lines_of("a", "b", "c", "d")
    jobs = make_jobs(lines)
    journal = Journal(tmp_path)
    assert journal.lines() is None
    journal.start(lines)
    for job in jobs[:2]:
        path = tmp_path / "day" / f"{job.id}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        journal.add(job.id, path)
    journal.add(jobs[2].id, None)
    again = Journal(tmp_path)
    assert again.lines() == [settings.to_dict() for _, settings in lines]
    assert again.done(jobs) == {job.id for job in jobs[:3]}
    (tmp_path / "day" / f"{jobs[0].id}.png").unlink()
    assert again.done(jobs) == {job.id for job in jobs[1:3]}


def test_every_process_has_a_journal_and_all_are_read(tmp_path: Path) -> None:
    lines = lines_of("a", "b", "c")
    jobs = make_jobs(lines)
    Journal(tmp_path, 0).start(lines)
    for rank, job in enumerate(jobs):
        Journal(tmp_path, rank).add(job.id, None)
    assert len(list(tmp_path.glob(".clipgen-journal.*.jsonl"))) == 3
    assert Journal(tmp_path, 1).done(jobs) == {job.id for job in jobs}
    Journal(tmp_path, 0).start(lines)
    assert Journal(tmp_path).done(jobs) == set()


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_an_incomplete_line_is_ignored_and_does_not_damage_the_next(tmp_path: Path, cut: int) -> None:
    lines = lines_of("a", "b", "c")
    jobs = make_jobs(lines)
    journal = Journal(tmp_path)
    journal.start(lines)
    journal.add(jobs[0].id, None)
    before = journal.path.stat().st_size
    journal.add(jobs[1].id, None)
    size = journal.path.stat().st_size
    truncated_size = max(before + 1, size - cut)
    os.truncate(journal.path, truncated_size)
    expected = {jobs[0].id} | ({jobs[1].id} if truncated_size == size - 1 else set())  # only the newline is missing
    assert journal.done(jobs) == expected
    journal.add(jobs[2].id, None)
    assert journal.done(jobs) == expected | {jobs[2].id}


def test_an_image_without_a_journal_line_counts_by_its_job_id(tmp_path: Path) -> None:
    lines = lines_of("a", "b", "c")
    jobs = make_jobs(lines)
    journal = Journal(tmp_path)
    journal.start(lines)
    for job, suffix in zip(jobs[:2], ("png", "jpeg"), strict=True):
        record = make_record(job.settings, seed=1, clip=None, model=MODEL, runtime=RUNTIME, job=job.id)
        data = encode_image(Image.new("RGB", (8, 8)), record, format=suffix)  # type: ignore[arg-type]
        (tmp_path / f"x.{suffix}").write_bytes(data)
    (tmp_path / "stranger.png").write_bytes(b"no picture")
    assert journal.done(jobs) == {jobs[0].id, jobs[1].id}


def test_the_same_list_gets_the_same_seeds() -> None:
    before = [Settings("a", seed=77).to_dict(), Settings("b", seed=2).to_dict()]
    same = same_lines(before, [(1, Settings("a")), (2, Settings("b", seed=2))])
    assert [settings.seed for _, settings in same] == [77, 2]


@pytest.mark.parametrize(
    "now, message",
    [
        ([(1, Settings("a", seed=1))], "The job list has 1 prompts and had 2"),
        ([(1, Settings("a", seed=1)), (2, Settings("c", seed=2))], "Line 2 has changed: prompt was 'b' and is 'c'"),
        ([(1, Settings("a", seed=9)), (2, Settings("b", seed=2))], "Line 1 has changed: seed was '1' and is '9'"),
        (
            [(1, Settings("a", seed=1)), (2, Settings("b", seed=2, steps=4))],
            "Line 2 has changed: steps was 'None' and is '4'",
        ),
    ],
)
def test_another_list_is_refused(now: list[tuple[int, Settings]], message: str) -> None:
    before = [settings.to_dict() for _, settings in lines_of("a", "b")]
    with pytest.raises(SettingsError) as caught:
        same_lines(before, now)
    assert str(caught.value) == f"{message}; start again without --resume."


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path / "file" / "folder").start(lines_of("a"))


def test_without_accelerate_one_process_has_all_jobs() -> None:
    with sharing() as share:
        assert share == Share(0, 1, "auto")
        assert share.of([1, 2, 3]) == [1, 2, 3]
        share.wait()


def test_journal_lines_are_json(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.start(lines_of("ein Bär"))
    journal.add("0" * 16, tmp_path / "sub" / "é.png")
    head, line = (json.loads(text) for text in journal.path.read_text("utf-8").splitlines())
    assert head["schema"] == "clipgen-journal/1"
    assert line == {"job": "0" * 16, "path": os.path.join("sub", "é.png")}
