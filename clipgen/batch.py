"""Batches of prompts: job files, job ids, a journal to resume from, and the split over several processes."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from clipgen.atomic import replace_file
from clipgen.errors import ClipgenError, OutputError, SettingsError
from clipgen.hashing import sha256_of
from clipgen.settings.checks import MAX_SEED, unknown_name
from clipgen.settings.settings import FIELDS, Settings, check_field, coerce

SCHEMA = "clipgen-journal/1"
JOURNAL = ".clipgen-journal.{}.jsonl"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# A1111's names in its "prompts from file" lines -> ours
A1111 = {"cfg_scale": "guidance_scale", "sampler_name": "scheduler", "batch_size": "images", "n_iter": "images"}
Item = TypeVar("Item")


@dataclass(frozen=True)
class Line:
    """One line of a job file: its number, from 1, and the Settings fields that it sets."""

    number: int
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """One image of a batch: the index `image` within its line, and its settings; `id` is the same in every run."""

    id: str
    line: int
    image: int
    settings: Settings


def read_lines(text: str, *, jsonl: bool = False) -> list[Line]:
    """Reads a job file: prompts, `# comments`, A1111 lines `--prompt "..." --steps 20`, or JSONL of Settings fields.

    A file whose first character is `{` is read as JSONL. Raises SettingsError with the number of the line.
    """
    parse = _json_fields if jsonl or text.lstrip().startswith("{") else _text_fields
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                lines.append(Line(number, parse(line.strip())))
            except SettingsError as error:
                raise in_line(number, error) from error
    if not lines:
        raise SettingsError("The job file holds no prompt.", field="prompt")
    return lines


def in_line(number: int, error: ClipgenError) -> SettingsError:
    """Returns the error with the number of the line in its message."""
    return SettingsError(f"Line {number}: {error}", field=error.field, allowed=error.allowed)


def _json_fields(line: str) -> dict[str, Any]:
    try:
        values = json.loads(line, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"not a JSON object ({error})") from error
    if not isinstance(values, dict):
        raise SettingsError("not a JSON object")
    return {name: check_field(_known(name), value) for name, value in values.items()}


def _text_fields(line: str) -> dict[str, Any]:
    if not line.startswith("--"):
        return {"prompt": check_field("prompt", line)}
    try:
        words = iter(shlex.split(line))
    except ValueError as error:
        raise SettingsError(f"a quotation mark is not closed ({error})") from error
    return dict(_flag(word, words) for word in words)


def _flag(word: str, rest: Iterator[str]) -> tuple[str, Any]:
    """Returns the field and the value of `--name value` or `--name=value`; A1111's seed -1 means a random seed."""
    spelled, equals, value = word.partition("=")
    if not spelled.startswith("--"):
        raise SettingsError(f"a flag such as --steps must come before '{word}'")
    name = spelled[2:].replace("-", "_")
    name = _known(A1111.get(name, name))
    text = value if equals else next(rest, None)
    if text is None:
        raise SettingsError(f"{spelled} needs a value", field=name)
    return name, None if name == "seed" and text == "-1" else coerce(name, text)


def _known(name: str) -> str:
    if name not in FIELDS:
        raise SettingsError(unknown_name("setting", name, FIELDS), field=name, allowed=FIELDS)
    return name


def make_jobs(lines: Sequence[tuple[int, Settings]]) -> list[Job]:
    """Returns one job per image of the lines, whose settings have a seed; image k of a line has seed + k.

    The id is the first 16 hex digits of the SHA-256 of: the line's settings as JSON with sorted keys, the index of the
    image, and the number of equal lines before this one.
    """
    equal_lines: Counter[str] = Counter()
    jobs = []
    for number, settings in lines:
        assert settings.seed is not None
        text = json.dumps(settings.to_dict(), sort_keys=True)
        for image in range(settings.images):
            key = json.dumps([text, image, equal_lines[text]])
            single = settings.replace(seed=(settings.seed + image) % (MAX_SEED + 1), images=1)
            jobs.append(Job(sha256_of(key)[:16], number, image, single))
        equal_lines[text] += 1
    return jobs


class Journal:
    """The finished images of a batch, one JSON line each; every process appends to its own file.

    The first line of process 0's file is the job list, with which a resumed batch is compared.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder
        self.path = folder / JOURNAL.format(rank)

    def start(self, lines: Sequence[tuple[int, Settings]]) -> None:
        """Starts a new batch: removes the journals of the previous one and writes the job list; raises OutputError."""
        head = {"schema": SCHEMA, "lines": [settings.to_dict() for _, settings in lines]}
        with _output_errors(self.path):
            for old in self._files():
                old.unlink(missing_ok=True)
            replace_file(self.path, json.dumps(head) + "\n")

    def add(self, job: str, path: Path | None) -> None:
        """Records that the image of a job is saved; None = `--keep` dropped it. Raises OutputError."""
        line = {"job": job, "path": path and os.path.relpath(path, self.folder)}
        with _output_errors(self.path), self.path.open("ab+") as file:
            file.seek(max(0, file.tell() - 1))
            line_end = b"\n" if file.read(1) not in (b"", b"\n") else b""  # a killed process wrote half a line
            file.write(line_end + json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> list[dict[str, Any]] | None:
        """Returns the settings of each line of the batch in this folder; None if there is no batch."""
        heads = [entry["lines"] for entry in self._entries() if entry.get("schema") == SCHEMA]
        return heads[0] if heads else None

    def done(self, jobs: Sequence[Job]) -> set[str]:
        """Returns the ids of the finished jobs: recorded here with an existing file, or in an image's record."""
        recorded = {entry["job"]: entry["path"] for entry in self._entries() if "job" in entry}
        done = {job for job, path in recorded.items() if path is None or (self.folder / path).is_file()}
        known_files = {(self.folder / path).resolve() for path in recorded.values() if path}
        ids = {job.id for job in jobs}
        return (done | self._unrecorded(known_files) if ids - done else done) & ids

    def _unrecorded(self, known_files: set[Path]) -> set[str]:
        """Returns the ids in images that no line records, because the process was killed between the two writes."""
        from clipgen.image_file import read_settings

        ids = set()
        for path in self.folder.rglob("*"):
            if path.suffix.lower() in IMAGE_SUFFIXES and path.resolve() not in known_files:
                try:
                    record = read_settings(path).record
                except ClipgenError:
                    continue
                if record:
                    ids.add(str(record.get("job")))
        return ids

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(JOURNAL.format("*")))

    def _entries(self) -> Iterator[dict[str, Any]]:
        """Yields the entries of every process's journal; incomplete lines are skipped."""
        for file in self._files():
            for line in file.read_text("utf-8", "replace").splitlines():
                with suppress(ValueError):
                    yield json.loads(line)


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror}", field="output") from error


def same_lines(before: Sequence[Mapping[str, Any]], now: Sequence[tuple[int, Settings]]) -> list[tuple[int, Settings]]:
    """Returns the lines with the random seeds of the first run; raises SettingsError with the first difference."""
    if len(before) != len(now):
        raise SettingsError(f"The job list has {len(now)} prompts and had {len(before)}; start again without --resume.")
    same = []
    for old, (number, settings) in zip(before, now, strict=True):
        with_seed = settings if settings.seed is not None else settings.replace(seed=old.get("seed"))
        for name, value in with_seed.to_dict().items():
            if old.get(name) != value:
                message = f"Line {number} has changed: {name} was '{old.get(name)}' and is '{value}'"
                raise SettingsError(f"{message}; start again without --resume.", field=name)
        same.append((number, with_seed))
    return same


@dataclass(frozen=True)
class Share:
    """The share of one process: its rank, the number of processes, its device."""

    rank: int = 0
    processes: int = 1
    device: str = "auto"

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Returns the part of a list that this process works on."""
        if self.processes == 1:
            return list(items)
        from accelerate import PartialState

        with PartialState().split_between_processes(list(items)) as mine:
            return list(mine)

    def wait(self) -> None:
        """Waits for all processes."""
        if self.processes > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


@contextmanager
def sharing() -> Iterator[Share]:
    """Joins the processes that `accelerate launch` started; without it, the share is everything."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Share()
        return
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=os.environ.get("ACCELERATE_USE_CPU") == "True" or not torch.cuda.is_available())
    device = "cpu" if state.device.type == "cpu" else str(state.device)
    try:
        yield Share(state.process_index, state.num_processes, device)
    finally:
        state.destroy_process_group()
